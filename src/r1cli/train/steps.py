"""The loop over optimizer steps that supervised training shares: log, save when due, end when asked to."""

import time
from collections.abc import Callable
from typing import Any

from r1cli.errors import R1Error

Log = Callable[[dict[str, Any]], R1Error | None]
Save = Callable[[int], None]
Stopping = Callable[[float], bool]


def never(seconds: float) -> bool:
    """Nobody asks the run to end."""
    return False


def train_steps(
    one: Callable[[int], dict[str, Any]], *, start_step: int, total: int, save_every: int, log: Log, save: Save, stopping: Stopping = never
) -> int:
    """Make steps `start_step` .. `total` - 1; returns the steps done, fewer than `total` when the run was asked to end.

    one(step) -> its record. log(record): what it returns is raised once a checkpoint is saved. save(steps done) is called when a
    checkpoint is due, after the last step (of a run that has it behind it, too: it goes on from a checkpoint), and before it ends early.
    stopping(seconds of the longest step) is asked before every step, on all processes.
    """
    seconds, saved = 0.0, start_step
    if start_step >= total:
        save(total)
    for step in range(start_step, total):
        if stopping(seconds):
            if step > saved:
                save(step)
            return step
        started = time.perf_counter()
        halt = log(one(step))
        seconds = max(seconds, time.perf_counter() - started)
        if halt or step + 1 == total or (save_every and (step + 1) % save_every == 0):
            save(step + 1)
            saved = step + 1
        if halt:
            raise halt
    return total
