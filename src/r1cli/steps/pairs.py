"""Preference pairs: two completions of one prompt, the better one first.

By scores, `chosen` is a row that is kept and `rejected` one of the same prompt with a lower reward that is not (with `--keep all`: any
with a lower reward). By a judge (DeepSeek-R1's helpful pairs), any two kept rows are compared, and a pair stays when the mean margin of the
four comparisons is above a threshold. A completion is in one pair at most. Rows wait on disk (`Spool`).
"""

import bisect
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import Any

from r1cli.row import Row
from r1cli.steps.judge import Judge
from r1cli.steps.keep import UNREAD, Dropped
from r1cli.steps.pick import chance, length_of
from r1cli.steps.spool import Spool

PICKS = ("random", "best", "shortest", "longest")
BALANCED = 0.05  # most that the mean lengths of chosen and rejected may differ, as a share of the longer one
ALONE = "not in a pair: the prompt has no completion to set against it"
ENOUGH = "not in a pair: the prompt has others"
_OF_THE_SAMPLE = ("completion", "sample", "think_prefix", "finish_reason", "num_tokens", "seed", "rewards", "reward", "judge_reply")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A completion that may be in a pair. number: its place in the spool; kept: whether `--keep` has nothing against it."""

    number: int
    kept: bool
    reward: float
    length: int
    chance: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Two completions, the better one first; with a judge `margin` says by how much, else it is the difference of the rewards."""

    chosen: Candidate
    rejected: Candidate
    margin: float

    @property
    def surplus(self) -> int:
        """How much longer the chosen one is."""
        return self.chosen.length - self.rejected.length


class Pairing:
    """Collects scored rows, then gives preference rows. A context manager (of the rows on disk).

    how: which pairs of a prompt: "random" (seeded), "best" (largest difference of rewards), "shortest" or "longest" (chosen one).
    per_prompt: most pairs a prompt, 0 is all. everything: `--keep all`. balance: see `balanced`.
    """

    def __init__(self, *, per_prompt: int, how: str, seed: int, everything: bool, balance: bool, dropped: Dropped) -> None:
        self._per_prompt = per_prompt or sys.maxsize
        self._how, self._seed, self._everything, self._balance = how, seed, everything, balance
        self._dropped = dropped
        self._spool = Spool()
        self._groups: dict[Any, list[Candidate]] = {}
        self._unpaired: dict[int, str] = {}

    def add(self, row: Row, reason: str | None) -> None:
        """Take in a scored row and what `--keep` has against it (None: nothing)."""
        number = self._spool.add(row)
        candidate = Candidate(number, reason is None, row["reward"], length_of(row), chance(row, self._seed))
        self._groups.setdefault(row.get("id"), []).append(candidate)
        self._unpaired[number] = reason or ALONE

    def rows(self, judge: Judge | None = None, margin: float = 0.0) -> Iterator[Row]:
        """The preference rows; every row that is in none is handed to `dropped` at the end."""
        pairs: Iterable[Pair] = self._by_scores() if judge is None else self._judged(judge, margin)
        for pair in self._balanced(list(pairs)) if self._balance else pairs:
            for candidate in (pair.chosen, pair.rejected):
                del self._unpaired[candidate.number]
            yield preference(self._spool.row(pair.chosen.number), self._spool.row(pair.rejected.number), pair.margin)
        for group in self._groups.values():
            paired = any(candidate.number not in self._unpaired for candidate in group)
            for candidate in group:
                reason = self._unpaired.get(candidate.number)
                if reason is not None:
                    self._dropped.add(self._spool.row(candidate.number), ENOUGH if paired and reason == ALONE else reason)

    def _by_scores(self) -> Iterator[Pair]:
        surplus = 0
        for group in self._in_order():
            possible = [Pair(one, other, one.reward - other.reward) for one, other in permutations(group, 2) if self._better(one, other)]
            for _ in range(self._per_prompt):
                if not possible:
                    break
                best = min(possible, key=partial(self._rank, surplus if self._balance else None))
                surplus += best.surplus
                used = {best.chosen.number, best.rejected.number}
                possible = [pair for pair in possible if not used & {pair.chosen.number, pair.rejected.number}]
                yield best

    def _better(self, one: Candidate, other: Candidate) -> bool:
        return one.kept and one.reward > other.reward and (self._everything or not other.kept)

    def _rank(self, surplus: int | None, pair: Pair) -> tuple[Any, ...]:
        """What comes first among the pairs of a prompt; `surplus`: how much longer the chosen ones are so far, None: no matter."""
        even = 0 if surplus is None else abs(surplus + pair.surplus)
        by = {"best": -pair.margin, "shortest": pair.chosen.length, "longest": -pair.chosen.length}.get(self._how, 0)
        return even, by, pair.chosen.chance ^ pair.rejected.chance, pair.chosen.number

    def _judged(self, judge: Judge, margin: float) -> Iterator[Pair]:
        waiting: list[tuple[Candidate, Candidate]] = []

        def pairs() -> Iterator[tuple[Row, Row]]:
            for group in self._in_order():
                kept = [candidate for candidate in group if candidate.kept]
                for one, other in list(zip(kept[::2], kept[1::2], strict=False))[: self._per_prompt]:
                    waiting.append((one, other))
                    yield self._spool.row(one.number), self._spool.row(other.number)

        for place, (_, _, found) in enumerate(judge.margins(pairs())):
            one, other = waiting[place]
            if found is None or abs(found) <= margin:
                reason = UNREAD if found is None else f"not in a pair: a mean margin of {margin:g} or less"
                self._unpaired[one.number] = self._unpaired[other.number] = reason
            else:
                yield Pair(one, other, found) if found > 0 else Pair(other, one, -found)

    def _in_order(self) -> Iterator[list[Candidate]]:
        """The prompts' completions in an order that does not depend on the input's."""
        groups = sorted(self._groups.values(), key=lambda group: min(candidate.chance for candidate in group))
        return (sorted(group, key=lambda candidate: (candidate.chance, candidate.number)) for group in groups)

    def _balanced(self, pairs: list[Pair]) -> list[Pair]:
        stay = balanced(pairs)
        kept = set(stay)
        for pair in pairs:
            if pair not in kept:
                self._unpaired[pair.chosen.number] = self._unpaired[pair.rejected.number] = "not in a pair: left out to balance lengths"
        return stay

    def __enter__(self) -> "Pairing":
        return self

    def __exit__(self, *error: Any) -> None:
        self._spool.__exit__(*error)


def balanced(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs of which the mean lengths of chosen and rejected are within `BALANCED` of each other, in the same order."""
    gone = uneven([(pair.chosen.length, pair.rejected.length) for pair in pairs])
    return [pair for place, pair in enumerate(pairs) if place not in gone]


def uneven(lengths: Sequence[tuple[int, int]]) -> set[int]:
    """Places of the pairs to leave out so that the mean lengths of chosen and rejected are within `BALANCED` of each other.

    Each time the pair goes that takes most of the difference away without turning it round, so that few are lost.
    """
    chosen, rejected = (sum(pair[side] for pair in lengths) for side in (0, 1))
    surplus = [one - other for one, other in lengths]
    sides = {sign: sorted((sign * more, place) for place, more in enumerate(surplus) if sign * more > 0) for sign in (1, -1)}
    gone: set[int] = set()
    while abs(chosen - rejected) > BALANCED * max(chosen, rejected):
        left = sides[1 if chosen > rejected else -1]
        _, place = left.pop(max(0, bisect.bisect_right(left, (abs(chosen - rejected), len(lengths))) - 1))
        gone.add(place)
        chosen -= lengths[place][0]
        rejected -= lengths[place][1]
    return gone


def preference(chosen: Row, rejected: Row, margin: float) -> Row:
    """One preference row: the prompt, both texts as they stood (with what the prompt had opened), what the two rows share, and of each
    its sample, reward and tokens.
    """
    fields: dict[str, Any] = {"id": chosen.get("id"), "prompt": chosen.get("prompt")}
    for side, row in (("chosen", chosen), ("rejected", rejected)):
        fields[side] = (row.get("think_prefix") or "") + row["completion"]
    fields |= {
        name: value for name, value in chosen.items() if name not in _OF_THE_SAMPLE and name not in fields and rejected.get(name) == value
    }
    fields["margin"] = margin
    for side, row in (("chosen", chosen), ("rejected", rejected)):
        fields |= {f"{side}_{name}": row[name] for name in ("sample", "reward", "num_tokens") if name in row}
    return Row(fields, where=chosen.where)
