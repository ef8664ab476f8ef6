"""The choice reward: 1 when the completion commits to the right option of a multiple-choice question (MMLU, ARC, GPQA), else 0.

What counts as committing stands in `r1cli.text.choice_answer`; how options are given and shuffled in `r1cli.text.choices`.
"""

from collections.abc import Mapping
from typing import Any

from r1cli.rewards.reward import Reward, RewardKind
from r1cli.row import Row, require
from r1cli.text.choice_answer import chosen
from r1cli.text.choices import gold_of, options_of
from r1cli.text.think import opened_by


class ChoiceReward(Reward):
    """1.0 or 0.0; None for a row whose `answer` is null. Linear time."""

    name = "choice"

    def score(self, row: Row) -> float | None:
        completion = require(row, "completion", str)
        if require(row, "answer", str, int, type(None)) is None:
            return None
        options = options_of(row)
        gold = gold_of(row, options)
        return float(chosen(completion, options, opened_by(row.get("think_prefix"))) == gold)


def _make(options: Mapping[str, Any]) -> Reward:
    return ChoiceReward()


CHOICE = RewardKind(
    name="choice",
    summary="the completion commits to the right option",
    formula="1 if the one option named by the answer (label, label with text, or full text) is the row's `answer`, else 0",
    example="choice",
    make=_make,
    fields=("completion", "answer", "choices?", "prompt?", "think_prefix?"),
)
