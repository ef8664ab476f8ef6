"""Help: everything says what it is, and nothing heavy is imported to say it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from r1cli.settings import COMMANDS
from tests.contract.conftest import HEAVY, Run, environment

IMPORTED = f"""
import io, json, sys
from contextlib import redirect_stdout
from r1cli.cli import main
codes = {{}}
for command in {list(COMMANDS)!r}:
    for flag in ("-h", "--help"):
        with redirect_stdout(io.StringIO()) as text:
            codes[command + " " + flag] = main([command, flag])
for words in (["--help"], ["--version"], []):
    with redirect_stdout(io.StringIO()):
        codes[" ".join(words)] = main(words)
print(json.dumps({{"codes": codes, "heavy": [name for name in {HEAVY!r} if name in sys.modules]}}))
"""


def test_no_help_imports_anything_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, env=environment(), check=True)
    found = json.loads(done.stdout)
    assert set(found["codes"].values()) == {0}
    assert found["heavy"] == []


def test_help_is_on_stdout_and_plain(r1: Run) -> None:
    done = r1("grpo", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Train a model with GRPO")
    assert "--group-size" in done.stdout
    assert "\x1b" not in done.stdout


def test_r1_alone_lists_the_commands(r1: Run) -> None:
    done = r1()
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"\n  {command} " in done.stdout for command in COMMANDS)


def test_version_names_what_decides_results(r1: Run) -> None:
    done = r1("--version")
    assert done.returncode == 0
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == ["r1", "python", "torch", "transformers", "vllm"]
    assert f"python {sys.version.split()[0]}" in done.stdout


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("r1 gr", "grpo"),
        ("r1 sft --lr-sch", "--lr-schedule"),
        ("r1 grpo --loss dr", "dr_grpo"),
        ("r1 grpo --preset r1-z", "r1-zero"),
        ("r1 reject --rewards accuracy,for", "accuracy,format"),
    ],
)
def test_completion_knows_commands_flags_and_choices(words: str, wanted: str) -> None:
    env = environment(_R1_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1))
    done = subprocess.run([sys.executable, "-m", "r1cli"], capture_output=True, text=True, env=env, check=False)
    assert wanted in done.stdout.split(), done.stderr


def test_completion_installs(tmp_path: Path) -> None:
    env = environment(HOME=str(tmp_path), PYTHONUSERBASE=os.environ.get("PYTHONUSERBASE", str(Path.home() / ".local")))
    line = f"'{sys.executable}' -m r1cli --install-completion; exit $?"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert "r1" in (tmp_path / ".bashrc").read_text()
