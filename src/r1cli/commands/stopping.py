"""A training run that is asked to end: by Ctrl-C, by SIGTERM, or by its time limit. It saves first.

    with Stopper(limit=seconds_of("3h30m"), since=started) as stopper:
        ...                        stopper.agreed(accelerator, 60.0) at places where the run can be saved
    stopper.leave()                Ctrl-C and SIGTERM go on to the guard: exit 130 and 143

The signal itself does nothing but leave a note: an exception out of the middle of an update would leave weights half moved, and processes
waiting for each other.

A scheduler signals every process of a job and a launcher passes its own signal on, so one wish may come as several signals. A process
that is alone ignores repeats for 2 s and is ended at once by a later one; one of several ignores all, and who launched them kills them.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, Self

from r1cli.commands import starting
from r1cli.errors import Exit, R1Error, nearest
from r1cli.guard import LAUNCHED, Context, Terminated, ignore_repeats, of_a_launch

INTERRUPT, TERMINATE, TIME = "interrupt", "terminate", "time"
REASONS = (None, TIME, INTERRUPT, TERMINATE)  # the last one wins where processes have different ones
UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


class NoTimeForAStep(R1Error):
    """The time limit came before the first step of this start (exit 1)."""


class Stopper:
    """Whether to end, and why. limit: seconds since `since` (both None: no limit), in which the run must have saved too. first_save: what a
    save is thought to take until there was one (`save_time.first_save`)."""

    def __init__(self, limit: float | None = None, since: float | None = None, first_save: float = 0.0) -> None:
        self._deadline = None if limit is None else (time.time() if since is None else since) + limit
        self._abandoned = False
        self._guess, self._saving = first_save, 0.0
        self._before: dict[int, Any] = {}
        self._taken: set[int] = set()
        self.reason: str | None = None

    def wanted(self, seconds: float = 0.0) -> bool:
        """Whether this process was asked to end, or would be past its time limit after `seconds` more and the longest save so far."""
        if self.reason is None and self._deadline is not None and time.time() + seconds + (self._saving or self._guess) > self._deadline:
            self.reason = TIME
        return self.reason is not None or self._abandoned

    def agreed(self, accelerator: Any, seconds: float = 0.0) -> bool:
        """The same answer on every process: all end when one wants to. Every process must call it at the same place."""
        from r1cli.train.agreement import highest  # brings torch

        self.wanted(seconds)
        number = highest(accelerator, REASONS.index(self.reason))
        if number:  # else a signal may have come while the processes spoke: it is for the next time
            self.reason = REASONS[number]
        return number > 0

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around a save, to know how long one takes."""
        started = time.perf_counter()
        yield
        self._saving = max(self._saving, time.perf_counter() - started)

    def abandon(self) -> None:
        """Make `wanted` true without a reason: work in another thread ends early."""
        self._abandoned = True

    def leave(self) -> None:
        """Raise what the guard turns into exit code 130 or 143, if a signal ended the run."""
        if self.reason == INTERRUPT:
            raise KeyboardInterrupt
        if self.reason == TERMINATE:
            raise Terminated

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number in self._taken:  # it came again before this had begun to ignore it
            return
        self._taken.add(number)
        if of_a_launch():
            signal.signal(number, signal.SIG_IGN)
        else:
            ignore_repeats(number)
        self.reason = INTERRUPT if number == signal.SIGINT else TERMINATE
        what, again = ("interrupted", "Ctrl-C again") if number == signal.SIGINT else ("terminated", "a second SIGTERM")
        kills = f"; {again} kills" if LAUNCHED is not None or not of_a_launch() else ""
        with suppress(OSError):  # whoever read stderr may be what went away
            os.write(2, f"{what}: saving what is done, then ending{kills}\n".encode())

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        if of_a_launch():
            starting.begun()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, old in self._before.items():
            if number not in self._taken:  # else repeats may still come, and must not change how this process ends
                signal.signal(number, old)


def check_alarms(text: str | None, known: Sequence[str]) -> None:
    """Refuse (`R1Error`, exit 2) a name in `--stop-on NAME,...` that is no alarm of the command."""
    for name in filter(None, (text or "").split(",")):
        if name not in known:
            raise R1Error(f"`--stop-on` knows no alarm `{name}`", hint=nearest(name, known), code=Exit.USAGE)


def raised_alarm(alarms: Sequence[Any], stop_on: str | None, step: int, warn: Callable[[str], None]) -> R1Error | None:
    """Say the alarms of a step (`train.alarms.Alarm`); the error to end with when --stop-on names one of them."""
    halt = None
    for alarm in alarms:
        warn(f"{alarm.name}: {alarm.text}; {alarm.fix}")
        if alarm.name in (stop_on or "").split(",") and halt is None:
            halt = R1Error(f"stopped at step {step} by --stop-on {alarm.name}: {alarm.text}", hint=alarm.fix)
    return halt


def seconds_of(text: str | None) -> float | None:
    """`3h30m`, `90m`, `1d`, `600` or `600s` in seconds. Raises `R1Error` (exit 2) for anything else."""
    if text is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", text):
        found = float(text)
    elif re.fullmatch(r"(\d+(\.\d+)?[dhms])+", text):
        found = sum(float(number) * UNITS[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)([dhms])", text))
    else:
        found = 0.0
    if found <= 0:
        raise R1Error(f"`--time-limit` must be a time, found `{text}`", hint="write 3h30m, 90m or a number of seconds", code=Exit.USAGE)
    return found


def say_unfinished(stopper: Stopper, context: Context, done: int, total: int, cost: str, *, before: int) -> None:
    """After a run that ended early and saved: raise what a signal asks for, or say how to go on after the time limit.

    before: steps of earlier starts. A limit that leaves time for none is an error: jobs that start one another would never end.
    """
    stopper.leave()
    if done == before:
        raise NoTimeForAStep(
            f"the time limit left no time for a step: {done} of {total} are done, {cost}", hint="raise --time-limit: loading counts as well"
        )
    following = f"next: {context.resume}" if context.resume else "this run cannot be resumed; its last checkpoint is a model like any other"
    context.console.summary([f"{context.command}: time limit reached after {done} of {total} steps, {cost}", following])
