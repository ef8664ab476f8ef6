"""What is said of a reward that raised: where in whose file, on which completion, and what its traceback was."""

import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import r1cli
from r1cli.errors import Exit
from r1cli.rewards.reward import Reward
from r1cli.row import Row

SHOWN = 80  # characters of a completion
OURS = Path(r1cli.__file__).parent


def reply_of(error: Exception, reward: Reward, rows: Sequence[Row]) -> dict[str, Any]:
    """A worker's reply about an exception of the reward: message, hint and exit code, and the traceback that --debug shows."""
    row = rows[0]
    where = row.where or f"row `{row.get('id', '?')}`"
    among = f"{len(rows)} rows from {where} on" if len(rows) > 1 else where  # a batch is one call: which of its rows it was, only it knows
    said = " ".join(str(error).split())[:300]
    what = f"reward `{reward.name}` failed on {among}: {type(error).__name__}" + (f": {said}" if said else "")
    asked = f"it was asked about {_completion(row)}" + (" and those after it" if len(rows) > 1 else "")
    if ":" in _source_of(reward):
        what, hint = what + _place(error, _source_of(reward)), f"{asked}; --debug shows the whole traceback"
    else:  # one of ours
        hint = f"{asked}; this is a bug of r1: run it again with --debug and report the traceback"
    trace = "".join(traceback.format_exception(error)).rstrip()
    return {"error": what, "hint": hint, "code": int(Exit.FAILED), "trace": f"In the reward's own process:\n{trace}"}


def _source_of(reward: Reward) -> str:
    """`file.py:function` or `module:function` of a user's own reward; "" for one of ours."""
    return str(getattr(reward, "source", ""))


def _place(error: Exception, source: str) -> str:
    """Where it raised: the innermost line of the user's own file that it went through, else the innermost that is not of r1."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not Path(frame.filename).is_relative_to(OURS)]
    place = source.rpartition(":")[0]
    file = place if place.endswith(".py") else getattr(sys.modules.get(place), "__file__", None) or place
    own = [frame for frame in frames if os.path.realpath(frame.filename) == os.path.realpath(file)]
    if not frames:  # the call itself did not fit: nothing of the function has run
        return f", when `{source}` was called"
    frame = (own or frames)[-1]
    name = Path(frame.filename)
    shown = place if own and place.endswith(".py") else os.path.relpath(name) if name.is_relative_to(Path.cwd()) else frame.filename
    return f", in {shown}:{frame.lineno}" + ("" if frame.name.startswith("<") else f" (`{frame.name}`)")


def _completion(row: Row) -> str:
    text = row.get("completion")
    shown = json.dumps(text if text is None or len(str(text)) <= SHOWN else str(text)[:SHOWN] + "...", ensure_ascii=False)
    return f"the completion {shown}" + (f" (sample {row['sample']})" if "sample" in row else "")
