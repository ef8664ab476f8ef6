"""Which of its two forms an SFT row is learnt in: `messages`, or `prompt` and `completion`.

A field that is null counts as absent: a table has every column in every row. Completions that r1 drew for rows of a data set stand beside
the data set's own `messages`, which pass through every command: the completion is what was drawn and verified, and what is learnt.
"""

from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.row import Row

NOTHING: tuple[Any, ...] = (None, "", "null", "[]", [], {})  # what data sets write into a column that a row does not use
MESSAGES, COMPLETION = "messages", "completion"


def form_of(row: Row) -> str:
    """`MESSAGES`, `COMPLETION`, or "" for a row with neither.

    Raises `R1Error` (exit 2) for a row with both that r1 did not draw: which of the two answers is meant, nobody here can tell.
    """
    messages, prompt, completion = (row.get(name) for name in ("messages", "prompt", "completion"))
    if messages is None or (messages == [] and prompt is not None and completion is not None):
        return COMPLETION if completion is not None else ""
    if prompt is None or completion is None:
        return MESSAGES
    if is_drawn(row):
        return COMPLETION
    if completion in NOTHING:
        return MESSAGES
    raise bad_row(
        row,
        "it has both `messages` and `prompt` with `completion`, and only one of them can be learnt",
        f"take one out: {without('messages')}; or `completion`, to learn the messages",
    )


def is_drawn(row: Row) -> bool:
    """Whether `r1 sample` made the completion of a row, or the row is what `r1 reject --to sft` made of such a one."""
    return isinstance(row.get("sample"), int) and any(isinstance(row.get(name), str) for name in ("finish_reason", "model"))


def without(field: str) -> str:
    """What to do to read rows without a field, for hints."""
    return f"--map unused={field} where every row has it, else jq -c 'del(.{field})'"


def bad_row(row: Row, what: str, fix: str) -> R1Error:
    """The error (exit 2) for a row that cannot be learnt, with its place and its id in front."""
    place = f"{row.where}: " if row.where else ""
    return R1Error(f"{place}row `{row.get('id')}`: {what}", hint=fix, code=Exit.USAGE)
