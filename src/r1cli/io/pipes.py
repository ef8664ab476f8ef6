"""Inputs that give their rows once: stdin, a named pipe, `<(...)`. Whoever reads one a second time gets nothing, and no error.

A process that starts others reads them for all, and leaves what they gave in files that the others read under the same names.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

COPIES = "R1CLI_PIPES"  # in the environment of those processes: name -> file


def is_piped(name: str) -> bool:
    """Whether an input is neither a file, a folder nor a data set. What is not there is no pipe: its own error says so."""
    if name == "-":
        return True
    path = Path(name).expanduser()
    return not name.startswith("hf:") and path.exists() and not path.is_file() and not path.is_dir()


def naming_copies(copies: Mapping[str, Path]) -> dict[str, str]:
    """What the environment of the other processes needs."""
    return {COPIES: json.dumps({name: str(path) for name, path in copies.items()})} if copies else {}


def copy_of(name: str) -> Path | None:
    """The file with what a pipe gave, None where nobody has read it for this process."""
    found = json.loads(os.environ.get(COPIES, "{}")).get(name)
    return None if found is None else Path(found)
