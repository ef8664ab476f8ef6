"""The real stdout, kept for rows, and noticing that nobody reads it any more.

Libraries (vLLM among them) print to file descriptor 1, from Python and from child processes. `claim_stdout` takes a private copy of the
descriptor for rows and points descriptor 1 at stderr, so whatever anything prints lands beside the messages and never between rows.

`| head -1` closes the pipe long before the next row may be ready. A command that writes rows there watches the pipe and is stopped by
`ReaderLeft` at once, instead of finding out at its next write.
"""

import os
import select
import signal
import stat
import sys
import threading
import time
from types import FrameType
from typing import TextIO

STDOUT = ("-", "/dev/stdout", "/dev/fd/1")  # what an output may be called that is stdout
_GRACE = 0.3  # seconds in which a write may find the closed pipe by itself
_claimed: TextIO | None = None
_left = False
_watching = False


class ReaderLeft(BaseException):
    """The reader of stdout has gone: there is nothing left to do. A BaseException, so that nothing takes it for a failure of its own."""


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
            _point_at_nothing(1)
        _claimed = open(kept, "w", buffering=1, encoding="utf-8", newline="\n")  # noqa: PTH123, SIM115  a descriptor, open to the end
    return _claimed or sys.stdout


def reader_left() -> bool:
    """True when the other end of stdout is closed. What is still in buffers then goes to nowhere, silently."""
    global _left
    fd = _descriptor()
    if not _left and fd is not None:
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        _left = any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
        if _left:
            _point_at_nothing(fd)
    return _left


def watch_reader() -> None:
    """From now on raise `ReaderLeft` in the main thread soon after the reader of a stdout that is a pipe has gone."""
    global _watching
    fd = _descriptor()
    if _watching or fd is None or threading.current_thread() is not threading.main_thread():
        return
    kind = os.fstat(fd).st_mode
    if not stat.S_ISFIFO(kind) and not stat.S_ISSOCK(kind):
        return
    _watching = True
    signal.signal(signal.SIGPIPE, _on_sigpipe)  # Python ignores it by default
    threading.Thread(target=_wait_for_hangup, args=(fd, os.getpid()), name="stdout reader", daemon=True).start()


def _wait_for_hangup(fd: int, owner: int) -> None:
    poll = select.poll()
    poll.register(fd, 0)  # errors are always reported; nothing else wakes it
    poll.poll()
    time.sleep(_GRACE)
    if not _left and os.getpid() == owner:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGPIPE)


def _on_sigpipe(number: int, frame: FrameType | None) -> None:
    """Any broken pipe of the process arrives here; only the one behind stdout ends the command."""
    if reader_left():
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        raise ReaderLeft


def _descriptor() -> int | None:
    if _claimed is not None:
        return _claimed.fileno()
    return 1 if _is_real(sys.stdout) else None


def _is_real(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.fileno() == 1
    except (OSError, ValueError):  # io.UnsupportedOperation is both
        return False


def _point_at_nothing(fd: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, fd)
    os.close(nowhere)
