"""Says what an engine is waiting for when one call does not come back.

A call that hangs inside C++ or on a GPU cannot be interrupted from Python, and a run that stands still in silence is worse than one that
fails. A daemon thread looks once in a while at what is being waited for, and names it in the log (level WARNING) each `limit` seconds.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

log = logging.getLogger(__name__)


class Watchdog:
    """One thread for the life of an engine: `with watchdog.waiting("a step of 64 sequences"): ...` costs two assignments."""

    def __init__(self, limit: float = 120.0) -> None:
        self.limit = limit
        self._doing: tuple[str, float] | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, name="r1-engine-watchdog", daemon=True)
        self._thread.start()

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Name what happens inside the `with` block."""
        self._doing = (what, monotonic())
        try:
            yield
        finally:
            self._doing = None

    def _look(self) -> None:
        spoken: tuple[str, float] | None = None
        times = 0
        while not self._closed.wait(min(1.0, self.limit / 4)):
            doing = self._doing
            if doing is None:
                continue
            if doing is not spoken:
                spoken, times = doing, 0
            seconds = monotonic() - doing[1]
            if seconds >= self.limit * (times + 1):
                times += 1
                log.warning("still waiting for %s after %.0f s", doing[0], seconds)

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()
