"""One thread beside the one that scores: models answer there, in the order in which they are asked."""

import queue
import threading
from collections.abc import Callable

Work = Callable[[], None]


class Aside:
    """Starts with the first piece of work. It is a daemon: a model or a server that does not answer never keeps the process from ending."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, work: Work) -> None:
        """Do it after what was submitted before. It must not raise."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="reward-models", daemon=True)
            self._thread.start()
        self._work.put(work)

    def close(self) -> None:
        """Drop what has not begun; the thread ends after what it is doing."""
        while not self._work.empty():
            self._work.get()
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
