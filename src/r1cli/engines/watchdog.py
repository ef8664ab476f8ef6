"""Says what an engine is waiting for when one call does not come back, and ends the process when it never does.

A call that hangs inside C++ or on a GPU cannot be interrupted from Python, and a run that stands still in silence is worse than one that
fails. A daemon thread looks once in a while at what is being waited for: it names it in the log (level WARNING) each `limit` seconds, and
past the deadline it ends the process with an error. Rows and checkpoints that are written stay; --resume goes on.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import NoReturn

from r1cli.errors import Exit, R1Error

log = logging.getLogger(__name__)

STEP_DEADLINE = 1800.0
LOAD_DEADLINE = 7200.0  # the largest models from a slow disk


tell: Callable[[R1Error], bool] | None = None  # leaves an error to the process that started this one; False when that is gone


def end_process(what: str, seconds: float) -> None:
    """One error, one hint, and the end: the thread that hangs cannot be asked to raise anything."""
    end_with(
        R1Error(
            f"waited {seconds:.0f} s for {what}, which did not come",
            hint="--resume continues; --verbose shows the engine's log",
            code=Exit.ENVIRONMENT,
        )
    )


def end_with(error: R1Error) -> NoReturn:
    """Says it and ends the process, whatever its other threads are in."""
    if tell is None or not tell(error):
        os.write(2, f"error: {error.message}\n\nhint: {error.hint}\n".encode())
    os._exit(error.code)


class Watchdog:
    """One thread for the life of an engine: `with watchdog.waiting("a step of 64 sequences"): ...` costs two assignments.

    limit: seconds between warnings;  give_up: called with what was waited for, and how long, past the deadline
    """

    def __init__(self, limit: float = 120.0, give_up: Callable[[str, float], None] = end_process) -> None:
        self.limit = limit
        self._give_up = give_up
        self._doing: tuple[str, float, float] | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, name="r1-engine-watchdog", daemon=True)
        self._thread.start()

    @contextmanager
    def waiting(self, what: str, deadline: float = STEP_DEADLINE) -> Iterator[None]:
        """Name what happens inside the `with` block, which may take `deadline` seconds."""
        self._doing = (what, monotonic(), deadline)
        try:
            yield
        finally:
            self._doing = None

    def _look(self) -> None:
        spoken: tuple[str, float, float] | None = None
        times = 0
        while not self._closed.wait(min(1.0, self.limit / 4)):
            doing = self._doing
            if doing is None:
                continue
            if doing is not spoken:
                spoken, times = doing, 0
            what, since, deadline = doing
            seconds = monotonic() - since
            if seconds >= deadline:
                self._give_up(what, seconds)
            if seconds >= self.limit * (times + 1):
                times += 1
                log.warning("still waiting for %s after %.0f s", what, seconds)

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()
