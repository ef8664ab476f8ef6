"""When a run began: the day that chat templates print, also in its other processes and when --resume goes on with it.

Llama 3's templates print today's date. A run that went on the next day would render other rows than those it was trained on.
"""

import os
import time
from datetime import datetime

_BEGAN = "R1CLI_BEGAN"  # for the processes that this one starts


def began() -> float:
    """Seconds since the epoch."""
    return float(os.environ.setdefault(_BEGAN, repr(time.time())))


def go_back(to: float) -> None:
    """Go on with what began then."""
    os.environ[_BEGAN] = repr(to)


def strftime_now(form: str) -> str:
    """What chat templates call under this name."""
    return datetime.fromtimestamp(began()).strftime(form)


def for_template(template: object) -> dict[str, object]:
    """What a chat template that asks for the time is rendered with; nothing for another, whose tokenizer may not take it."""
    return {"strftime_now": strftime_now} if "strftime_now" in str(template) else {}
