"""One of several processes before there is anything to save: a signal ends it, even where Python cannot hear it.

    listen()       from the start on
    begun()        the run can be saved: signals are the business of `stopping.Stopper` from here on

torch's rendezvous, and a collective whose other end has gone, wait in C++ for as long as two hours, and Python calls a handler only when
they come back. So a thread is told of each signal as well (`signal.set_wakeup_fd`: by the part of Python that does hear it), and ends the
process with the same exit code when its handler was not called soon after.
"""

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

from r1cli.errors import Exit
from r1cli.guard import LAUNCHED

HEED_SECONDS = 2.0  # for the main thread to call its handler
BEGUN = "begun_"  # and the rank: a file that tells the launcher (`launch.py`) that this process has begun
CODES = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED, signal.SIGHUP: Exit.TERMINATED}

_begun = threading.Event()
_ends: list[int] = []  # of the pipe that signals are written to, while somebody listens


def listen() -> None:
    """Begin to; only the main thread can."""
    if _ends or threading.current_thread() is not threading.main_thread():
        return
    _begun.clear()
    _ends[:] = os.pipe()
    os.set_blocking(_ends[1], False)
    signal.set_wakeup_fd(_ends[1], warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_stop_listening)  # else what a child is told would end this process
    threading.Thread(target=_heed, args=(_ends[0],), name="r1-signals", daemon=True).start()


def begun() -> None:
    """Leave signals to their handlers."""
    _begun.set()
    if LAUNCHED is not None:
        with suppress(OSError):  # the launcher is gone, and its folder
            Path(LAUNCHED, f"{BEGUN}{os.environ.get('RANK', '0')}").touch()
    if threading.current_thread() is threading.main_thread():
        _stop_listening()


def _stop_listening() -> None:
    if _ends:
        signal.set_wakeup_fd(-1)
        os.close(_ends[1])  # which ends the thread
        _ends.clear()


def _heed(ear: int) -> None:
    while told := os.read(ear, 64):
        for number in told:
            if number in CODES and not _begun.wait(HEED_SECONDS) and not _heard(number):
                if number == signal.SIGINT:
                    os.write(2, b"interrupted: ending before the first step\n")
                os._exit(CODES[signal.Signals(number)])
    os.close(ear)


def _heard(number: int) -> bool:
    """Whether the guard's handler was called: it ignores the signal then, and what it raises ends the process."""
    return signal.getsignal(signal.SIGTERM if number == signal.SIGHUP else number) is signal.SIG_IGN
