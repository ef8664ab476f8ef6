"""Preference rows -> what is compared or labelled: a reply to a prompt, twice or once.

prompt, chosen, rejected       r1's and TRL's pairs: texts, or lists of messages of which the last is the assistant's
chosen, rejected               TRL's implicit prompt: whole conversations, or whole texts (with --template raw)
prompt, completion, label      one completion and whether it is good: 0 or 1, false or true, "unsafe" or "safe" (TRL: unpaired)
"""

import math
from dataclasses import dataclass
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.row import Prompt, Row, messages_of, not_text, prompt_key, require
from r1cli.text.prompts import TEXT_FIX
from r1cli.text.row_form import without
from r1cli.text.think import opened_by, split

LABELS: dict[str, float] = {"unsafe": 0.0, "safe": 1.0}


@dataclass(frozen=True, slots=True)
class Reply:
    """What an assistant wrote, and what stood before it. whole: the prompt is None, the text holds prompt and reply."""

    prompt: Prompt | None
    text: str

    def summary(self) -> str:
        """What follows the reasoning, the whole text when there is none, "" when the reasoning does not end."""
        return split(self.text).rest.strip()


@dataclass(frozen=True, slots=True)
class Judged:
    """A row's replies, the better one first, with a margin; or one reply with its label."""

    row: Row
    replies: tuple[Reply, ...]
    target: float

    @property
    def is_pair(self) -> bool:
        return len(self.replies) == 2

    def prompt_key(self) -> str:
        """The same for rows about one prompt."""
        prompt = self.replies[0].prompt
        if prompt is None:
            return _common_start([reply.text for reply in self.replies])
        return prompt_key(prompt)


def is_preference(row: Row) -> bool:
    """Whether a row looks like one to train a reward model on."""
    return _is_pair(row) or (row.get("label") is not None and row.get("completion") is not None)


def _is_pair(row: Row) -> bool:
    """A field that is null counts as absent."""
    return row.get("chosen") is not None or row.get("rejected") is not None


def judged(row: Row, margin: str | None = None) -> Judged:
    """What a row says. margin: the field with a pair's margin, if one is asked for. Raises `R1Error` (exit 2) naming line and field."""
    labelled = row.get("label") is not None and row.get("completion") is not None
    if _is_pair(row) and labelled:
        raise _wrong(
            row,
            "it has both `chosen` and `rejected`, and `completion` with `label`: only one of them can be learnt",
            f"take one out: {without('label')}; or `chosen` and `rejected`",
        )
    if _is_pair(row):
        replies = tuple(_reply(row, side) for side in ("chosen", "rejected"))
        return Judged(row, replies, 0.0 if margin is None else _number(row, margin))
    if "label" in row:
        if margin is not None:
            raise _wrong(row, f"has a label and no pair: --margin {margin} means nothing for it", "leave --margin out")
        return Judged(row, (_reply(row, "completion"),), _label(row))
    raise R1Error(
        f"{row.where}: row `{row.get('id')}` has neither `chosen` and `rejected` nor `completion` and `label`; it has {', '.join(row)}",
        hint="rename a column with --map chosen=COLUMN",
        code=Exit.USAGE,
    )


def _reply(row: Row, side: str) -> Reply:
    value = require(row, side, str, list)
    prompt = None if row.get("prompt") is None else require(row, "prompt", str, list)
    for field, found in (("prompt", prompt), (side, value)):
        said = [message.get("content") for message in found if isinstance(message, dict)] if isinstance(found, list) else []
        for wrong in filter(None, map(not_text, said)):
            raise _wrong(row, f"field `{field}` has a `content` with {wrong}, and r1 reads text", TEXT_FIX)
    if isinstance(value, str):
        if side == "completion" and opened_by(row.get("think_prefix")):
            value = row["think_prefix"] + value if isinstance(row["think_prefix"], str) else "<think>" + value
        return Reply(prompt, value)
    messages = messages_of([*([] if prompt is None else messages_of(prompt)), *value])
    if len(messages) < 2 or not all(isinstance(message, dict) and "role" in message for message in messages):
        raise _wrong(row, f"field `{side}` is not a conversation", 'messages are {"role": "user", "content": "..."}, the assistant\'s last')
    last = messages[-1]
    if last["role"] != "assistant" or not isinstance(last.get("content"), str):
        raise _wrong(row, f"field `{side}` does not end with a text of the assistant", "a reward model scores the assistant's last message")
    return Reply(messages[:-1], last["content"])


def _common_start(texts: list[str]) -> str:
    first, last = min(texts), max(texts)
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def _number(row: Row, field: str) -> float:
    value = require(row, field, int, float)
    if isinstance(value, bool) or not math.isfinite(value):
        raise _wrong(row, f"field `{field}` is no margin: {value}", "a margin is a number; take another field with --margin FIELD")
    return float(value)


def _label(row: Row) -> float:
    value: Any = row["label"]
    found = LABELS.get(value) if isinstance(value, str) else float(value) if isinstance(value, bool | int | float) else None
    if found not in (0.0, 1.0):
        raise _wrong(row, f"field `label` must be 0 or 1 (unsafe or safe), found {value!r}", "mend it, or take another column with --map")
    return found


def _wrong(row: Row, what: str, hint: str) -> R1Error:
    return R1Error(f"{row.where}: row `{row.get('id')}`: {what}", hint=hint, code=Exit.USAGE)
