"""Seconds of each phase of a step."""

import time
from collections.abc import Callable
from typing import Any


class Clock:
    """`lap(phase)` gives the time since the last lap to a phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.started = self.last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        name = f"seconds/{phase}"
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now

    def total(self) -> float:
        return time.perf_counter() - self.started

    def record(self, tokens: float) -> dict[str, float]:
        """The seconds of every phase, of all of it, and the completion tokens a second."""
        total = self.total()
        return {**self.seconds, "seconds": total, "tokens_per_second": tokens / total}


class Longest:
    """A function, called as itself. seconds: the most that one of its calls has taken; 0 before the first."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function
        self.seconds = 0.0

    def __call__(self, *given: Any) -> None:
        started = time.perf_counter()
        self._function(*given)
        self.seconds = max(self.seconds, time.perf_counter() - started)
