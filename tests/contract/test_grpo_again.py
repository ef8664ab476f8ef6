"""A run of `r1 grpo` whose settings are taken for another one (`-c RUN`), and one that ends without having learnt anything."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.contract.conftest import Run

FLAGS = "--engine transformers --rewards mine.py:brief --prompts-per-step 2 --group-size 2 --dtype float32 --lr 1e-3 --beta 0 "
FLAGS += "--max-completion-length 4"
SHORT = "".join(json.dumps({"id": n, "prompt": f"What is {n} + 1?"}) + "\n" for n in range(4))
LONG = "".join(json.dumps({"id": n, "prompt": f"What is {n} + 1? " * 9}) + "\n" for n in range(4))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text("def brief(row):\n    return -len(row['completion']) / 100\n")
    (tmp_path / "short.jsonl").write_text(SHORT)
    (tmp_path / "long.jsonl").write_text(LONG)
    return tmp_path


def settings_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "config.json").read_text())["settings"]


def test_the_settings_of_a_run_fit_another_loss_and_longer_prompts(r1: Run, tiny: Path, here: Path) -> None:
    """What r1 decided for the first run, its loss's clip and the engine's context, nobody asked for: it is no setting of the second."""
    first = ["--loss", "gspo", "--updates-per-rollout", "2", "--steps", "2", "--no-mask-truncated", "-o", "first", "short.jsonl"]
    done = r1("grpo", "--model", str(tiny), *FLAGS.split(), *first)
    assert done.returncode == 0, done.stderr
    assert (settings_of(here / "first")["clip_low"], settings_of(here / "first")["max_model_len"]) == (3e-4, None)
    done = r1(
        "grpo",
        "-c",
        "first",
        "--loss",
        "grpo",
        "--steps",
        "4",
        "--save-every",
        "2",
        "--max-completion-length",
        "8",
        "-o",
        "second",
        "long.jsonl",
    )
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stderr
    again = settings_of(here / "second")
    assert (again["clip_low"], again["clip_high"], again["updates_per_rollout"], again["lr"]) == (0.2, None, 2, 1e-3)
    lines = [json.loads(line) for line in (here / "second/metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["completion_length"]) for line in lines] == [(2, 8), (4, 8)]
    more = r1("grpo", "-c", "second", "--resume", "--steps", "6", "--max-completion-length", "6", "-o", "second", "long.jsonl")
    assert more.returncode == 0, more.stderr
    assert "--max-completion-length was 8 when the run started, now 6" in more.stderr and "--max-model-len" not in more.stderr


@pytest.mark.parametrize("masked", [True, False])
def test_a_run_that_never_moved_a_weight_says_so(r1: Run, tiny: Path, here: Path, masked: bool) -> None:
    """The tiny model never ends its turn: every completion is cut, and what is cut is masked by default. Alarms take ten rollouts."""
    done = r1(
        "grpo",
        "--model",
        str(tiny),
        *FLAGS.split(),
        "--steps",
        "2",
        *([] if masked else ["--no-mask-truncated"]),
        "-o",
        "run",
        "short.jsonl",
    )
    assert done.returncode == 0, done.stderr
    said = "warning: no weight moved in 2 steps: completions are cut at --max-completion-length 4, and what is cut is masked; raise it"
    assert (said in done.stderr) is masked
    before, after = load_file(tiny / "model.safetensors"), load_file(here / "run/final/model.safetensors")
    assert all((after[name] == before[name]).all() for name in before) is masked
