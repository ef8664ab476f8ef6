"""Which completion rows stay, and why the others do not.

A filter is a generator rows -> rows that hands every dropped row, with its reason, to `Dropped`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from r1cli.errors import Exit, R1Error
from r1cli.row import Row
from r1cli.steps import condition

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

    def add(self, row: Row, reason: Reason) -> None:
        self.reasons[reason] += 1
        if self._sink is not None:
            self._sink(row.with_fields(rejected_because=reason))

    def total(self) -> int:
        return self.reasons.total()


def judge_of(keep: str, specs: Iterable[Spec]) -> Judge:
    """`--keep` as a function. Raises `R1Error` (exit 2) for a condition it cannot read and for `passing` without a maximum to reach."""
    if keep == "all":
        return lambda row: None
    if keep == "passing":
        return _passing(list(specs))
    holds = condition.parse(keep)
    return lambda row: None if holds(row) else f"not {keep}"


def _passing(specs: list[Spec]) -> Judge:
    negative = next((spec.name for spec in specs if spec.weight < 0 and spec.maximum is not None), None)
    if negative is not None:
        raise R1Error(
            f"`--keep passing` cannot judge `{negative}`: its weight is negative",
            hint=f"write a condition: --keep '{negative} < 0.5'",
            code=Exit.USAGE,
        )
    goals = {spec.name: spec.maximum for spec in specs if spec.maximum is not None}
    if not goals:
        raise R1Error(
            "`--keep passing` needs a reward with a maximum, and --rewards names none",
            hint="write a condition, or --keep all",
            code=Exit.USAGE,
        )

    def judge(row: Row) -> Reason | None:
        scores: dict[str, Any] = row["rewards"]
        judged = [name for name in goals if scores[name] is not None]
        if not judged:
            return "no reward could judge it"  # a null answer declares that: an unchecked row must not pass for a right one
        failed = [f"{name} below {goals[name]:g}" for name in judged if scores[name] < goals[name]]
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
