"""How `r1 sft` ends early: signals, time limit, alarms, broken numbers; and which part of a chat it learns."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.contract.conftest import Run, assert_error, command_line, environment
from tests.contract.test_training import LESSONS, figures, records

SFT = ["--batch-rows", "4", "--lr", "1e-2", "--dtype", "float32"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)])
def test_a_signal_saves_and_the_run_goes_on_as_if_nothing_was(r1: Run, tiny: Path, tmp_path: Path, number: int, code: int) -> None:
    (tmp_path / "rows.jsonl").write_text(LESSONS)
    (tmp_path / "held.jsonl").write_text(LESSONS.replace("What is", "And what is"))
    measured = ["--held-out", "held.jsonl", "--held-out-every", "1"]
    words = ["sft", "--model", str(tiny), *SFT, *measured, "--epochs", "12", "rows.jsonl"]
    process = subprocess.Popen(
        [*command_line(), *words, "-o", "run"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # the tests may run under nohup
    )
    deadline = time.monotonic() + 200
    metrics = tmp_path / "run/metrics.jsonl"
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "saving what is done, then ending" in said and ("--resume" in said) is (number == signal.SIGINT)
    assert list((tmp_path / "run/checkpoints").glob("step_*/manifest.json")) and not (tmp_path / "run/final").exists()
    if number != signal.SIGTERM:
        return
    resumed = r1(*words, "-o", "run", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    straight = r1(*words, "-o", "straight")
    assert straight.returncode == 0, straight.stderr
    assert figures(tmp_path / "run") == figures(tmp_path / "straight") and len(records(tmp_path / "run")) == 36
    ours, theirs = (load_file(tmp_path / name / "final/model.safetensors") for name in ("run", "straight"))
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_two_jobs_never_write_to_one_run(r1: Run, tiny: Path, tmp_path: Path) -> None:
    """A second job is refused while the first one runs; with --resume it waits for one that was told to end, and goes on from there."""
    (tmp_path / "rows.jsonl").write_text(LESSONS)
    words = ["sft", "--model", str(tiny), *SFT, "--epochs", "40", "rows.jsonl", "-o", "run"]
    first = subprocess.Popen([*command_line(), *words], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run/metrics.jsonl"
    deadline = time.monotonic() + 200
    while not (metrics.exists() and metrics.read_text()):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    first.send_signal(signal.SIGSTOP)  # it is in the middle of something, for as long as it takes
    assert_error(r1(*words, "--force"), 2, f"`run` is being written by another job (process {first.pid} on ", "another name")
    second = subprocess.Popen([*command_line(), *words, "--resume"], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
    assert second.stderr is not None
    assert "for another job to leave `run`" in second.stderr.readline()
    first.send_signal(signal.SIGCONT)
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 143
    _, said = second.communicate(timeout=200)
    assert second.returncode == 0, said
    assert "resuming `run/checkpoints/step_" in said
    assert [record["step"] for record in records(tmp_path / "run")] == list(range(1, 121))


# Clocks that are forty minutes ahead as soon as a file holds something.
LATE = """
import os, time

def ahead(clock):
    def late():
        try:
            return clock() + 2400 * (os.stat(FILE).st_size > 0)
        except OSError:
            return clock()
    return late

time.time, time.perf_counter = ahead(time.time), ahead(time.perf_counter)
"""


def late_clock(folder: Path, file: str) -> dict[str, str]:
    """The environment of a run whose clocks jump once `file` holds something: no time limit has to be waited for."""
    (folder / "late").mkdir()
    (folder / "late/sitecustomize.py").write_text(LATE.replace("FILE", repr(str(folder / file))))
    return {"PYTHONPATH": os.pathsep.join([str(folder / "late"), os.environ.get("PYTHONPATH", "")])}


def test_a_time_limit_ends_the_run_in_time_and_it_goes_on(r1: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(LESSONS)
    words = ["sft", "--model", str(tiny), *SFT, "rows.jsonl"]
    assert_ended_by_the_clock(r1, words, tmp_path, rows=12, batch_rows=4)


# Every step takes two minutes, and the disk ten to keep a MiB.
SLOW_DISK = """
import os, time

keep, begun = os.fsync, []

def fsync(descriptor):
    keep(descriptor)
    begun.append(600 * os.fstat(descriptor).st_size / 2**20)

def late(clock):
    def now():
        try:
            with open(FILE) as lines:
                return clock() + sum(begun) + 120 * lines.read().count("\\n")
        except OSError:
            return clock() + sum(begun)
    return now

os.fsync, time.time, time.perf_counter = fsync, late(time.time), late(time.perf_counter)
"""


def test_a_time_limit_leaves_time_for_the_first_save(r1: Run, tiny: Path, tmp_path: Path) -> None:
    """Nothing was saved before, so no save has told how long one takes."""
    (tmp_path / "rows.jsonl").write_text(LESSONS)
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow/sitecustomize.py").write_text(SLOW_DISK.replace("FILE", repr(str(tmp_path / "run/metrics.jsonl"))))
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "slow"), os.environ.get("PYTHONPATH", "")])}
    done = r1("sft", "--model", str(tiny), *SFT, "--epochs", "99", "rows.jsonl", "--time-limit", "2h", "-o", "run", env=env)
    assert done.returncode == 0, done.stderr
    [(steps, seconds)] = re.findall(r"time limit reached after (\d+) of \d+ steps, ([\d,]+) s", done.stderr)
    assert int(steps) > 5 and 3600 < int(seconds.replace(",", "")) < 7200
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == [f"step_{int(steps):06d}"]
    assert not list((tmp_path / "run").glob(".*speed*"))


def assert_ended_by_the_clock(r1: Run, words: list[str], folder: Path, *, rows: int, batch_rows: int) -> None:
    """The first step takes forty minutes of an hour, so there is no second one: the run ends well, and goes on as a straight one."""
    words = [*words, "--epochs", str(3.5 * batch_rows / rows), "--save-every", "3"]  # four steps
    began = time.time()
    done = r1(*words, "--time-limit", "1h", "-o", "run", env=late_clock(folder, "run/metrics.jsonl"))
    assert done.returncode == 0, done.stderr
    assert f"{words[0]}: time limit reached after 1 of 4 steps, 2,4" in done.stderr and "--resume" in done.stderr
    [record] = records(folder / "run")
    assert record["time"] < began + 3600
    assert [path.name for path in (folder / "run/checkpoints").iterdir()] == ["step_000001"] and not (folder / "run/final").exists()
    for name, more in (("run", ["--resume"]), ("straight", [])):
        done = r1(*words, "-o", name, *more)
        assert done.returncode == 0, done.stderr
    assert figures(folder / "run") == figures(folder / "straight") and len(records(folder / "run")) == 4
    ours, theirs = (load_file(folder / name / "final/model.safetensors") for name in ("run", "straight"))
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_early_stopping_by_the_held_out_loss(r1: Run, tiny: Path, tmp_path: Path) -> None:
    """Right sums are learnt while wrong ones are held out: their loss falls while the form is learnt, and rises then."""
    (tmp_path / "held.jsonl").write_text(LESSONS.replace("</answer>", "7</answer>"))
    measured = ["--held-out", "held.jsonl", "--held-out-every", "2"]
    words = ["sft", "--model", str(tiny), *SFT, *measured, "--epochs", "200", "--lr-schedule", "constant", "-o", "run", "-"]
    done = r1(*words, "--stop-on", "overfitting", stdin=LESSONS)
    assert done.returncode == 1, done.stderr
    assert "by --stop-on overfitting: the held-out loss was above its best" in done.stderr
    assert done.stderr.count("warning: overfitting:") == 1 and done.stderr.endswith("; --resume goes on past it\n")
    losses = [record["held_out_loss"] for record in records(tmp_path / "run") if "held_out_loss" in record]
    assert losses[0] > min(losses) < losses[-1] and losses.index(min(losses)) == len(losses) - 4
    assert list((tmp_path / "run/checkpoints").glob(f"step_{2 * len(losses):06}/manifest.json"))


def test_a_loss_that_is_no_number_names_the_last_checkpoint(r1: Run, tiny: Path, tmp_path: Path) -> None:
    words = ["sft", "--model", str(tiny), *SFT[:2], "--dtype", "float32", "--lr", "1e38", "--max-grad-norm", "0", "--save-every", "1"]
    done = r1(*words, "--epochs", "3", "-o", "run", "-", stdin=LESSONS)
    assert done.returncode == 1, done.stderr
    assert "of step 2 is not finite" in done.stderr and "the last checkpoint is `run/checkpoints/step_000001`" in done.stderr


@pytest.mark.parametrize(("part", "tokens"), [("assistant", 2), ("completion", 1)])
def test_the_loss_is_on_every_assistant_turn_or_on_the_last(r1: Run, tiny: Path, tmp_path: Path, part: str, tokens: int) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "x"}] * 2
    row = json.dumps({"id": 1, "messages": turns})
    done = r1("sft", "--model", str(tiny), *SFT, "--epochs", "1", "--loss-on", part, "-o", "run", "-", stdin=row + "\n")
    assert done.returncode == 0, done.stderr
    assert [record["tokens"] for record in records(tmp_path / "run")] == [2 * tokens]  # a letter and the end of the turn


@pytest.mark.parametrize(
    ("flags", "message", "hint"),
    [
        (["--stop-on", "overfiting"], "`--stop-on` knows no alarm `overfiting`", "did you mean `overfitting`?"),
        (["--stop-on", "overfitting"], "--stop-on overfitting needs measurements", "--held-out-every"),
        (["--time-limit", "soon"], "`--time-limit` must be a time, found `soon`", "3h30m"),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_is_loaded(r1: Run, flags: list[str], message: str, hint: str) -> None:
    assert_error(r1("sft", "--model", "none", *flags, "-o", "run", "-", stdin=LESSONS), 2, message, hint)
