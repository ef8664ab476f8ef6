"""The time a process has had, fairly counted on a busy machine.

A process that computes is charged its CPU time; one that sleeps or waits for something is charged the wall-clock time; one that is ready
to run while others have the cores is charged nothing, up to a wall-clock cap. So a time limit means the same on an idle machine and on a
crowded one, and sleeping for ever still ends in time. Where /proc cannot be read, everything is wall-clock time.
"""

import os
import time

LOOK_SECONDS = 0.05  # a stopwatch must be looked at about this often
WALL_FACTOR, WALL_EXTRA = 10.0, 10.0  # the cap: factor x limit + extra
_TICKS = os.sysconf("SC_CLK_TCK")


class Stopwatch:
    """Counts against a limit of `seconds` while it runs: call `resume` before a wait, and `over` during it."""

    def __init__(self, pid: int, seconds: float) -> None:
        self.used = 0.0
        self._pid = pid
        self._limit = seconds
        self._cap = time.monotonic() + WALL_FACTOR * seconds + WALL_EXTRA
        self.resume()

    def resume(self) -> None:
        """Start counting from now; what went before (the judge's own work) is not counted."""
        self._seen = time.monotonic()
        self._cpu = self._look()[0]

    def over(self) -> bool:
        """Count what has passed since the last look; whether the limit is used up."""
        now = time.monotonic()
        cpu, ready = self._look()
        ran = cpu - self._cpu
        asleep = min(now - self._seen, 2 * LOOK_SECONDS)  # not more: it may be the judge that had no core in between
        self.used += ran if ran > 0 or ready else asleep
        self._seen, self._cpu = now, cpu
        return self.used >= self._limit or now >= self._cap

    def _look(self) -> tuple[float, bool]:
        """(CPU seconds of all its threads, whether it is running or ready to run)."""
        try:
            with open(f"/proc/{self._pid}/stat", "rb") as file:  # noqa: PTH123  # looked at 20 times a second
                fields = file.read().rsplit(b")", 1)[1].split()
        except (OSError, IndexError):
            return 0.0, False
        return (int(fields[11]) + int(fields[12])) / _TICKS, fields[0] == b"R"
