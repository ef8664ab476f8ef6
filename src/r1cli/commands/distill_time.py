"""The time limit of `r1 distill` where nothing is trained: while rows are made, and while the student is evaluated.

Such work may end in the middle of anything, as it does at SIGTERM: whole rows stay, and --resume goes on from them. So an alarm ends it;
training ends between two steps instead (`stopping.Stopper`).
"""

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from r1cli.commands.stopping import seconds_of
from r1cli.errors import R1Error
from r1cli.guard import Context
from r1cli.io import manifest
from r1cli.settings import DistillSettings

KEPT = ("prompts.jsonl", "traces.jsonl", "kept.jsonl", "train.jsonl", f"final/{manifest.NAME}")  # what a later start does not make again


class OutOfTime(BaseException):
    """The time limit is over. A BaseException, so that `finally` blocks run and nothing takes it for a failure of its own."""


@contextmanager
def ending_in_time(settings: DistillSettings, started: float) -> Iterator[None]:
    """Around work that may end anywhere: `OutOfTime` comes out of it when the time limit, counted from `started`, is over."""
    limit = seconds_of(settings.time_limit)
    if limit is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    rung = False

    def ring(number: int, frame: FrameType | None) -> None:
        nonlocal rung
        rung = True
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(1e-6, started + limit - time.time()))  # 0 would be no alarm at all
        yield
    except ImportError as error:  # an extension module makes one of what interrupts it
        if rung:
            raise OutOfTime from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def made_so_far(out: str) -> dict[str, tuple[int, int]]:
    """What a run directory holds that a later start does not make again: name -> (bytes, time)."""
    found = {name: (Path(out) / name).stat() for name in KEPT if (Path(out) / name).is_file()}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in found.items() if stat.st_size}


def say_out_of_time(settings: DistillSettings, context: Context, before: Mapping[str, tuple[int, int]], started: float) -> None:
    """After the alarm: how to go on. before: `made_so_far` at the start.

    A limit that leaves time for nothing is an error: jobs that start one another would never end.
    """
    cost = f"{time.time() - started:,.0f} s"
    if made_so_far(settings.out).items() <= before.items():
        raise R1Error(
            f"the time limit left no time for anything that a later start could go on from, {cost}",
            hint="raise --time-limit: loading counts as well",
        )
    following = [f"next: {context.resume}"] if context.resume else []
    context.console.summary([f"{context.command}: time limit reached, {cost}; what is finished is kept", *following])
