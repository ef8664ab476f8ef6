"""SIGTERM and the processes that score. Slurm and systemd send it to every process of a job, not to the first one only.

A worker or a sandboxed program that it ended would count as crashed, and its score of 0 would be trained on. When to end is the business
of the process that started them: they die with it.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def blocked() -> Iterator[None]:
    """Around the start of a process: SIGTERM waits in it, and in what it starts, until it unblocks it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def outlive() -> None:
    """Do nothing on SIGTERM, in this process alone: what a user's function starts and terminates ends as it should."""
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a child made by fork
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, handle)
    signal.siginterrupt(signal.SIGTERM, False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
