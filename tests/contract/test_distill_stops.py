"""How `r1 distill` ends early, in both its ways: signals, time limit, broken numbers; and what its trackers are told."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.contract.conftest import Done, Run, assert_error, command_line, environment
from tests.contract.test_distill import HELD_OUT, PROMPTS, TRACES, lines, read
from tests.contract.test_sft_stops import assert_ended_by_the_clock, late_clock
from tests.contract.test_training import figures

SHARED = ["--engine", "transformers", "--dtype", "float32", "--lr", "1e-2"]
ON_POLICY = ["--on-policy", *SHARED, "-k", "2", "--prompts-per-step", "4", "--max-completion-length", "12"]
OFFLINE = [*SHARED, "--epochs", "2", "--batch-rows", "4", "--max-completion-length", "48"]
PASSING = ["--rewards", "accuracy,format:style=r1-zero"]  # all of TRACES do

# Sends this process a signal once its main thread is in a function and a file has so many lines.
WATCH = """
import os, sys, threading, time

def inside():
    frame = sys._current_frames().get(threading.main_thread().ident)
    while frame is not None:
        if (frame.f_code.co_name, os.path.basename(frame.f_code.co_filename)) == PLACE:
            return True
        frame = frame.f_back
    return False

def enough():
    return not LINES or (os.path.exists(FILE) and open(FILE, "rb").read().count(b"\\n") >= LINES)

def watch():
    while not (enough() and inside()):
        time.sleep(0.002)
    os.kill(os.getpid(), NUMBER)

threading.Thread(target=watch, daemon=True).start()
"""


def signalled(folder: Path, number: int, place: tuple[str, str], file: str = "", least: int = 0) -> dict[str, str]:
    """The environment of a run that gets a signal in the middle of a function: place is its name and its file's."""
    values = {"PLACE": repr(place), "FILE": repr(str(folder / file)), "LINES": str(least), "NUMBER": str(int(number))}
    text = WATCH
    for name, value in values.items():
        text = text.replace(name, value)
    (folder / "watch").mkdir()
    (folder / "watch/sitecustomize.py").write_text(text)
    return {"PYTHONPATH": os.pathsep.join([str(folder / "watch"), os.environ.get("PYTHONPATH", "")])}


SAMPLING = ("sample", "transformers.py")


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny import tiny_model

    return tiny_model(tmp_path_factory.mktemp("student") / "model", seed=1)


def files(folder: Path) -> None:
    (folder / "prompts.jsonl").write_text(lines(*PROMPTS))
    (folder / "test.jsonl").write_text(lines(*HELD_OUT))
    (folder / "traces.jsonl").write_text(lines(*TRACES))


def on_policy(tiny: Path, student: Path, *more: str) -> list[str]:
    return ["distill", "--teacher", str(tiny), "--student", str(student), *ON_POLICY, *more, "prompts.jsonl"]


def offline(tiny: Path, *more: str) -> list[str]:
    return ["distill", "--student", str(tiny), *OFFLINE, *more]


def run_of(folder: Path, words: list[str]) -> Path:
    """A run that nothing stopped."""
    files(folder)
    done = subprocess.run(
        [*command_line(), *words, "-o", "straight"], cwd=folder, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "straight"


@pytest.fixture(scope="module")
def straight(tiny: Path, student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(tmp_path_factory.mktemp("on policy"), on_policy(tiny, student, "--steps", "4"))


@pytest.fixture(scope="module")
def drawn(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From a teacher's completions, with an evaluation at the end."""
    return run_of(tmp_path_factory.mktemp("offline"), offline(tiny, "--teacher", str(tiny), *TAUGHT))


TAUGHT = ["--rewards", "language", "-k", "2", "--batch-size", "4", "--eval", "test.jsonl", "--eval-samples", "2", "prompts.jsonl"]


def assert_same(run: Path, straight: Path) -> None:
    assert figures(run) == figures(straight)
    ours, theirs = (load_file(place / "final/model.safetensors") for place in (run, straight))
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def kept_checkpoints(run: Path) -> list[str]:
    return sorted(path.parent.name for path in (run / "checkpoints").glob("step_*/manifest.json"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_on_policy_a_signal_in_a_step_throws_it_away_and_the_run_goes_on_as_if_nothing_was(
    r1: Run, tiny: Path, student: Path, straight: Path, tmp_path: Path, number: int, code: int
) -> None:
    """It comes while the third step is sampled. Nothing but it makes a checkpoint here."""
    files(tmp_path)
    words = on_policy(tiny, student, "--steps", "4")
    done = r1(*words, "-o", "run", env=signalled(tmp_path, number, SAMPLING, "run/metrics.jsonl", 2))
    assert done.returncode == code, done.stderr
    assert "saving what is done, then ending" in done.stderr and ("--resume" in done.stderr) is (number == signal.SIGINT)
    assert kept_checkpoints(tmp_path / "run") == ["step_000002"] and not (tmp_path / "run/final").exists()
    assert [row["step"] for row in read(tmp_path / "run/metrics.jsonl")] == [1, 2]
    assert [row["step"] for row in read(tmp_path / "run/samples.jsonl")] == [1, 2]
    resumed = r1(*words, "-o", "run", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert [record["step"] for record in figures(straight)] == [1, 2, 3, 4]
    assert_same(tmp_path / "run", straight)
    assert [untimed(row) for row in read(tmp_path / "run/samples.jsonl")] == [untimed(row) for row in read(straight / "samples.jsonl")]


def untimed(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "time"}


def test_on_policy_sampling_ends_when_the_run_is_to_end(r1: Run, tiny: Path, student: Path, tmp_path: Path) -> None:
    """The whole step would be minutes of sampling: 12 prompts x 2000 completions of 400 tokens."""
    files(tmp_path)
    words = on_policy(tiny, student, "--steps", "1", "-k", "2000", "--prompts-per-step", "12", "--max-completion-length", "400")
    done = r1(*words, "-o", "run", env=signalled(tmp_path, signal.SIGTERM, SAMPLING), timeout=120)
    assert done.returncode == 143, done.stderr
    assert "saving what is done, then ending" in done.stderr and "error" not in done.stderr
    assert kept_checkpoints(tmp_path / "run") == [] and read(tmp_path / "run/metrics.jsonl") == []


def test_on_policy_a_time_limit_ends_the_run_in_time_and_it_goes_on(
    r1: Run, tiny: Path, student: Path, straight: Path, tmp_path: Path
) -> None:
    """The first step takes forty minutes of an hour, so there is no second one, and no student to evaluate yet."""
    files(tmp_path)
    (tmp_path / "test.jsonl").write_text(lines(HELD_OUT[0]))  # none of the prompts
    words = on_policy(tiny, student, "--steps", "4", "--eval", "test.jsonl", "--eval-samples", "1", "-o", "run")
    done = r1(*words, "--time-limit", "1h", env=late_clock(tmp_path, "run/metrics.jsonl"))
    assert done.returncode == 0, done.stderr
    assert "distill: time limit reached after 1 of 4 steps, 2,4" in done.stderr and "--resume" in done.stderr
    assert kept_checkpoints(tmp_path / "run") == ["step_000001"]
    assert not (tmp_path / "run/final").exists() and not (tmp_path / "run/scores.json").exists()
    resumed = r1(*words, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert_same(tmp_path / "run", straight)
    assert (tmp_path / "run/scores.json").exists()


def test_on_policy_a_loss_that_is_no_number_names_the_last_checkpoint(r1: Run, tiny: Path, student: Path, tmp_path: Path) -> None:
    files(tmp_path)
    words = on_policy(tiny, student, "--steps", "4", "--lr", "1e38", "--max-grad-norm", "0", "--save-every", "1", "-o", "run")
    done = r1(*words)
    assert done.returncode == 1, done.stderr
    assert "of step 2 is not finite" in done.stderr and "the last checkpoint is `run/checkpoints/step_000001`" in done.stderr


def test_offline_a_time_limit_ends_training_in_time_and_it_goes_on(r1: Run, tiny: Path, tmp_path: Path) -> None:
    files(tmp_path)
    words = ["distill", "--student", str(tiny), "--traces", "traces.jsonl", *PASSING, "--batch-rows", "4", "--dtype", "float32"]
    assert_ended_by_the_clock(r1, words, tmp_path, rows=12, batch_rows=4)


def assert_like(run: Path, straight: Path) -> None:
    """The same rows, whatever their order, the same student and the same scores."""
    for name in ("traces.jsonl", "kept.jsonl"):
        assert sorted((run / name).read_text().splitlines()) == sorted((straight / name).read_text().splitlines())
    assert_same(run, straight)
    ours, theirs = (json.loads((place / "scores.json").read_text()) for place in (run, straight))
    assert {**ours, "seconds": 0, "model": ""} == {**theirs, "seconds": 0, "model": ""}


def out_of_time(done: Done) -> None:
    assert done.returncode == 0, done.stderr
    assert "distill: time limit reached, " in done.stderr and "next: r1 distill " in done.stderr and "--resume" in done.stderr


@pytest.mark.parametrize(
    ("place", "file", "least", "there"),
    [
        (("sample_traces", "distill_traces.py"), "run/traces.jsonl", 5, "traces.jsonl"),
        (("passing", "distill_traces.py"), "", 0, "traces.jsonl"),
        (("evaluate", "distill_eval.py"), "", 0, "final/manifest.json"),
    ],
    ids=["the teacher samples", "traces are scored", "the student is evaluated"],
)
def test_offline_a_time_limit_ends_what_is_not_training_and_it_goes_on(
    r1: Run, tiny: Path, drawn: Path, tmp_path: Path, place: tuple[str, str], file: str, least: int, there: str
) -> None:
    """The alarm of an hour's limit is rung by hand; the hour itself nobody waits for."""
    files(tmp_path)
    words = offline(tiny, "--teacher", str(tiny), *TAUGHT, "-o", "run")
    out_of_time(r1(*words, "--time-limit", "1h", env=signalled(tmp_path, signal.SIGALRM, place, file, least)))
    run = tmp_path / "run"
    made = (run / there).read_bytes()
    assert made and not (run / "scores.json").exists()
    if least:
        assert least <= len(made.splitlines()) < 2 * len(PROMPTS) and not (run / "kept.jsonl").exists()
    resumed = r1(*words, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert (run / there).read_bytes().startswith(made)  # nothing was made a second time
    assert_like(run, drawn)


def test_offline_a_limit_that_leaves_time_for_nothing_is_an_error(r1: Run, tiny: Path, tmp_path: Path) -> None:
    """Jobs that start one another by `--resume` would never end."""
    files(tmp_path)
    words = [*offline(tiny, "--traces", "traces.jsonl", *PASSING), "--time-limit", "0.001", "-o", "run"]
    for again in ([], ["--resume"]):
        assert_error(r1(*words, *again), 1, "the time limit left no time for anything", "raise --time-limit")
    assert kept_checkpoints(tmp_path / "run") == []


@pytest.mark.parametrize("way", ["on policy", "offline"])
def test_tensorboard_reads_back_what_metrics_hold(r1: Run, tiny: Path, student: Path, tmp_path: Path, way: str) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    files(tmp_path)
    of_traces = offline(tiny, "--traces", "traces.jsonl", *PASSING)
    words = on_policy(tiny, student, "--steps", "2") if way == "on policy" else of_traces
    done = r1(*words, "--track", "tensorboard", "--project", "sums", "-o", "run")
    assert done.returncode == 0, done.stderr
    events = reader.EventAccumulator(str(tmp_path / "run/trackers/sums"))
    events.Reload()
    records = read(tmp_path / "run/metrics.jsonl")
    for name in ("reverse_kl" if way == "on policy" else "loss", "grad_norm", "lr"):
        assert [event.step for event in events.Scalars(name)] == [record["step"] for record in records]
        assert [event.value for event in events.Scalars(name)] == pytest.approx([record[name] for record in records])


@pytest.mark.parametrize("way", [["--on-policy"], []])
@pytest.mark.parametrize(
    ("flags", "message", "hint"),
    [
        (["--time-limit", "soon"], "`--time-limit` must be a time, found `soon`", "3h30m"),
        (["--track", "tensorbord"], "`--track` knows no tracker `tensorbord`", "did you mean `tensorboard`?"),
        (["--run-name", "x"], "--run-name without --track", "--track tensorboard"),
        (["--project", "x"], "--project does nothing: it belongs to --track", "leave one of them out"),
    ],
)
def test_flags_that_name_nothing_are_refused(r1: Run, tmp_path: Path, way: list[str], flags: list[str], message: str, hint: str) -> None:
    done = r1("distill", "--teacher", "none", "--student", "none", *way, *flags, "-o", "run", "-", stdin=lines(*PROMPTS))
    assert_error(done, 2, message, hint)
    assert not (tmp_path / "run").exists()
