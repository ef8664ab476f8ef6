"""Several processes, one command: which of them is the first, and who may speak.

accelerate launch -m r1cli grpo ...      every process runs the command; only the first one writes and speaks
"""

import dataclasses
import os

from r1cli.guard import Context
from r1cli.io import run_dir
from r1cli.report.console import Console


def is_first() -> bool:
    """Whether this is the only process, or the first one of a launch."""
    return os.environ.get("RANK", "0") == "0"


def of_process(context: Context) -> Context:
    """The context with a silent console in every process but the first of a launch."""
    return context if is_first() else dataclasses.replace(context, console=Console(quiet=2, progress=False))


def check_unused(out: str, *, resume: bool, force: bool) -> None:
    """Refuse a used run directory early. Only the first process looks: by the time another one does, it may be this very run's."""
    if is_first():
        run_dir.check_unused(out, resume=resume, force=force)
