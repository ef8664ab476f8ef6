"""What `--resume` makes of a run directory, before anything is opened."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r1cli.commands import resuming
from r1cli.commands.resuming import Standing, check_data, is_done, say_done, standing
from r1cli.errors import R1Error
from r1cli.io import manifest
from r1cli.io.checkpoint_folders import checkpoint_folder

ALONE: Any = SimpleNamespace(num_processes=1)


def run(path: Path, final: int | None = None, checkpoint: int | None = None) -> str:
    (path / "final").mkdir(parents=True)
    if final is not None:
        manifest.write(path / "final", command="checkpoint", step=final)
    if checkpoint is not None:
        checkpoint_folder(path, checkpoint).mkdir(parents=True)
        manifest.write(checkpoint_folder(path, checkpoint), command="checkpoint", step=checkpoint)
    return str(path)


@pytest.mark.parametrize(
    ("final", "checkpoint", "total", "done"),
    [(None, None, 4, False), (None, 2, 4, False), (4, None, 4, True), (4, 2, 4, True), (4, None, 3, True), (4, 2, 8, False)],
)
def test_a_run_is_done_when_its_final_model_has_the_steps(
    tmp_path: Path, final: int | None, checkpoint: int | None, total: int, done: bool
) -> None:
    out = run(tmp_path / "run", final, checkpoint)
    found = standing(ALONE, out)
    assert found == Standing(final, checkpoint) and is_done(found, out, total) is done


def test_a_run_that_is_to_be_longer_and_kept_nothing_is_not_thrown_away(tmp_path: Path) -> None:
    out = run(tmp_path / "run", 4)
    with pytest.raises(R1Error, match="ended after 4 of these 8 steps and has no checkpoint") as caught:
        is_done(standing(ALONE, out), out, 8)
    assert caught.value.code == 2 and f"--model {out}/final" in (caught.value.hint or "") and "--force" in (caught.value.hint or "")


def test_processes_that_see_different_disks_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On machines with disks of their own only the first process finds what it saved; the others would start at step 1, and wait."""
    seen = [Standing(None, 12), Standing(None, 12), Standing(None, None)]
    monkeypatch.setattr(resuming, "of_all", lambda accelerator, things: seen)
    with pytest.raises(R1Error, match="process 3 of 3 finds no checkpoint in `run`, process 1 a checkpoint of step 12") as caught:
        standing(SimpleNamespace(num_processes=3), "run")
    assert caught.value.code == 2 and "all machines share" in (caught.value.hint or "")
    seen[2] = seen[0]
    assert standing(SimpleNamespace(num_processes=3), "run") == Standing(None, 12)
    seen[1] = Standing(20, 12)
    with pytest.raises(R1Error, match="process 2 of 3 finds a checkpoint of step 12 and a model of step 20"):
        standing(SimpleNamespace(num_processes=3), "run")


def test_the_manifest_that_a_kill_kept_from_being_written_is_written(tmp_path: Path) -> None:
    said: list[str] = []
    accelerator = SimpleNamespace(is_main_process=True, wait_for_everyone=lambda: None, end_training=lambda: None)
    out = run(tmp_path / "run", 4)
    context = SimpleNamespace(command="grpo", console=SimpleNamespace(summary=said.extend))
    training: Any = SimpleNamespace(settings=SimpleNamespace(out=out), context=context, accelerator=accelerator)
    asked: list[str] = []

    def facts() -> dict[str, Any]:
        asked.append("hashes")
        return {"inputs": [{"name": "a.jsonl"}], "counts": {"steps": 4}}

    for _ in range(2):
        say_done(training, facts)
    assert asked == ["hashes"], "the second time there is nothing to write"
    assert said[:2] == ["grpo: already done, 4 steps", f"written: {out}/final"]
    for folder in (tmp_path / "run", tmp_path / "run" / "final"):
        found = json.loads((folder / "manifest.json").read_text())
        assert (found["command"], found["inputs"], found["counts"]) == ("grpo", [{"name": "a.jsonl"}], {"steps": 4})
    assert found["step"] == 4


def test_processes_that_have_read_other_rows_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would train on its own, and all on the mean of gradients that belong to no data set."""
    seen = ["a", "a", "b"]
    monkeypatch.setattr(resuming, "of_all", lambda accelerator, things: seen)
    with pytest.raises(R1Error, match="process 3 of 3 has read other rows than process 1") as caught:
        check_data(SimpleNamespace(num_processes=3), "run", Standing(), "a")
    assert caught.value.code == 2 and "the same on all machines" in (caught.value.hint or "")
    seen[2] = "a"
    check_data(SimpleNamespace(num_processes=3), "run", Standing(), "a")
