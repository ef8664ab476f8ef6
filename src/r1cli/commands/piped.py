"""Pipes among the inputs of a command: refused where they would be read again, or by several processes, and read for those we start."""

import os
import shlex
import shutil
import stat
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from r1cli.commands.grpo_prompts import sources_of
from r1cli.errors import Exit, R1Error
from r1cli.grpo_settings import GrpoSettings
from r1cli.io.pipes import is_piped, naming_copies

STDIN = "stdin"  # the file of what it gave


def refuse_rereading(flag: str, names: Iterable[str]) -> None:
    """Refuse (`R1Error`, exit 2) a pipe under a flag whose rows are read more than once."""
    for name in names:
        if is_piped(name):
            file = f"{flag.removeprefix('--')}.jsonl"
            raise R1Error(
                f"{flag} `{name}` is read more than once, and gives its rows once: it is no file",
                hint=f"make it one: r1 mix {shlex.quote(name)} --no-shuffle -o {file}, then {flag} {file}",
                code=Exit.USAGE,
            )


def pipes_of(settings: Any) -> list[str]:
    """The pipes that a command reads rows from, as often as they are named."""
    named = list(settings.inputs)
    if isinstance(settings, GrpoSettings):  # whose names may have a share
        named = [file for source in sources_of(settings) for file in source.files]
    held_out = getattr(settings, "held_out", None)
    return [name for name in (*(() if settings.inputs else ("-",)), *named, held_out) if name and is_piped(name)]


def refuse_twice(pipes: Sequence[str]) -> None:
    """Refuse (`R1Error`, exit 2) a stream that is named twice, maybe by two names: the second would give nothing."""
    for place, name in enumerate(pipes):
        same = next((other for other in pipes[:place] if _stream(other) == _stream(name)), None)
        if same is not None:
            what = f"`{name}` is named twice" if same == name else f"`{same}` and `{name}` are one stream, which gives its rows once"
            raise R1Error(what, hint="name it once", code=Exit.USAGE)


def _stream(name: str) -> Any:
    """The same for names of one pipe."""
    try:
        found = os.fstat(sys.stdin.fileno()) if name == "-" else Path(name).expanduser().stat()
    except (OSError, ValueError, AttributeError):  # no stdin, or that of a test
        return name
    return (found.st_dev, found.st_ino) if stat.S_ISFIFO(found.st_mode) or stat.S_ISSOCK(found.st_mode) else name


def refuse_sharing(names: Iterable[str]) -> None:
    """Refuse (`R1Error`, exit 2) pipes in one of several processes that we did not start: each would get some of the rows."""
    for name in filter(is_piped, names):
        raise R1Error(
            f"the processes of `accelerate launch` cannot share {'stdin' if name == '-' else f'`{name}`'}",
            hint="name a file of rows, or start them with --num-processes",
            code=Exit.USAGE,
        )


def spooled(pipes: Iterable[str], folder: Path) -> dict[str, str]:
    """Read pipes to their end into files of a folder; what the environment of the processes needs, which read those instead.

    What stdin gave is in `folder / STDIN`, to be their stdin.
    """
    copies = {}
    for number, name in enumerate(pipes):
        if name != "-":
            copies[name] = folder / f"pipe_{number}"
            with Path(name).expanduser().open("rb") as pipe, copies[name].open("wb") as spool:
                shutil.copyfileobj(pipe, spool)
        elif sys.stdin is not None and not sys.stdin.closed and not sys.stdin.isatty():
            with (folder / STDIN).open("wb") as spool:
                shutil.copyfileobj(sys.stdin.buffer, spool)
    return naming_copies(copies)
