"""The format reward: 1 when a completion has the asked-for shape, 0 when not.

r1-zero  `<think>reasoning</think><answer>answer</answer>` and nothing else but blanks (DeepSeek-R1, section 2.2.2 and table 1)
r1       `<think>reasoning</think>summary` (the cold-start pattern; the summary may hold an answer pair)
any      either of them

Empty reasoning, an empty answer, text before the reasoning, and repeated, nested or unclosed tags give 0. A row whose `think_prefix` says
that the prompt opened the reasoning is judged as if the completion began with the tag.
"""

from collections.abc import Mapping
from typing import Any

from r1cli.rewards.reward import Option, Reward, RewardKind
from r1cli.row import Row, require
from r1cli.text.think import Tags, opened_by, split


class FormatReward(Reward):
    """1.0 or 0.0; linear time."""

    name = "format"

    def __init__(self, style: str = "any", think: str = "think", answer: str = "answer") -> None:
        self.style = style
        self.think: Tags = (f"<{think}>", f"</{think}>")
        self.answer: Tags = (f"<{answer}>", f"</{answer}>")

    def score(self, row: Row) -> float:
        completion = require(row, "completion", str)
        if row.get("finish_reason") == "length":
            return 0.0  # cut off: whatever it would have become, it is not finished
        parts = split(completion, opened_by(row.get("think_prefix"), self.think), self.think, self.answer)
        if not parts.well_formed:
            return 0.0
        starts, ends = (completion.count(tag) for tag in self.answer)
        if starts == ends == 0:
            return float(self.style != "r1-zero")
        return float(starts == ends == 1 and self._answer_fits(parts.rest, parts.answer))

    def _answer_fits(self, rest: str, answer: str | None) -> bool:
        if not answer or not answer.strip():
            return False
        before, after = rest.partition(self.answer[0])[0], rest.partition(self.answer[1])[2]
        return self.style != "r1-zero" or not (before.strip() or after.strip())


def _make(options: Mapping[str, Any]) -> Reward:
    return FormatReward(options["style"], options["think"], options["answer"])


FORMAT = RewardKind(
    name="format",
    summary="the completion has the shape <think>...</think> and then an answer",
    formula="1 if one non-empty reasoning block opens the completion and an answer follows, else 0",
    example="format=0.5:style=r1-zero",
    make=_make,
    fields=("completion", "think_prefix?"),
    options=(
        Option("style", str, "any", "r1-zero: an answer pair and nothing else; r1: a summary; any: either", ("any", "r1-zero", "r1")),
        Option("think", str, "think", "name of the reasoning tag"),
        Option("answer", str, "answer", "name of the answer tag"),
    ),
    mode="style",
)
