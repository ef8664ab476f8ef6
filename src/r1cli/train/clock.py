"""Seconds of each phase of a step."""

import time


class Clock:
    """`lap(phase)` gives the time since the last lap to a phase.

    seconds: of each phase; given, it is written to, and has what an earlier start took, which had begun what goes on here.
    """

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds = {} if seconds is None else seconds
        self._before = sum(self.seconds.values())
        self.started = self.last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        name = f"seconds/{phase}"
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now

    def total(self) -> float:
        """Seconds of this start."""
        return time.perf_counter() - self.started

    def record(self, tokens: float) -> dict[str, float]:
        """The seconds of every phase, of all of it, and the completion tokens a second."""
        total = self._before + self.total()
        return {**self.seconds, "seconds": total, "tokens_per_second": tokens / total}


class Pace:
    """The most that an update, and all else of a rollout together, have taken so far: what a time limit must leave room for. In seconds."""

    def __init__(self) -> None:
        self.rollout = self.update = 0.0
        self._updates = 0.0

    def updated(self, seconds: float) -> None:
        """An update took this long."""
        self.update = max(self.update, seconds)
        self._updates += seconds

    def rolled(self, seconds: float) -> None:
        """A rollout took this long, its updates included."""
        self.rollout = max(self.rollout, seconds - self._updates)
        self._updates = 0.0
