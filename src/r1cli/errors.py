"""Errors a user can act on, and the exit codes of every command.

`R1Error` is for mistakes in what was asked or given: it is printed as one `error:` line and one `hint:` line, never as a traceback
(unless `--debug`). Anything else that escapes a command is a bug in `r1` and says so.
"""

import difflib
import errno
from collections.abc import Iterable
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `r1` (design page, "How it speaks"). A pipe closed by the reader (`| head`) is OK."""

    OK = 0
    FAILED = 1  # ran and failed, or an asked condition is false
    USAGE = 2  # wrong flags, configuration or input
    ENVIRONMENT = 3  # a missing package, GPU or server
    INTERRUPTED = 130  # Ctrl-C
    TERMINATED = 143  # SIGTERM


class R1Error(Exception):
    """An error whose message names what is wrong and whose hint names the next command to try.

    Messages are one line, start in lower case, put names in backticks and end without a period.
    """

    def __init__(self, message: str, *, hint: str | None = None, code: Exit | int = Exit.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = int(code)

    def __reduce__(self) -> tuple:  # travels between processes with its hint and code
        return _rebuild, (self.message, self.hint, self.code)


def _rebuild(message: str, hint: str | None, code: int) -> R1Error:
    return R1Error(message, hint=hint, code=code)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)


def of_disk(error: OSError, rest: str = "") -> str:
    """What to do about a file that could not be written, then `rest`, other ways out: free some space, when that is what it lacked."""
    return ("free some space" if error.errno in _FULL else "see that one may write there") + rest


def first_line(error: BaseException) -> str:
    """What another library's error says, as far as it fits into a message of ours; its kind when it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".:")


def nearest(name: str, known: Iterable[str]) -> str:
    """`"did you mean `x`?"` for the closest known name, or the list of what is known when nothing is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    return "known: " + ", ".join(f"`{k}`" for k in known)
