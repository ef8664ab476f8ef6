"""What the numbers of a real `r1 grpo` run must be: the same policy samples, trains and is compared with; types; what is no number."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.contract.conftest import Run
from tests.contract.test_launch import assert_same, assert_trained, rewind
from tests.contract.test_training import GRPO, PROMPTS, records

BRIEF = "def brief(row):\n    return -len(row['completion']) / 100\n"
FLAT = "def flat(row):\n    return 0.5\n"


def words(tiny: Path, folder: Path, *more: str) -> list[str]:
    (folder / "problems.jsonl").write_text(PROMPTS)
    (folder / "mine.py").write_text(BRIEF + FLAT)
    return ["grpo", "--model", str(tiny), *GRPO, *more, "problems.jsonl"]


def test_the_temperature_reaches_sampler_trainer_and_reference(r1: Run, tiny: Path, tmp_path: Path) -> None:
    """At another temperature in one of them the log-probabilities would differ by tenths."""
    done = r1(*words(tiny, tmp_path, "--temperature", "0.7", "--beta", "0.1", "--lr", "1e-2", "--steps", "3", "-o", "run"))
    assert done.returncode == 0, done.stderr
    assert_trained(tmp_path / "run", tiny)
    made = records(tmp_path / "run")
    assert all(abs(record["sampler_mismatch"]) < 1e-6 for record in made)
    assert made[0]["kl"] == 0.0 and made[2]["kl"] > 1e-3


def test_bfloat16_resumes_exactly(r1: Run, tiny: Path, tmp_path: Path) -> None:
    """All weights, in the type that is usual; the reference, renewed after 2 steps, is in the checkpoint."""
    command = words(tiny, tmp_path, "--dtype", "bfloat16", "--reference-every", "2", "--beta", "0.1", "-o", "run")
    done = r1(*command)
    assert done.returncode == 0, done.stderr
    assert_trained(tmp_path / "run", tiny)
    shutil.copytree(tmp_path / "run", tmp_path / "straight", symlinks=True)
    rewind(tmp_path / "run", 3)
    done = r1(*command, "--resume")
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "run", tmp_path / "straight", exactly=True)


@pytest.mark.vllm
def test_vllm_in_this_process_gets_the_weights_of_every_step(r1: Run, tiny: Path, tmp_path: Path) -> None:
    """With the weights of the step before, its log-probabilities would be those of another policy: `kl` says how far a step goes."""
    engine = ["--engine", "vllm", "--kv-cache-gib", "0.1", "--lr", "3e-2", "--beta", "0.001", "--steps", "3"]
    done = r1(*words(tiny, tmp_path, *engine, "-o", "run"))
    assert done.returncode == 0, done.stderr
    assert_trained(tmp_path / "run", tiny)
    made = records(tmp_path / "run")
    assert all(record["kl"] > 1e-2 for record in made[1:])
    assert all(0 <= record["sampler_mismatch"] < 1e-6 for record in made)
    assert all(record["importance_weight"] == pytest.approx(1.0, abs=1e-3) for record in made)


def test_a_loss_that_is_no_number_names_the_last_checkpoint(r1: Run, tiny: Path, tmp_path: Path) -> None:
    """Nothing is learnt from the first rollout; the first step on the second one throws the weights out of bounds; each is saved."""
    broken = [
        "--rewards",
        "mine.py:flat,mine.py:brief@2",
        "--beta",
        "0",
        "--lr",
        "1e38",
        "--max-grad-norm",
        "0",
        "--updates-per-rollout",
        "2",
    ]
    done = r1(*words(tiny, tmp_path, *broken, "-o", "run"))
    assert done.returncode == 1, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith(("error: ", "hint: "))]
    assert said[0].startswith("error: the loss of step 4 is not finite")
    assert "the weights were not touched; the last checkpoint is `run/checkpoints/step_000003`" in said[0]
    assert len(said) == 2 and "--lr" in said[1]
    assert [record["step"] for record in records(tmp_path / "run")] == [2] and not (tmp_path / "run/final").exists()
    before, after = (load_file(place / "model.safetensors") for place in (tiny, tmp_path / "run/checkpoints/step_000002"))
    assert all((after[name] == before[name]).all() for name in before)
    assert json.loads((tmp_path / "run/checkpoints/step_000002/manifest.json").read_text())["step"] == 2
