"""Requests handed to an engine a few at a time, without making the sequences that run wait for a slow source.

A list is taken as it is. Any other iterable (rows read from a pipe, rendered on the way) is read by a thread, at most `ahead` requests
further than what was taken: an endless input takes no more memory than a short one, and a producer that pauses stops nothing.
An error of the source ends it like its last request does, and is raised only once nothing runs any more: what was begun is finished.
"""

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence

from r1cli.engines.protocol import Request

_END = object()


class Feed:
    """`take(n)` gives up to n requests; `ended` is true once there are no more, and `error` then says whether the source failed."""

    def __init__(self, requests: Iterable[Request], ahead: int) -> None:
        self.ended = False
        self.error: BaseException | None = None
        self._list: Iterator[Request] | None = iter(requests) if isinstance(requests, Sequence) else None
        self._queue: queue.Queue = queue.Queue(maxsize=max(1, ahead))
        self._closed = threading.Event()
        if self._list is None:
            threading.Thread(target=self._read, args=(requests,), name="r1-requests", daemon=True).start()

    def take(self, most: int, *, wait: bool) -> list[Request]:
        """Up to `most` requests. With `wait`, at least one unless the source has ended; without, only what is at hand."""
        taken: list[Request] = []
        while len(taken) < most and not self.ended:
            item = self._next(wait=wait and not taken)
            if item is None:
                break
            taken.append(item)
        return taken

    def finish(self) -> None:
        """Raise the error of the source, if it had one. For the engine to call when nothing runs any more."""
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Take no more. A thread that is blocked in the source itself ends with the process."""
        self.ended = True
        self._closed.set()

    def _next(self, *, wait: bool) -> Request | None:
        if self._list is not None:
            item = next(self._list, _END)
        else:
            try:
                item = self._wait() if wait else self._queue.get_nowait()
            except queue.Empty:
                return None
        if item is _END:
            self.ended = True
            return None
        if isinstance(item, BaseException):
            self.ended, self.error = True, item
            return None
        assert isinstance(item, Request)
        return item

    def _wait(self) -> object:
        while True:  # a timeout, because a plain get() on the main thread is deaf to Ctrl-C on some platforms
            try:
                return self._queue.get(timeout=0.2)
            except queue.Empty:
                continue

    def _read(self, requests: Iterable[Request]) -> None:
        try:
            for request in requests:
                if not self._put(request):
                    return
            self._put(_END)
        except BaseException as error:  # carried over to the thread that takes
            self._put(error)

    def _put(self, item: object) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False
