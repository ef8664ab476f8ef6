"""Small files that are there whole or not at all: reports and scores."""

import os
from pathlib import Path

from r1cli.errors import Exit, R1Error, of_disk


def check_new(out: str | Path, *, force: bool) -> Path:
    """The path of a file that may be written. Raises `R1Error` (exit 2) when it is a folder, or exists and `force` is not given."""
    path = Path(out)
    if path.is_dir():
        raise R1Error(f"`{out}` is a folder", hint="name a file in it", code=Exit.USAGE)
    if path.is_file() and not force:
        raise R1Error(f"`{out}` exists", hint="--force to replace it, or another --out", code=Exit.USAGE)
    return path


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file under another name and rename it; its folder is made. A full or read-only disk is an `R1Error`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # /dev/stdout, a named pipe
            path.write_text(text, encoding="utf-8")
            return
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    except OSError as error:
        raise R1Error(f"cannot write `{path}`: {error.strerror or error}", hint=of_disk(error, ", or name another place")) from None
