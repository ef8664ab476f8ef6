"""Several processes, one command: which of them is the first, and who may speak.

r1 grpo --num-processes 2 ...            starts them itself (`launch.py`)
accelerate launch -m r1cli grpo ...      every process runs the command; only the first one writes and speaks
"""

import ctypes
import dataclasses
import os
import signal
import sys
from typing import Any

from r1cli import clock
from r1cli.commands import launch, starting
from r1cli.commands.piped import pipes_of, refuse_sharing, refuse_twice
from r1cli.engines import watchdog
from r1cli.guard import LAUNCHED, Context, Terminated, leave_note, of_a_launch
from r1cli.io import run_dir
from r1cli.report.console import Console

PR_SET_PDEATHSIG = 1


def is_first() -> bool:
    """Whether this is the only process, or the first one of a launch."""
    return os.environ.get("RANK", "0") == "0"


def starts_others(settings: Any, context: Context) -> bool:
    """Whether the command is done because this process had others do it."""
    pipes = pipes_of(settings) if LAUNCHED is None else []  # who started this has read them
    refuse_twice(pipes)
    if not launch.wanted(settings):
        _take_part(pipes)
        return False
    launch.start(settings, context)
    return True


def _take_part(inputs: list[str]) -> None:
    """Be one of several processes: end with the one that started this, and refuse pipes that all would share."""
    if of_a_launch():
        starting.listen()
    if LAUNCHED is not None:
        watchdog.tell = leave_note
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.environ.pop(launch.LAUNCHER, str(os.getppid())) != str(os.getppid()):  # it died before that, and no signal will come
            raise Terminated
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        refuse_sharing(inputs)


def of_process(context: Context) -> Context:
    """The context with a silent console in every process but the first of a launch."""
    return context if is_first() else dataclasses.replace(context, console=Console(quiet=2, progress=False))


def check_unused(settings: Any, command: str) -> None:
    """Refuse a used run directory early; one that goes on has the time at which it began. Only the first process looks whether it is used:
    by the time another one does, it may be this very run's."""
    if settings.resume and not settings.force:
        clock.go_back(run_dir.began(settings.out) or clock.began())
    if is_first():
        run_dir.check_unused(settings.out, command=command, settings=settings, resume=settings.resume, force=settings.force)
