"""Prompts of several sources at given shares: 50% reasoning, 30% general, 20% safety in every rollout and in every step.

Which source each prompt comes from is one endless sequence, a function of the shares alone: the next prompt is of the source that is
furthest behind its share. What a share leaves over in one step is made up for in the next: 32 prompts at 0.3 are 9 or 10, and 9.6 on
average.
"""

import random
from collections import Counter
from collections.abc import Sequence

from r1cli.train.order import next_rows


class Sequencer:
    """The sequence of sources for fixed shares (positive numbers, scaled to a sum of 1). It grows as far as it is asked for."""

    def __init__(self, shares: Sequence[float]) -> None:
        total = sum(shares)
        self._shares = [share / total for share in shares]
        self._owed = [0.0] * len(shares)
        self._sequence: list[int] = []

    def stretch(self, start: int, count: int) -> list[int]:
        """The sources of `count` prompts after the first `start`."""
        while len(self._sequence) < start + count:
            self._owed = [owed + share for owed, share in zip(self._owed, self._shares, strict=True)]
            chosen = max(range(len(self._owed)), key=lambda i: (self._owed[i], -i))
            self._owed[chosen] -= 1.0
            self._sequence.append(chosen)
        return self._sequence[start : start + count]


_sequencers: dict[tuple[float, ...], Sequencer] = {}


def shared_rows(counts: Sequence[int], shares: Sequence[float], taken: int, wanted: int, seed: str) -> list[tuple[int, int]]:
    """(source, row) of the next `wanted` prompts, when `taken` were taken before; each source in shuffled epochs of its own.

    counts: rows of each source. The order within the draw is shuffled, so that processes that share it get like mixtures.
    """
    sequencer = _sequencers.setdefault(tuple(shares), Sequencer(shares))
    before, drawn = Counter(sequencer.stretch(0, taken)), Counter(sequencer.stretch(taken, wanted))
    chosen = [
        (source, row)
        for source, number in sorted(drawn.items())
        for row in next_rows(counts[source], before[source], number, f"{seed}/source {source}")
    ]
    random.Random(f"{seed}/{taken}").shuffle(chosen)
    return chosen
