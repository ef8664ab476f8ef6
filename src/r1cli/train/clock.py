"""Seconds of each phase of a step."""

import time


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
