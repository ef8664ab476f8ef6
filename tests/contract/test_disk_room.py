"""A disk that is too small is found out before the first step, by what the same run writes on a disk that is not."""

import os
from pathlib import Path

import pytest

from tests.contract.conftest import Run
from tests.contract.test_training import records
from tests.contract.test_training_survives import files, words_of

WAYS = {
    "sft of an adapter": ["sft", "--lora", "4", "--lora-export", "adapter"],
    "grpo with a reference": ["grpo", "--beta", "0.01", "--steps", "4"],
}


def with_free(folder: Path, size: int) -> dict[str, str]:
    """The environment of a run that finds `size` bytes free on every disk."""
    place = folder / f"free_{size}"
    place.mkdir()
    code = f"import shutil, types\nshutil.disk_usage = lambda path: types.SimpleNamespace(free={size})\n"
    (place / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")])}


def tensors(folder: Path) -> int:
    """Bytes of all weights and states of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.suffix in (".safetensors", ".pt"))


@pytest.mark.parametrize("way", WAYS)
def test_what_a_run_writes_is_known_before_it_begins(r1: Run, tiny: Path, tmp_path: Path, way: str) -> None:
    files(tmp_path)
    command, *more = WAYS[way]
    words, saving = [*words_of(command, tiny), *more], ["--save-every", "2", "--keep", "1"]
    done = r1(*words, *saving, "-o", "run")
    assert done.returncode == 0, done.stderr
    [checkpoint] = (tmp_path / "run/checkpoints").iterdir()
    for what, size, flags in (
        ("a checkpoint takes", tensors(checkpoint), saving),
        ("the model takes", tensors(tmp_path / "run/final"), []),
    ):
        folder = what.replace(" ", "_")
        small = r1(*words, *flags, "-o", folder, env=with_free(tmp_path, size * 8 // 10))
        assert small.returncode == 3 and f"error: {what} " in small.stderr and "MiB free" in small.stderr, small.stderr
        assert "hint: free some space" in small.stderr and not records(tmp_path / folder)


def test_a_disk_that_holds_a_checkpoint_and_not_all_is_warned_of(r1: Run, tiny: Path, tmp_path: Path) -> None:
    files(tmp_path)
    words = [*words_of("sft", tiny), "--save-every", "2", "-o", "run"]
    done = r1(*words, env=with_free(tmp_path, 4 * (tiny / "model.safetensors").stat().st_size))
    assert done.returncode == 0, done.stderr
    assert "what is kept takes up to" in done.stderr and "(--keep 2)" in done.stderr
