"""Inputs that give their rows once: stdin, a named pipe, `<(...)`. Whoever reads one a second time gets nothing, and no error."""

import shlex
from collections.abc import Iterable
from pathlib import Path

from r1cli.errors import Exit, R1Error


def is_piped(name: str) -> bool:
    """Whether an input is neither a file, a folder nor a data set. What is not there is no pipe: its own error says so."""
    if name == "-":
        return True
    path = Path(name).expanduser()
    return not name.startswith("hf:") and path.exists() and not path.is_file() and not path.is_dir()


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
