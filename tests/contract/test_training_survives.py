"""A training run that is killed, or finds the disk full, at the worst moments; and `--resume` on a run that is done."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.contract.conftest import Done, Run, assert_error, command_line, environment
from tests.contract.test_launch import TWO, assert_same, rewind
from tests.contract.test_rm import pairs
from tests.contract.test_training import GRPO, LESSONS, PROMPTS, figures, records

SFT = ["--epochs", "2", "--batch-rows", "4", "--lr", "1e-2", "--dtype", "float32"]  # 6 steps
RM = ["--epochs", "1", "--batch-rows", "8", "--lr", "1e-2", "--dtype", "float32", "--held-out", "held.jsonl"]
SAVING = ["--save-every", "2", "--keep", "9"]
LONGER = {"sft": ["--epochs", "4"], "rm": ["--epochs", "2"], "grpo": ["--steps", "8"]}
START = """
import os, resource, signal, sys
import r1cli.commands.finish, r1cli.commands.training as training
sys.argv[0] = "r1"
def die(*given, **options):
    os.kill(os.getpid(), signal.SIGKILL)
def fill():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
save_model, save_state = training.save_model, training.save_state
{}
from r1cli.cli import main
sys.exit(main())
"""
AT_STEP_4 = """
def at_step_4(accelerator, optimizer, folder, step, reference):
    if step == 4:
        {}
    save_state(accelerator, optimizer, folder, step, reference)
training.save_state = at_step_4
"""
AT_THE_END = """
def at_the_end(accelerator, policy, tokenizer, folder, **options):
    if folder.name == "final":
        {}
    save_model(accelerator, policy, tokenizer, folder, **options)
    if folder.name == "final":
        {}
training.save_model = at_the_end
"""


def files(folder: Path) -> None:
    (folder / "lessons.jsonl").write_text(LESSONS)
    (folder / "problems.jsonl").write_text(PROMPTS)
    (folder / "pairs.jsonl").write_text(pairs(0, 24))
    (folder / "held.jsonl").write_text(pairs(100, 6))
    (folder / "mine.py").write_text("def brief(row):\n    return -len(row['completion']) / 100\n")


def words_of(command: str, tiny: Path) -> list[str]:
    grpo = [*GRPO[: GRPO.index("--save-every")], "problems.jsonl"]
    own = {"sft": [*SFT, "lessons.jsonl"], "rm": [*RM, "pairs.jsonl"], "grpo": grpo}[command]
    return [command, "--model", str(tiny), *own]


def prepared(how: str, words: list[str], folder: Path) -> Done:
    """Run a command in which something happens at a certain place."""
    return subprocess.run(
        [sys.executable, "-c", START.format(how), *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """All files of a folder, and when they were written."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def weights(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model.safetensors")


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


@pytest.fixture(scope="module")
def straight(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of an `sft` that nothing happens to."""
    folder = tmp_path_factory.mktemp("straight")
    files(folder)
    done = prepared("", [*words_of("sft", tiny), *SAVING, "-o", "run"], folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.mark.parametrize("command", ["sft", "rm", "grpo"])
def test_a_run_that_is_done_is_left_alone(r1: Run, tiny: Path, tmp_path: Path, command: str) -> None:
    """A job script may always pass --resume. Without checkpoints all would be made again, and the metrics were gone first."""
    files(tmp_path)
    words = words_of(command, tiny)
    done = r1(*words, "-o", "run", "--resume")
    assert done.returncode == 0, done.stderr
    before = contents(tmp_path / "run")
    again = r1(*words, "-o", "run", "--resume")
    assert again.returncode == 0, again.stderr
    assert f"{command}: already done, " in again.stderr and "written: run/final" in again.stderr
    assert contents(tmp_path / "run") == before
    longer = r1(*words, *LONGER[command], "-o", "run", "--resume")
    assert longer.returncode == 2 and "error: `run` ended after" in longer.stderr and "has no checkpoint to go on from" in longer.stderr
    assert contents(tmp_path / "run") == before


def test_a_run_that_is_done_is_made_longer_from_its_checkpoint(r1: Run, tiny: Path, straight: Path, tmp_path: Path) -> None:
    files(tmp_path)
    shutil.copytree(straight, tmp_path / "run", symlinks=True)
    done = r1(*words_of("sft", tiny), *SAVING, *LONGER["sft"], "-o", "run", "--resume")
    assert done.returncode == 0, done.stderr
    assert "resuming `run/checkpoints/step_000004`" in done.stderr
    assert [record["step"] for record in records(tmp_path / "run")] == list(range(1, 13))
    made = json.loads((tmp_path / "run/final/manifest.json").read_text())
    assert (made["step"], made["counts"]["steps"], made["attempts"]) == (12, 12, 2)
    assert not same(weights(tmp_path / "run/final"), weights(straight / "final"))


@pytest.mark.parametrize(
    ("command", "longer", "shorter", "step"),
    [
        ("sft", ["--epochs", "2", *SAVING], ["--epochs", "1"], 4),
        ("rm", ["--epochs", "2", *SAVING], ["--epochs", "1"], 4),
        ("grpo", ["--steps", "2", "--save-every", "1"], ["--steps", "1"], 1),
    ],
)
def test_a_run_that_is_made_shorter_than_it_is_has_a_final_model(
    r1: Run, tiny: Path, tmp_path: Path, command: str, longer: list[str], shorter: list[str], step: int
) -> None:
    files(tmp_path)
    words = [*words_of(command, tiny), *longer, "-o", "run"]
    done = r1(*words)
    assert done.returncode == 0, done.stderr
    rewind(tmp_path / "run", step)
    (tmp_path / "run/held_out.json").unlink(missing_ok=True)
    done = r1(*words, *shorter, "--resume")
    assert done.returncode == 0 and "written: run/final" in done.stderr, done.stderr
    assert same(weights(tmp_path / "run/final"), weights(tmp_path / f"run/checkpoints/step_{step:06}"))
    assert json.loads((tmp_path / "run/final/manifest.json").read_text())["step"] == step
    assert (tmp_path / "run/held_out.json").exists() is (command == "rm")


@pytest.mark.parametrize(
    ("how", "goes_on"),
    [
        (AT_STEP_4.format("die()"), "resuming `run/checkpoints/step_000002`"),
        (AT_THE_END.format("die()", "pass"), "resuming `run/checkpoints/step_000004`"),
        (AT_THE_END.format("pass", "die()"), "resuming `run/checkpoints/step_000004`"),
        ("r1cli.commands.finish.describe_source = die", "sft: already done, 6 steps"),
    ],
    ids=["checkpoint", "before final", "after final", "manifest"],
)
def test_a_kill_while_something_is_saved_changes_nothing(
    r1: Run, tiny: Path, straight: Path, tmp_path: Path, how: str, goes_on: str
) -> None:
    files(tmp_path)
    words = [*words_of("sft", tiny), *SAVING, "-o", "run"]
    assert prepared(how, words, tmp_path).returncode == -9
    assert not (tmp_path / "run/manifest.json").exists()
    resumed = r1(*words, "--resume")
    assert resumed.returncode == 0 and goes_on in resumed.stderr, resumed.stderr
    assert figures(tmp_path / "run") == figures(straight)
    assert same(weights(tmp_path / "run/final"), weights(straight / "final"))
    assert all((folder / "manifest.json").exists() for folder in (tmp_path / "run/checkpoints").iterdir())
    for name in ("run/manifest.json", "run/final/manifest.json"):
        made = json.loads((tmp_path / name).read_text())
        assert made["command"] == "sft" and made["counts"]["steps"] == 6 and made["inputs"][0]["sha256"]


@pytest.mark.parametrize(
    ("how", "what", "last"),
    [(AT_STEP_4.format("fill()"), "the checkpoint of step 4", 2), (AT_THE_END.format("fill()", "pass"), "the final model", 4)],
    ids=["checkpoint", "final"],
)
def test_a_full_disk_is_said_and_leaves_room(r1: Run, tiny: Path, straight: Path, tmp_path: Path, how: str, what: str, last: int) -> None:
    files(tmp_path)
    words = [*words_of("sft", tiny), *SAVING, "-o", "run"]
    done = prepared(how, words, tmp_path)
    assert done.returncode == 1 and f"error: cannot write {what}: " in done.stderr and "File too large" in done.stderr
    assert f"hint: free some space; --resume goes on from `run/checkpoints/step_{last:06}`" in done.stderr
    assert not (tmp_path / "run/final").exists() and len(list((tmp_path / "run/checkpoints").iterdir())) == last / 2
    resumed = r1(*words, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert figures(tmp_path / "run") == figures(straight) and same(weights(tmp_path / "run/final"), weights(straight / "final"))


def test_a_full_disk_ends_all_processes(tiny: Path, tmp_path: Path) -> None:
    files(tmp_path)
    line = " ".join([*command_line(), *words_of("sft", tiny), *SAVING, *TWO, "--no-progress", "-o", "run"])
    done = subprocess.run(
        ["bash", "-c", f"trap '' XFSZ; ulimit -f 300; {line}"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert_error(done, 1, "cannot write the checkpoint of step 2: ", "free some space; --resume starts at step 1")
    assert list((tmp_path / "run/checkpoints").iterdir()) == []


def test_an_alarm_at_the_last_step_leaves_its_model(r1: Run, tiny: Path, tmp_path: Path) -> None:
    files(tmp_path)
    (tmp_path / "mine.py").write_text("def brief(row):\n    return 0.5\n")
    alarm = ["--alarm-steps", "2", "--stop-on", "constant-reward", "--steps", "2", "--rewards", "mine.py:brief", "-o", "run"]
    done = r1(*words_of("grpo", tiny), *alarm)
    assert done.returncode == 1 and "error: stopped at step 2 by --stop-on constant-reward" in done.stderr, done.stderr
    assert json.loads((tmp_path / "run/final/manifest.json").read_text())["step"] == 2
    again = r1(*words_of("grpo", tiny), *alarm, "--resume")
    assert again.returncode == 0 and "grpo: already done, 2 steps" in again.stderr, again.stderr
    assert json.loads((tmp_path / "run/manifest.json").read_text())["counts"]["steps"] == 2


def test_alarms_remember_over_a_checkpoint(r1: Run, tiny: Path, tmp_path: Path) -> None:
    """Three measurements above the best: two before the checkpoint, one after."""
    (tmp_path / "lessons.jsonl").write_text(LESSONS)
    (tmp_path / "held.jsonl").write_text(LESSONS.replace("</answer>", "7</answer>"))
    words = [*words_of("sft", tiny), "--epochs", "200", "--lr-schedule", "constant", "--held-out", "held.jsonl", "--held-out-every", "2"]
    words += [*SAVING[:2], "--keep", "99", "--stop-on", "overfitting"]
    done = r1(*words, "-o", "run")
    assert done.returncode == 1 and "by --stop-on overfitting" in done.stderr, done.stderr
    before = figures(tmp_path / "run")
    shutil.rmtree(tmp_path / f"run/checkpoints/step_{len(before):06}")
    resumed = r1(*words, "-o", "run", "--resume")
    assert resumed.returncode == 1 and f"resuming `run/checkpoints/step_{len(before) - 2:06}`" in resumed.stderr, resumed.stderr
    assert f"stopped at step {len(before)} by --stop-on overfitting" in resumed.stderr
    assert figures(tmp_path / "run") == before


def test_dropout_goes_on_in_every_process(r1: Run, tiny: Path, tmp_path: Path) -> None:
    """Each process leaves out other inputs; resumed, the second one used to go on with the numbers of the first."""
    pytest.importorskip("peft")
    files(tmp_path)
    words = [*words_of("sft", tiny), *SAVING, *TWO, "--lora", "8", "--lora-dropout", "0.3"]
    done = r1(*words, "-o", "straight")
    assert done.returncode == 0, done.stderr
    shutil.copytree(tmp_path / "straight", tmp_path / "run", symlinks=True)
    rewind(tmp_path / "run", 2)
    resumed = r1(*words, "-o", "run", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert_same(tmp_path / "run", tmp_path / "straight", exactly=True)
