"""Folders that are there whole or not at all: the manifest is written last, once all else is on the disk, and removed first."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from r1cli.errors import R1Error, of_disk
from r1cli.io import manifest


def is_whole(folder: Path) -> bool:
    """Whether a folder has its manifest."""
    return (folder / manifest.NAME).is_file()


def declare_whole(folder: Path, **facts: Any) -> None:
    """Give a folder its manifest (`manifest.write`), after a power loss too: what it declares whole is on the disk before it is."""
    sync(folder)
    manifest.write(folder, **facts)
    manifest.sync_entries(folder.parent)


def sync(folder: Path) -> None:
    """Have the disk keep all files of a folder, whichever process wrote them."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            manifest.sync_entries(path)
        elif path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    manifest.sync_entries(folder)


@contextmanager
def filling(folder: Path, what: str, way_out: str) -> Iterator[Path]:
    """Around writing a folder that is not whole yet: an error removes what there is of it (it may be what fills the disk)."""
    with naming(what, way_out):
        try:
            yield folder
        except Exception:
            with suppress(OSError):
                remove(folder)
            raise


@contextmanager
def naming(what: str, way_out: str) -> Iterator[None]:
    """Around writing: an `OSError` becomes an `R1Error` that says what could not be written. way_out: the rest of its hint (`of_disk`)."""
    try:
        yield
    except OSError as error:
        raise R1Error(f"cannot write {what}: {error.strerror or error}", hint=of_disk(error, way_out)) from error


def remove(path: Path) -> None:
    """Remove a file or folder; a folder's manifest goes first, so that what an interruption leaves does not look whole."""
    if path.is_dir() and not path.is_symlink():
        (path / manifest.NAME).unlink(missing_ok=True)
        manifest.sync_entries(path)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_if_possible(path: Path) -> None:
    """The same for what is only in the way: network disks keep a file that a process has open, and its folder with it."""
    with suppress(OSError):
        remove(path)
