"""The checkpoints of a run directory by their steps: which are there, which are whole, and how one takes the place of another."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from r1cli.io.whole_folder import is_whole, remove, remove_if_possible

_BEFORE = ".before"  # behind the name of a whole checkpoint while another of the same step is written
_STEP = re.compile(rf"step_(\d{{6,}})({re.escape(_BEFORE)})?")


def checkpoint_folder(path: str | Path, step: int) -> Path:
    """Where a run's checkpoint of a step is."""
    return Path(path) / "checkpoints" / f"step_{step:06d}"


def checkpoints(path: str | Path) -> list[Path]:
    """The whole checkpoints of a run directory, oldest first. One that was to be replaced when the run was killed has another name until it
    goes on."""
    found = {_step_of(folder): folder for folder in _begun(path) if is_whole(folder)}
    return list(found.values())


def whole_checkpoint(path: str | Path, step: int) -> Path:
    """The whole checkpoint of a step, under whichever name it lies; where it would be, when there is none."""
    return next((folder for folder in checkpoints(path) if _step_of(folder) == step), checkpoint_folder(path, step))


def latest_step(path: str | Path) -> int | None:
    """The step of a run directory's newest whole checkpoint."""
    return max(map(_step_of, checkpoints(path)), default=None)


@contextmanager
def replacing(folder: Path) -> Iterator[None]:
    """Around writing a checkpoint: a whole one of the same step (of a run that ended between an update and its metrics, or with a rollout
    that is drawn by now) stays, under another name, until the new one is whole. Unless that happens it gets its name back."""
    before = folder.with_name(folder.name + _BEFORE)
    if is_whole(folder):
        remove(before)
        folder.rename(before)
    try:
        yield
    finally:
        _settle(before)


def clear(path: Path) -> None:
    """Remove what a killed run left half written, and give what it was about to replace its name back."""
    for folder in _begun(path):
        if not is_whole(folder):
            remove_if_possible(folder)
    for before in list((path / "checkpoints").glob(f"step_*{_BEFORE}")):
        _settle(before)


def _settle(before: Path) -> None:
    folder = before.with_name(before.name.removesuffix(_BEFORE))
    if is_whole(folder):
        remove_if_possible(before)
    elif is_whole(before):
        remove_if_possible(folder)
        before.rename(folder)


def _begun(path: str | Path) -> list[Path]:
    """The checkpoints of a run directory, whole or not, oldest first, and of the same step the newest last."""
    found = (folder for folder in (Path(path) / "checkpoints").glob("step_*") if _STEP.fullmatch(folder.name))
    return sorted(found, key=lambda folder: (_step_of(folder), not folder.name.endswith(_BEFORE)))


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step_").removesuffix(_BEFORE))
