"""`--track`: what reaches tensorboard (its own reader reads it back) and wandb (a fake that notes its calls)."""

import importlib.util
import json
from pathlib import Path

import pytest

from r1cli.commands.tracking import TRACKERS
from tests.contract.conftest import Run, assert_error
from tests.contract.test_launch import GRPO, TWO, files, rewind

WANDB = """
import json
def note(*what):
    with open("wandb.jsonl", "a") as file:
        file.write(json.dumps(what) + "\\n")
class Config:
    def update(self, values, **more):
        note("config", values)
class Run:
    def log(self, values, step=None, **more):
        note("log", step, values)
    def finish(self):
        note("finish")
config = Config()
def init(**words):
    note("init", words)
    return Run()
"""


def test_tensorboard_reads_back_what_metrics_hold(r1: Run, tiny: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    files(tmp_path)
    done = r1("sft", "--model", str(tiny), "--batch-rows", "6", "--epochs", "2", "--track", "tensorboard", "-o", "run", "lessons.jsonl")
    assert done.returncode == 0, done.stderr
    events = reader.EventAccumulator(str(tmp_path / "run/trackers/r1-sft"))
    events.Reload()
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "grad_norm", "lr"):
        assert [event.step for event in events.Scalars(name)] == [1, 2, 3, 4]
        assert [event.value for event in events.Scalars(name)] == pytest.approx([line[name] for line in lines])


def test_tensorboard_shows_each_step_of_a_resumed_run_once(r1: Run, tiny: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    files(tmp_path)
    words = ["sft", "--model", str(tiny), "--batch-rows", "6", "--epochs", "3", "--save-every", "2", "--keep", "9"]
    words += ["--track", "tensorboard", "-o", "run", "lessons.jsonl"]
    assert r1(*words).returncode == 0
    rewind(tmp_path / "run", 2)
    done = r1(*words, "--resume")
    assert done.returncode == 0 and "step_000002" in done.stderr, done.stderr
    events = reader.EventAccumulator(str(tmp_path / "run/trackers/r1-sft"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6]


def test_one_of_two_processes_tells_wandb(r1: Run, tiny: Path, tmp_path: Path) -> None:
    files(tmp_path)
    (tmp_path / "fake/wandb-0.20.0.dist-info").mkdir(parents=True)
    (tmp_path / "fake/wandb-0.20.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: wandb\nVersion: 0.20.0\n")
    (tmp_path / "fake/wandb.py").write_text(WANDB)
    path = f"{tmp_path / 'fake'}:{Path(__file__).parents[2] / 'src'}"
    flags = [*TWO, "--track", "wandb", "--project", "sums", "--run-name", "first"]
    done = r1("grpo", "--model", str(tiny), *GRPO, *flags, "-o", "run", "problems.jsonl", env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    noted = [json.loads(line) for line in (tmp_path / "wandb.jsonl").read_text().splitlines()]
    assert noted[0] == ["init", {"project": "sums", "name": "first", "group": "first"}]
    assert noted[1][1]["group_size"] == 4 and noted[1][1]["rewards"] == "mine.py:brief"
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [(entry[1], entry[2]["reward"]) for entry in noted if entry[0] == "log"] == [(line["step"], line["reward"]) for line in lines]
    assert noted[-1] == ["finish"]


@pytest.mark.parametrize(
    ("flags", "code", "message", "hint"),
    [
        (["--track", "tensorbord"], 2, "`--track` knows no tracker `tensorbord`", "did you mean `tensorboard`?"),
        (["--run-name", "x"], 2, "--run-name without --track", "--track tensorboard"),
    ],
)
def test_flags_that_name_nothing_are_refused(r1: Run, tmp_path: Path, flags: list[str], code: int, message: str, hint: str) -> None:
    done = r1("sft", "--model", "none", *flags, "-o", "run", "-", stdin="{}\n")
    assert_error(done, code, message, hint)


@pytest.mark.parametrize("name", [name for name in TRACKERS if importlib.util.find_spec(name) is None])
@pytest.mark.parametrize("command", [["sft"], ["rm"], ["grpo", "--rewards", "format"]])
def test_a_tracker_that_is_not_installed_is_refused(r1: Run, tmp_path: Path, name: str, command: list[str]) -> None:
    """Before anything is loaded or written, in every command that has trackers."""
    done = r1(*command, "--model", "none", "--track", name, "-o", "run", "-", stdin="{}\n")
    assert_error(done, 3, f"the tracker `{name}` is not installed", "pip install 'r1cli[track]'")
    assert not (tmp_path / "run").exists()
