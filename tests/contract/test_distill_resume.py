"""`r1 distill --resume` once the student trains: other settings are said, a finished run is made longer, and a teacher is one teacher."""

import json
import shutil
from pathlib import Path

import pytest

from tests.contract.conftest import Run, assert_error
from tests.contract.test_distill import PROMPTS, TRACES, lines, read
from tests.contract.test_launch import rewind
from tests.tiny import tiny_model

TRAINED = ["--rewards", "format", "--batch-rows", "4", "--save-every", "1", "--keep", "9", "--lr", "1e-3", "--dtype", "float32"]
DRAWN = ["--engine", "transformers", "--rewards", "language", "--max-completion-length", "16", "--dtype", "float32", "-o", "run"]


def student(tiny: Path, *more: str) -> list[str]:
    return ["distill", "--traces", "traces.jsonl", "--student", str(tiny), *TRAINED, "-o", "run", "--resume", *more]


def config(folder: Path) -> tuple[bytes, int]:
    """config.json, and how often the run was opened."""
    return (folder / "run/config.json").read_bytes(), len(list((folder / "run/logs").glob("attempt_*")))


@pytest.fixture
def run(r1: Run, tiny: Path, tmp_path: Path) -> Path:
    """A folder with a student of one epoch, 3 steps."""
    (tmp_path / "traces.jsonl").write_text(lines(*TRACES))
    done = r1(*student(tiny, "--epochs", "1"))
    assert done.returncode == 0 and len(read(tmp_path / "run/metrics.jsonl")) == 3, done.stderr
    return tmp_path


def test_a_finished_run_goes_on_or_is_left_alone(r1: Run, tiny: Path, run: Path) -> None:
    """It said that its model followed from the same rows, trained nothing, and wrote the new settings into config.json."""
    before = config(run)
    other = r1(*student(tiny, "--epochs", "1", "--lr", "1e-4"))
    assert other.returncode == 0 and "distill: already done, 3 steps" in other.stderr, other.stderr
    assert "warning: --lr was 0.001 when the run started, now 0.0001" in other.stderr and config(run) == before
    refused = r1(*student(tiny, "--epochs", "1", "--per-prompt", "1"))
    assert_error(refused, 2, "holds a model trained on another `kept.jsonl`: per_prompt was 0, now 1")
    assert config(run) == before
    longer = r1(*student(tiny, "--epochs", "4"))
    assert longer.returncode == 0 and "resuming `run/checkpoints/step_000002`" in longer.stderr, longer.stderr
    assert "warning: --epochs was 1.0 when the run started, now 4.0" in longer.stderr
    assert [record["step"] for record in read(run / "run/metrics.jsonl")] == list(range(1, 13))
    for name in ("run/manifest.json", "run/final/manifest.json"):
        assert json.loads((run / name).read_text())["counts"]["steps"] == 12
    before = config(run)
    assert json.loads(before[0])["settings"]["epochs"] == 4 and before[1] == 2
    again = r1(*student(tiny, "--epochs", "4"))
    assert again.returncode == 0 and "`run/final` is there and follows from the same rows" in again.stderr, again.stderr
    assert config(run) == before and "warning" not in again.stderr
    shutil.rmtree(run / "run/checkpoints")
    refused = r1(*student(tiny, "--epochs", "5"))
    assert refused.returncode == 2 and "ended after 12 of these 15 steps and has no checkpoint to go on from" in refused.stderr
    assert config(run) == before


def test_a_run_that_was_to_be_longer_and_was_killed_at_once_is_not_done(r1: Run, tiny: Path, run: Path) -> None:
    """config.json has the new settings then, and the model is still whole."""
    path = run / "run/config.json"
    changed = json.loads(path.read_text())
    changed["settings"]["epochs"] = 2.0
    path.write_text(json.dumps(changed))
    longer = r1(*student(tiny, "--epochs", "2"))
    assert longer.returncode == 0 and len(read(run / "run/metrics.jsonl")) == 6, longer.stderr


def test_other_settings_in_the_middle_of_training_are_said(r1: Run, tiny: Path, run: Path) -> None:
    rewind(run / "run", 2)
    done = r1(*student(tiny, "--epochs", "1", "--lr", "1e-4"))
    assert done.returncode == 0 and "resuming `run/checkpoints/step_000002`" in done.stderr, done.stderr
    assert "warning: --lr was 0.001 when the run started, now 0.0001" in done.stderr
    assert json.loads((run / "run/config.json").read_text())["settings"]["lr"] == 1e-4


def test_traces_are_of_one_teacher(r1: Run, tiny: Path, tmp_path: Path) -> None:
    """A folder whose weights were replaced, or a run that trains on, keeps its name."""
    (tmp_path / "prompts.jsonl").write_text(lines(*PROMPTS))
    teacher, traces = tiny_model(tmp_path / "teacher"), tmp_path / "run/traces.jsonl"
    words = ["distill", "--teacher", "teacher", "--student", str(tiny), *DRAWN, "--epochs", "1", "prompts.jsonl"]
    stopped = r1(*words, env={"R1_DISTILL_MAX_LENGTH": "1"})  # nothing fits: it ends before it trains
    assert stopped.returncode != 0 and len(read(traces)) == len(PROMPTS), stopped.stderr
    whole, kept = traces.read_text(), (teacher / "model.safetensors").read_bytes()
    traces.write_text("".join(whole.splitlines(keepends=True)[:5]))
    tiny_model(teacher, seed=1)
    refused = r1(*words, "--resume")
    assert_error(refused, 2, "`run/traces.jsonl` was drawn by other weights than `teacher` has now", "put those weights back")
    assert len(read(traces)) == 5
    (teacher / "model.safetensors").write_bytes(kept)
    assert r1(*words, "--resume", env={"R1_DISTILL_MAX_LENGTH": "1"}).returncode != 0
    assert sorted(traces.read_text().splitlines()) == sorted(whole.splitlines())
    tiny_model(teacher, seed=1)
    done = r1(*words, "--resume")
    assert done.returncode == 0, "all traces are there: the teacher is not asked again\n" + done.stderr


def test_traces_without_a_word_of_weights_go_on(r1: Run, tiny: Path, tmp_path: Path) -> None:
    """Begun by an older version; and a teacher that was loaded and killed has drawn nothing."""
    (tmp_path / "prompts.jsonl").write_text(lines(*PROMPTS[:4]))
    teacher = tiny_model(tmp_path / "teacher")
    words = ["distill", "--teacher", "teacher", "--student", str(tiny), *DRAWN, "--epochs", "1", "prompts.jsonl"]
    short = {"R1_DISTILL_MAX_LENGTH": "1"}
    assert r1(*words, env=short).returncode != 0
    traces, made = tmp_path / "run/traces.jsonl", tmp_path / "run/traces.jsonl.manifest.json"
    assert "weights" in json.loads(made.read_text())["follows_from"]
    traces.write_text("")
    tiny_model(teacher, seed=1)
    stopped = r1(*words, "--resume", env=short)
    assert "other weights" not in stopped.stderr and len(read(traces)) == 4, stopped.stderr
    older = json.loads(made.read_text())
    del older["follows_from"]["weights"]
    made.write_text(json.dumps(older))
    traces.write_text("".join(traces.read_text().splitlines(keepends=True)[:2]))
    tiny_model(teacher, seed=2)
    done = r1(*words, "--resume")
    assert done.returncode == 0, done.stderr


def test_a_template_of_other_words_is_another_template(r1: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text(lines(*PROMPTS[:4]))
    (tmp_path / "ask.txt").write_text("{prompt} Think.\n")
    words = ["distill", "--teacher", str(tiny), "--student", str(tiny), *DRAWN, "--template", "ask.txt", "--epochs", "1", "prompts.jsonl"]
    assert r1(*words, env={"R1_DISTILL_MAX_LENGTH": "1"}).returncode != 0
    (tmp_path / "ask.txt").write_text("{prompt} Answer.\n")
    assert_error(r1(*words, "--resume"), 2, "`run/traces.jsonl` was drawn otherwise: --template was ")
