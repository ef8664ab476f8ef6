"""A generative judge as a step: rows that no rule could judge get a score `judge`, pairs get a margin.

The model is anything that answers prompt rows (`asking.Ask`). Replies that cannot be read are counted in `unreadable`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from r1cli.row import Row
from r1cli.steps import verdict
from r1cli.steps.asking import Ask, Question, asked
from r1cli.steps.keep import JUDGE, RULES, UNREADABLE

GOLD = ("reference", "answer", "solution")  # fields looked through for the reference answer, in this order


class Judge:
    """asked, unreadable: rows (or pairs) it was asked about so far, and how many of them it gave no readable verdict on.

    wants: which scored rows it is asked about; by default those for which every rule (`keep.RULES`) is null or not among the rewards.
    """

    def __init__(self, ask: Ask, *, wants: Callable[[Row], bool] | None = None) -> None:
        self.asked = self.unreadable = 0
        self._ask = ask
        self._wants = wants or without_rule

    def grade(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Scored rows in, the same rows out in the same order with `rewards.judge`: 1, 0, or null for a row it was not asked about and for
        a reply that cannot be read, which `judge_reply` then holds. `reward` rises by it. A completion without an answer is 0 unasked.
        """
        for row, replies in asked(rows, self._ask, self._questions):
            wanted = self._wants(row)
            self.asked += wanted
            score = None if not wanted else verdict.read_grade(replies[0]) if replies else 0.0
            fresh = row if UNREADABLE not in row else Row({k: v for k, v in row.items() if k != UNREADABLE}, where=row.where)
            graded = fresh.with_fields(rewards={**row["rewards"], JUDGE: score}, reward=row["reward"] + (score or 0.0))
            if wanted and score is None:
                self.unreadable += 1
                graded = graded.with_fields(**{UNREADABLE: replies[0]["completion"]})
            yield graded

    def margins(self, pairs: Iterable[tuple[Row, Row]]) -> Iterator[tuple[Row, Row, float | None]]:
        """Pairs with how much better the first one is, by the mean of four comparisons with the order swapped in every other one."""

        def questions(pair: tuple[Row, Row]) -> list[Question]:
            name = f"{_name(pair[0])}/{pair[1].get('sample')}"
            return [(f"{name}/{number}", messages) for number, messages in enumerate(verdict.comparisons(*pair))]

        for (first, second), replies in asked(pairs, self._ask, questions):
            self.asked += 1
            margin = verdict.read_margin(replies)
            self.unreadable += margin is None
            yield first, second, margin

    def refusals(self, rows: Iterable[Row], right: Callable[[Row, bool], float], name: str) -> Iterator[Row]:
        """Scored rows with `rewards[name]` by the judge: right(row, whether it refuses); null where it cannot be read, or has no answer."""

        def questions(row: Row) -> list[Question]:
            return [(f"{_name(row)}/refusal", verdict.refusal(row))] if verdict.answer_shown(row) else []

        for row, replies in asked(rows, self._ask, questions):
            self.asked += bool(replies)
            refuses = verdict.read_refusal(replies[0]) if replies else None
            judged = row
            if replies and refuses is None:
                self.unreadable += 1
                judged = row.with_fields(**{UNREADABLE: replies[0]["completion"]})
            score = None if refuses is None else right(row, refuses)
            before = row["rewards"][name]
            yield judged.with_fields(rewards={**row["rewards"], name: score}, reward=row["reward"] - (before or 0.0) + (score or 0.0))

    def _questions(self, row: Row) -> list[Question]:
        if not self._wants(row) or not verdict.answer_shown(row):
            return []
        return [(f"{_name(row)}/judge", verdict.grading(row, gold_of(row)))]


def without_rule(row: Row) -> bool:
    """Whether no rule has judged a scored row."""
    scores: dict[str, Any] = row["rewards"]
    return all(scores.get(name) is None for name in RULES)


def gold_of(row: Row) -> str | None:
    """The reference answer of a row: the first of the fields `GOLD` that holds text (or a number)."""
    for name in GOLD:
        value = row.get(name)
        if isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
            return str(value)
    return None


def _name(row: Row) -> str:
    return f"{row.get('id')}/{row.get('sample')}"
