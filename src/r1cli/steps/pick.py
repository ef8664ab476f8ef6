"""At most so many rows a prompt: random, shortest, longest or best.

The rows of one prompt need not stand together (a sampler gives them back as they end), so nothing can be picked before the input ends.
What is held is what may still be picked: `per_prompt` rows a prompt.
"""

import bisect
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from r1cli.row import Row, dump, require
from r1cli.steps.keep import Dropped

Rank = Callable[[Row], Any]


def pick_rows(rows: Iterable[Row], per_prompt: int, how: str, seed: int, dropped: Dropped) -> Iterator[Row]:
    """The `per_prompt` first rows of each `id` in the order of `how`, given out in input order at the end; 0 passes every row on at once.

    how: "random" (by a stable hash of seed, id and sample: the input's order does not matter), "shortest" and "longest" (by `num_tokens`,
    else characters), "best" (highest `reward`). Ties are broken as for "random".
    """
    if per_prompt == 0:
        yield from rows
        return
    rank = _RANKS[how]
    held: dict[Any, list[tuple[Any, int, Row]]] = {}
    for number, row in enumerate(rows):
        group = held.setdefault(row.get("id"), [])
        bisect.insort(group, ((rank(row), _chance(row, seed)), number, row), key=lambda entry: entry[:2])
        if len(group) > per_prompt:
            dropped.add(group.pop()[2], f"not picked (--per-prompt {per_prompt}, {how})")
    picked = [(number, row) for group in held.values() for _, number, row in group]
    for _, row in sorted(picked, key=lambda entry: entry[0]):
        yield row


def _chance(row: Row, seed: int) -> bytes:
    """A row's place in a random order that depends on nothing but the seed and the row."""
    key = f"{row['id']}/{row['sample']}" if "id" in row and "sample" in row else dump(row)
    return hashlib.blake2b(f"pick/{seed}/{key}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _length(row: Row) -> int:
    tokens = row.get("num_tokens")
    return tokens if isinstance(tokens, int) else len(require(row, "completion", str))


_RANKS: dict[str, Rank] = {
    "random": lambda row: 0,
    "shortest": _length,
    "longest": lambda row: -_length(row),
    "best": lambda row: -require(row, "reward", int, float),
}
