"""The language reward: the share of target-language words in the reasoning (DeepSeek-R1, section 2.3.2 and its supplement).

    reward = words of the target language / all words of the chain of thought, mathematics, code, URLs and tags left out

The target is the row's `language` field, else the option `target`, else the language of the prompt. A completion without a reasoning
block is judged as a whole. What a word is, and how Chinese and Japanese are counted, stands in `r1cli.text.language`.
"""

from collections.abc import Mapping
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.rewards.reward import Option, Reward, RewardKind
from r1cli.row import Row, require
from r1cli.text.language import LANGUAGES, count_words, main_language, normalise_language
from r1cli.text.question import prompt_text
from r1cli.text.think import opened_by, split


class LanguageReward(Reward):
    """A share in [0, 1]; linear time, the same for the same row in every process.

    target:  language of rows that name none, or None for the language of their prompt
    least:   reasonings below this many words earn `neutral`: too little to judge by. Emptiness is the format reward's business
    """

    name = "language"

    def __init__(self, target: str | None = None, neutral: float = 1.0, least: int = 8) -> None:
        self.target = normalise_language(target) if target else None
        self.neutral = neutral
        self.least = least

    def score(self, row: Row) -> float:
        completion = require(row, "completion", str)
        target = self._target(row)
        if target is None:
            return self.neutral
        parts = split(completion, opened_by(row.get("think_prefix")))
        counts = count_words(parts.reasoning or parts.rest, target)
        return counts.share if counts.words >= self.least else self.neutral

    def examine(self, row: Row) -> None:
        if row.get("language") is not None:  # else the prompt's own, which is slower to tell and never wrong
            self._target(row)

    def _target(self, row: Row) -> str | None:
        if row.get("language") is not None:
            try:
                return normalise_language(require(row, "language", str))
            except R1Error as error:
                where = f"{row.where}: " if row.where else ""
                raise R1Error(f"{where}row `{row.get('id')}`: {error.message}", hint=error.hint, code=Exit.USAGE) from None
        return self.target or main_language(prompt_text(row))


def _make(options: Mapping[str, Any]) -> Reward:
    return LanguageReward(options["target"] or None, options["neutral"], options["least"])


LANGUAGE = RewardKind(
    name="language",
    summary="the reasoning is in the target language",
    formula="words of the target language / all words of the reasoning; mathematics, code, URLs and tags are no words",
    example="language=zh=0.5",
    make=_make,
    fields=("completion", "language?", "prompt?", "think_prefix?"),
    options=(
        Option("target", str, "", "language of rows without a `language` field (default: that of their prompt)", ("", *LANGUAGES)),
        Option("neutral", float, 1.0, "reward of a reasoning too short to judge, and of rows whose target cannot be told"),
        Option("least", int, 8, "fewest words that are judged"),
    ),
    mode="target",
)
