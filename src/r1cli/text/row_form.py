"""Which of its two forms an SFT row is learnt in: `messages`, or `prompt` and `completion`.

A field that is null counts as absent: a table has every column in every row. Completions that r1 drew for rows of a data set stand beside
the data set's own `messages`, which pass through every command: the completion is what was drawn and verified, and what is learnt.

Fields beside the conversation that other trainers read are refused where leaving them out would change what is learnt. Of a row that r1
drew they are not: they are the prompt row's, the completion was drawn without them, and is learnt as it was drawn.
"""

from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.row import Prompt, Row, messages_of

NOTHING: tuple[Any, ...] = (None, "", "null", "[]", [], {})  # what data sets write into a column that a row does not use
_LOST = {"functions": "r1 does not train tool calls", "chat_template_kwargs": "r1 renders every row by the template alone"}
_SYSTEM = ("system", "developer")
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
    if is_drawn(row) and row.get("finish_reason") is not None:
        return COMPLETION
    if completion in NOTHING:
        return MESSAGES
    raise bad_row(
        row,
        "it has both `messages` and `prompt` with `completion`, and only one of them can be learnt",
        f"take one out: {without('messages')}; or `completion`, to learn the messages",
    )


def check_nothing_lost(row: Row, messages: Prompt) -> None:
    """Refuse (`R1Error`, exit 2) fields that change what is learnt elsewhere and would do nothing here. messages: the conversation."""
    if is_drawn(row):
        return
    for field, why in _LOST.items():
        if _is_used(row.get(field)):
            raise bad_row(
                row, f"it has a field `{field}`, and {why}", f"take it out: {without(field)}; or leave such rows out with --skip-bad"
            )
    for field in ("weight", "weights"):
        value = row.get(field)
        for weight in value if isinstance(value, list) else [value]:
            if isinstance(weight, int | float) and weight != 1:
                fix = f"leave out rows (jq -c 'select(.weight != 0)'), or take the field out: {without(field)}"
                raise bad_row(row, f"it has `{field}` {value}, and r1 learns every row alike", fix)
    system = row.get("system")
    if (
        not isinstance(system, str)
        or not system.strip()
        or any(m.get("role") in _SYSTEM for m in messages_of(messages) if isinstance(m, dict))
    ):
        return
    into, there = ("messages", ".messages") if form_of(row) == MESSAGES else ("prompt", ".prompt")
    if isinstance(row.get(into), str):
        there = '[{role: "user", content: .prompt}]'
    put = f"jq -c '.{into} = [{{role: \"system\", content: .system}}] + {there} | del(.system)'"
    what = "it has a field `system`, and no system message: r1 learns the conversation alone"
    raise bad_row(row, what, f"put it in front: {put}; or take it out: {without('system')}")


def _is_used(value: Any) -> bool:
    """Whether a column says anything in this row: an object of which every field is null does not."""
    return value not in NOTHING and not (isinstance(value, dict) and all(each is None for each in value.values()))


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
