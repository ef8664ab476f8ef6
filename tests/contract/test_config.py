"""Configuration through the real command line: flag > variable > file > preset > default, each with its source."""

import json
from pathlib import Path

import pytest

from r1cli.settings import COMMANDS
from tests.contract.conftest import Run, assert_error

SHOW = """
import json
from r1cli.io.stdout import claim_stdout
def run(settings, context):
    json.dump({"settings": vars(settings), "sources": context.sources, "command": context.command}, claim_stdout())
"""


def test_every_layer_reaches_the_command_with_its_source(r1: Run, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("seed = 4\n[grpo]\nlr = 0.4\nbeta = 0.4\nsteps = 4\n")
    done = r1(
        "grpo",
        "-m",
        "base",
        "-o",
        "out",
        "--lr",
        "0.1",
        "-c",
        "recipe.toml",
        "--preset",
        "r1-zero",
        "-qq",
        "--no-mask-truncated",
        "--stop",
        "a",
        "--stop",
        "b",
        "rows.jsonl",
        fake=SHOW,
        env={"R1_GRPO_BETA": "0.2", "R1_LR": "0.2"},
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    values = {name: (shown["settings"][name], shown["sources"][name]) for name in shown["settings"]}
    assert values["lr"] == (0.1, "flag")
    assert values["beta"] == (0.2, "env")
    assert values["steps"] == (4, "config")
    assert values["seed"] == (4, "config")
    assert values["group_size"] == (16, "preset")
    assert values["warmup_steps"] == (0, "default")
    assert values["quiet"] == (2, "flag")
    assert values["mask_truncated"] == (False, "flag")
    assert values["stop"] == (["a", "b"], "flag")
    assert values["inputs"] == (["rows.jsonl"], "flag")
    assert values["model"] == ("base", "flag")


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "rewards"])
def test_flags_work_before_and_after_the_inputs(r1: Run, command: str) -> None:
    words = {
        "sample": ["-m", "m"],
        "sft": ["-m", "m", "-o", "o"],
        "rm": ["-m", "m", "-o", "o"],
        "grpo": ["-m", "m", "-o", "o"],
        "distill": ["--student", "s", "-o", "o"],
    }
    last = "--json" if command in ("report", "lineage") else "--seed=3"
    done = r1(command, "-q", *words.get(command, []), "a.jsonl", "-v", last, "b.jsonl", fake=SHOW)
    assert done.returncode == 0, done.stderr
    settings = json.loads(done.stdout)["settings"]
    assert (settings["quiet"], settings["verbose"], settings["inputs"]) == (1, True, ["a.jsonl", "b.jsonl"])


def test_mistakes_in_configuration_and_variables(r1: Run, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[grpo]\ngroup_sise = 4\n")
    grpo = ("grpo", "-m", "m", "-o", "o")
    assert_error(r1(*grpo, "-c", "a.toml"), 2, "`a.toml`: `r1 grpo` has no setting `group_sise`", "did you mean `group_size`?")
    assert_error(r1(*grpo, "-c", "no.toml"), 2, "cannot read the configuration `no.toml`")
    assert_error(r1(*grpo, env={"R1_LR": "x"}), 2, "`R1_LR` must be a number of at least 0, found `x`")
    assert_error(r1(*grpo, "--preset", "r1-zer"), 2, "unknown preset `r1-zer`", "did you mean `r1-zero`?")
