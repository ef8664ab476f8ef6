"""What a run directory is after a kill, a power loss or a full disk at any moment."""

import errno
import json
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from r1cli.errors import R1Error
from r1cli.io import checkpoint_folders, manifest, run_dir
from r1cli.io.checkpoint_folders import checkpoints
from r1cli.io.run_dir import RunDir
from tests.io.test_run_dir import lines, open_run, save


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def finished(path: Path, steps: int = 4, save_at: int | None = 2) -> RunDir:
    """A run that is done, with a checkpoint on the way."""
    with open_run(path) as run:
        for step in range(1, steps + 1):
            run.metrics({"step": step})
            run.samples([{"id": step}], step=step)
            if step == save_at:
                save(run, step)
        with run.final_model(steps) as folder:
            (folder / "model.safetensors").write_text("weights")
        run.finish({"command": "grpo", "counts": {"steps": steps}})
    return run


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes that the disk was asked to keep, in order."""
    found: list[int] = []
    keep = os.fsync

    def fsync(number: int) -> None:
        found.append(os.fstat(number).st_ino)
        keep(number)

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def test_all_of_a_checkpoint_is_on_the_disk_before_it_is_whole_and_older_ones_go(
    tmp_path: Path, synced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(tmp_path / "run")
    for step in (1, 2):
        save(run, step)
    run.metrics({"step": 3})
    seen: dict[str, list[int]] = {}
    write, unlink = manifest.write, Path.unlink

    def written(target: Path, **facts: Any) -> Path:
        seen["before the manifest"] = list(synced)
        return write(target, **facts)

    def unlinked(path: Path, missing_ok: bool = False) -> None:
        seen.setdefault("before a removal", list(synced))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(manifest, "write", written)
    with run.checkpoint(3) as folder:
        (folder / "adapter").mkdir()
        for path in (folder / "model.safetensors", folder / "adapter" / "adapter.safetensors"):
            path.write_text("weights")
        synced.clear()
        monkeypatch.setattr(Path, "unlink", unlinked)
    inodes = {path: path.stat().st_ino for path in (folder, *folder.rglob("*"), run.path / "metrics.jsonl", folder.parent)}
    late = {inodes[folder / "manifest.json"], inodes[folder.parent]}
    assert set(inodes.values()) - late <= set(seen["before the manifest"])
    assert not late & set(seen["before the manifest"]) and late <= set(seen["before a removal"])
    assert [found.name for found in checkpoints(run.path)] == ["step_000002", "step_000003"]


def test_an_old_checkpoint_that_cannot_be_removed_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NFS the file of a resumed optimizer, mapped into memory, stays in its folder under another name."""
    run = open_run(tmp_path / "run")

    def busy(path: Path, **options: Any) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    for step in (1, 2):
        save(run, step)
    monkeypatch.setattr(shutil, "rmtree", busy)
    with run.checkpoint(4) as folder:
        (folder / "model.safetensors").write_text("weights")
    assert [found.name for found in checkpoints(run.path)] == ["step_000002", "step_000004"]
    assert names(run.path / "checkpoints") == ["step_000001", "step_000002", "step_000004"]
    run.close()
    monkeypatch.undo()
    open_run(tmp_path / "run", resume=True)
    assert names(run.path / "checkpoints") == ["step_000002", "step_000004"]


@pytest.mark.parametrize("fate", ["killed", "an error", "killed before the old one goes"])
def test_a_checkpoint_that_replaces_one_of_the_same_step_leaves_it_until_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    """A run that ended between an update and its metrics, resumed with `--keep 1`: it saves that step once more."""
    run = open_run(tmp_path / "run")
    save(run, 4)
    number = None if fate == "an error" else os.fork()  # a fork ends as a killed process does: nothing is tidied up
    if number == 0:
        if fate.endswith("goes"):
            monkeypatch.setattr(checkpoint_folders, "_settle", lambda before: os._exit(0))
        with run.checkpoint(4) as folder:
            (folder / "model.safetensors").write_text("other weights")
            if fate == "killed":
                os._exit(0)
        os._exit(1)
    if number is not None:
        assert os.waitpid(number, 0)[1] == 0
        assert [checkpoint_folders.whole_checkpoint(run.path, 4)] == checkpoints(run.path)
    else:
        with pytest.raises(ZeroDivisionError), run.checkpoint(4):
            raise ZeroDivisionError
    run.close()
    with open_run(tmp_path / "run", resume=True) as again:
        assert again.resumed_step == 4
    assert names(run.path / "checkpoints") == ["step_000004"]
    text = (run.path / "checkpoints" / "step_000004" / "model.safetensors").read_text()
    assert text == ("other weights" if fate.endswith("goes") else "weights 4")


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 64 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)


def test_a_checkpoint_that_does_not_fit_is_removed_and_names_the_last_whole_one(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run")
    with (
        pytest.raises(R1Error, match="cannot write the checkpoint of step 1: File too large") as caught,
        full_disk(),
        run.checkpoint(1) as f,
    ):
        (f / "model.safetensors").write_bytes(bytes(1 << 17))
    assert caught.value.hint == "free some space; --resume starts at step 1" and names(run.path / "checkpoints") == []
    save(run, 2)
    with (
        pytest.raises(R1Error, match="cannot write the checkpoint of step 3: File too large") as caught,
        full_disk(),
        run.checkpoint(3) as f,
    ):
        (f / "model.safetensors").write_bytes(bytes(1 << 17))
    last = run.path / "checkpoints" / "step_000002"
    assert caught.value.code == 1 and caught.value.hint == f"free some space; --resume goes on from `{last}`"
    assert names(run.path / "checkpoints") == ["step_000002"]
    with pytest.raises(R1Error, match="cannot write the final model: File too large"), full_disk(), run.final_model(4) as folder:
        (folder / "model.safetensors").write_bytes(bytes(1 << 17))
    assert not run.final.exists()


def test_an_error_that_is_not_the_disks_stays_what_it_is(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), run.checkpoint(1):
        raise ZeroDivisionError
    assert names(run.path / "checkpoints") == []


def test_a_manifest_that_does_not_fit_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(R1Error, match=r"cannot write `.*/a\.json`: File too large"), full_disk():
        manifest.write_json(tmp_path / "a.json", "x" * (1 << 17))
    assert names(tmp_path) == []


def test_what_a_kill_left_of_a_checkpoint_goes_when_the_run_goes_on(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run")
    save(run, 1)
    with pytest.raises(KeyboardInterrupt), run.checkpoint(2) as folder:
        (folder / "model.safetensors").write_text("half")
        raise KeyboardInterrupt
    run.close()
    assert names(run.path / "checkpoints") == ["step_000001", "step_000002"]
    open_run(tmp_path / "run", resume=True)
    assert names(run.path / "checkpoints") == ["step_000001"]


def test_a_final_model_that_is_written_again_is_not_whole_meanwhile(tmp_path: Path) -> None:
    finished(tmp_path / "run")
    run = open_run(tmp_path / "run", resume=True)
    with pytest.raises(KeyboardInterrupt), run.final_model(8) as folder:
        assert names(folder) == [] and manifest.read(run.path) is None
        (folder / "model.safetensors").write_text("half")
        raise KeyboardInterrupt
    assert run_dir.final_steps(run.path) is None
    assert run_dir.final_or_latest(run.path) == run.latest_checkpoint()
    with run.final_model(8) as folder:
        (folder / "model.safetensors").write_text("weights")
    assert run_dir.final_steps(run.path) == 8 and run_dir.final_or_latest(run.path) == run.final
    assert manifest.read(run.path) is None, "the run itself is done when it says so"
    run.finish({"command": "grpo", "counts": {"steps": 8}})
    assert run_dir.final_steps(run.path) == 8 and (manifest.read(run.path) or {})["attempts"] == 2


def test_the_final_model_of_an_older_version_says_its_steps_too(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run")
    run.final.mkdir()
    manifest.write(run.final, command="grpo", counts={"steps": 7})
    assert run_dir.final_steps(run.path) == 7


def test_a_run_that_is_done_keeps_its_lines_until_it_is_made_longer(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    again = open_run(tmp_path / "run", resume=True)
    assert [record["step"] for record in lines(run.path / "metrics.jsonl")] == [1, 2, 3, 4]
    again.rewind()
    again.metrics({"step": 3})
    again.samples([{"id": "new"}], step=3)
    assert [record["step"] for record in lines(run.path / "metrics.jsonl")] == [1, 2, 3]
    assert [record["id"] for record in lines(run.path / "samples.jsonl")] == [1, 2, "new"]


class Killed(BaseException):
    """Stands for kill -9: nothing may handle it."""


@pytest.mark.parametrize("moment", range(16))
def test_force_that_is_killed_leaves_a_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """Killed before its n-th removal, or before its n-th small file is written."""
    path = finished(tmp_path / "run").path
    left = iter(range(moment))

    def dying(function: Any) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            if next(left, None) is None:
                raise Killed
            return function(*given, **options)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(run_dir, "remove", dying(run_dir.remove))
        patched.setattr(manifest, "write_json", dying(manifest.write_json))
        killed = False
        try:
            open_run(path, force=True)
        except Killed:
            killed = True
        assert killed is (moment < 15), "eleven things to remove, four files to write"
    assert run_dir.is_run_dir(path)
    for way in ("resume", "force"):
        copy = shutil.copytree(path, tmp_path / way, symlinks=True)
        with open_run(copy, **{way: True}) as run:
            assert (run.resumed_step is None) or (way == "resume" and lines(copy / "metrics.jsonl")[-1]["step"] >= 2)


def test_a_first_start_that_is_killed_can_be_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dying(temporary: Path, path: Path) -> None:
        raise Killed

    for options in ({}, {"resume": True}, {"force": True}):
        path = tmp_path / str(len(names(tmp_path)))
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(Path, "replace", dying)
            open_run(path)
        lock, left = names(path)[::-1]
        assert lock == ".lock" and left.startswith(".config.json.")
        (path / left).rename(path / ".config.json.1.tmp")  # of another process
        open_run(path, **options).close()
        assert ".config.json.1.tmp" not in names(path) and json.loads((path / "config.json").read_text())["command"] == "grpo"
