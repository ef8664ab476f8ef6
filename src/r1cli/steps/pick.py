"""At most so many rows a prompt: random, shortest, longest, best or diverse.

The rows of one prompt need not stand together (a sampler gives them back as they end), so nothing can be picked before the input ends.
Rows wait on disk; what is held in memory is a rank for each row that may still be picked, about 200 bytes.
"""

import bisect
import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from r1cli.row import Row, dump, require
from r1cli.steps.keep import Dropped
from r1cli.steps.spool import Spool
from r1cli.text.repetition import words_of

PICKS = ("random", "shortest", "longest", "best", "diverse")
SHINGLE = 3  # words
Rank = Callable[[Row], Any]
Entry = tuple[Any, int]  # (rank, number in the spool)


def pick_rows(rows: Iterable[Row], per_prompt: int, how: str, seed: int, dropped: Dropped) -> Iterator[Row]:
    """`per_prompt` rows of each `id`, given out in input order at the end; 0 passes every row on at once.

    how: "random" (by a stable hash of seed, id and sample: the input's order does not matter), "shortest" and "longest" (by `num_tokens`,
    else characters), "best" (highest `reward`), "diverse" (see `most_different`). Ties are broken as for "random".
    """
    if per_prompt == 0:
        yield from rows
        return
    reason = f"not picked (--per-prompt {per_prompt}, {how})"
    rank = _RANKS[how]
    held: dict[Any, list[Entry]] = {}
    with Spool() as spool:
        for row in rows:
            group = held.setdefault(row.get("id"), [])
            bisect.insort(group, ((rank(row), chance(row, seed)), spool.add(row)))
            if how != "diverse" and len(group) > per_prompt:
                dropped.add(spool.row(group.pop()[1]), reason)
        picked: list[int] = []
        for group in held.values():
            numbers = [number for _, number in group]
            if len(numbers) > per_prompt:
                chosen = [numbers[place] for place in most_different([spool.row(number) for number in numbers], per_prompt)]
                for number in sorted(set(numbers) - set(chosen)):
                    dropped.add(spool.row(number), reason)
                numbers = chosen
            picked += numbers
        for number in sorted(picked):
            yield spool.row(number)


def some_of(rows: Iterable[Row], count: int, seed: int) -> Iterator[Row]:
    """`count` rows drawn by seed, in input order; all of them when there are fewer."""
    with Spool() as spool:
        ranked = heapq.nsmallest(count, ((chance(row, seed), spool.add(row)) for row in rows))
        for number in sorted(number for _, number in ranked):
            yield spool.row(number)


def in_stable_order(rows: Iterable[Row], seed: int) -> Iterator[Row]:
    """The rows in an order that follows from the seed and the rows alone: a sampler that was interrupted gives them in another one."""
    with Spool() as spool:
        order = [(chance(row, seed), spool.add(row)) for row in rows]
        for _, number in sorted(order):
            yield spool.row(number)


def most_different(rows: Sequence[Row], count: int) -> list[int]:
    """The places of `count` rows that are unlike each other, found greedily: the first row, then always the one whose nearest neighbour
    among those chosen is farthest away (Gonzalez' farthest-point rule, within a factor of two of the best possible smallest distance).

    The distance of two completions is 1 - |A & B| / |A | B| over their sets of three words in a row (Jaccard). Ties go to the earlier row.
    """
    grams = [_shingles(require(row, "completion", str)) for row in rows]
    chosen = [0]
    nearest = [_distance(grams[0], other) for other in grams]
    while len(chosen) < count:
        place = max((place for place in range(len(rows)) if place not in chosen), key=lambda place: (nearest[place], -place))
        chosen.append(place)
        nearest = [min(near, _distance(grams[place], other)) for near, other in zip(nearest, grams, strict=True)]
    return chosen


def _shingles(text: str) -> frozenset[tuple[str, ...]]:
    words = words_of(text)
    return frozenset(tuple(words[start : start + SHINGLE]) for start in range(max(1, len(words) - SHINGLE + 1)))


def _distance(one: frozenset[Any], other: frozenset[Any]) -> float:
    return 1.0 - len(one & other) / len(one | other)


def chance(row: Row, seed: int) -> int:
    """A row's place in a random order that depends on nothing but the seed and the row."""
    key = f"{row['id']}/{row['sample']}" if "id" in row and "sample" in row else dump(row)
    return int.from_bytes(hashlib.blake2b(f"pick/{seed}/{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def length_of(row: Row) -> int:
    """A completion's length in tokens, in characters where `num_tokens` is missing."""
    tokens = row.get("num_tokens")
    return tokens if isinstance(tokens, int) else len(require(row, "completion", str))


_RANKS: dict[str, Rank] = {
    "random": lambda row: 0,
    "shortest": length_of,
    "longest": lambda row: -length_of(row),
    "best": lambda row: -require(row, "reward", int, float),
    "diverse": lambda row: -require(row, "reward", int, float),
}
