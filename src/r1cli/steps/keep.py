"""Which completion rows stay, and why the others do not.

A filter is a generator rows -> rows that hands every dropped row, with its reason, to `Dropped`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from r1cli.errors import Exit, R1Error
from r1cli.row import Row
from r1cli.steps import condition

RULES = ("accuracy", "math", "choice", "code")
"""The rewards that tell right from wrong by a rule."""
JUDGE = "judge"
"""The score of a generative judge among a row's rewards."""
UNREADABLE = "judge_reply"
"""The field that keeps a judge's reply without a verdict."""
UNREAD = "the judge's verdict could not be read"
Reason = str
Judge = Callable[[Row], Reason | None]
"""A row -> why it is dropped; None keeps it."""


class Spec(Protocol):
    """What a filter reads of a `rewards.reward.RewardSpec`."""

    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def maximum(self) -> float | None: ...


class Dropped:
    """Counts dropped rows by reason and passes them on, with `rejected_because`, to whoever wants them."""

    def __init__(self, sink: Callable[[Row], None] | None = None) -> None:
        self.reasons: Counter[Reason] = Counter()
        self._sink = sink

    def add(self, row: Row, reason: Reason, **more: Any) -> None:
        """Count a row, and pass it on with its reason and `more` fields that explain it."""
        self.count(reason)
        if self._sink is not None:
            self._sink(row.with_fields(rejected_because=reason, **more))

    def count(self, reason: Reason) -> None:
        """Count a row that nobody wants to see."""
        self.reasons[reason] += 1

    def total(self) -> int:
        return self.reasons.total()


def judge_of(keep: str, specs: Iterable[Spec]) -> Judge:
    """`--keep` as a function. Raises `R1Error` (exit 2) for a condition it cannot read and for `passing` without a maximum to reach."""
    if keep == "all":
        return lambda row: None
    if keep == "passing":
        return _passing(list(specs))
    holds = condition.parse(keep)
    return lambda row: None if holds(row) else UNREAD if UNREADABLE in row else f"not {keep}"


def _passing(specs: list[Spec]) -> Judge:
    negative = next((spec.name for spec in specs if spec.weight < 0 and spec.maximum is not None), None)
    if negative is not None:
        raise R1Error(
            f"keeping what passes cannot judge `{negative}`: its weight is negative",
            hint=f"write a condition: --keep '{negative} < 0.5'",
            code=Exit.USAGE,
        )
    goals = {spec.name: spec.maximum for spec in specs if spec.maximum is not None}
    rules = [name for name in goals if name in RULES]
    if not goals:
        raise R1Error(
            "keeping what passes needs a reward with a maximum, and --rewards names none",
            hint="write a condition, or --keep all",
            code=Exit.USAGE,
        )

    def judge(row: Row) -> Reason | None:
        scores: dict[str, Any] = row["rewards"]
        if UNREADABLE in row:
            return UNREAD
        wanted = goals | ({JUDGE: 1.0} if JUDGE in scores else {})
        judged = [name for name in wanted if scores[name] is not None]
        if not judged or (rules and not any(name in judged for name in (*rules, JUDGE))):
            return "no reward could judge it"  # a null answer declares that: an unchecked row must not pass for a right one
        failed = [f"{name} below {wanted[name]:g}" for name in judged if scores[name] < wanted[name]]
        return " and ".join(failed) or None

    return judge


def keep_rows(rows: Iterable[Row], judge: Judge, dropped: Dropped) -> Iterator[Row]:
    """The rows the judge has nothing against, as they come."""
    for row in rows:
        reason = judge(row)
        if reason is None:
            yield row
        else:
            dropped.add(row, reason)
