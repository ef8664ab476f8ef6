"""The real stdout, kept for rows.

Libraries (vLLM among them) print to file descriptor 1, from Python and from child processes. `claim_stdout` takes a private copy of the
descriptor for rows and points descriptor 1 at stderr, so whatever anything prints lands beside the messages and never between rows.
"""

import os
import select
import sys
from typing import TextIO

_claimed: TextIO | None = None


def claim_stdout() -> TextIO:
    """The stream for rows: UTF-8, `\\n`, line buffered. Call it before anything heavy is imported; later calls give the same stream.

    Where `sys.stdout` is not descriptor 1 (a test that captures it), it is returned as it is.
    """
    global _claimed
    if _claimed is None and _is_real(sys.stdout):
        sys.stdout.flush()
        kept = os.dup(1)
        try:
            os.dup2(2, 1)
        except OSError:  # stderr is closed (2>&-)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.close(nowhere)
        _claimed = open(kept, "w", buffering=1, encoding="utf-8", newline="\n")  # noqa: PTH123, SIM115  a descriptor, open to the end
    return _claimed or sys.stdout


def _is_real(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.fileno() == 1
    except (OSError, ValueError):  # io.UnsupportedOperation is both
        return False


def reader_left() -> bool:
    """True when nobody reads stdout any more (`| head`). Then it is pointed at nothing, so that closing it at exit cannot fail again.

    The guard asks this after a BrokenPipeError, which may as well come from a pipe to a process of our own.
    """
    stream = _claimed or sys.stdout
    if stream is None or (stream is not _claimed and not _is_real(stream)):
        return False
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLOUT)
    left = any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
    if left:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    return left
