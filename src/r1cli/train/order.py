"""Which rows a step takes: a function of the seed and of how many were taken before, so that a resumed run and any number of processes
see the same order."""

import hashlib
import math
import random
from array import array
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any

from accelerate.utils import gather_object


@lru_cache(maxsize=2)  # a step ends in this epoch or the next; shuffling all rows takes half a second for 800,000
def shuffled(count: int, epoch: int, seed: int | str) -> Sequence[int]:
    """The order of `count` rows in an epoch."""
    order = array("q", range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


def next_rows(count: int, taken: int, wanted: int, seed: int | str) -> list[int]:
    """Numbers of the next `wanted` rows of an endless run of shuffled epochs of `count` rows, when `taken` were taken before; an epoch
    takes every row once."""
    chosen: list[int] = []
    while len(chosen) < wanted:
        epoch, offset = divmod(taken + len(chosen), count)
        chosen += shuffled(count, epoch, seed)[offset : offset + wanted - len(chosen)]
    return chosen


def step_rows(count: int, step: int, per_step: int, seed: int, epochs: float | None = None) -> list[int]:
    """Row numbers of a step when every step takes `per_step` rows, and the last one what is left of `epochs` passes.

    A step that begins in one epoch and ends in the next may take a row twice.
    """
    taken = step * per_step
    wanted = per_step if epochs is None else min(per_step, rows_of(count, epochs) - taken)
    return next_rows(count, taken, wanted, seed)


def rows_a_step(count: int, batch_rows: int) -> int:
    """Rows of a step: `batch_rows`, or all of them where there are fewer."""
    return max(1, min(batch_rows, count))


def rows_of(count: int, epochs: float) -> int:
    """Rows of `epochs` passes over `count` rows, rounded up: 3 for a tenth of 30, which is 3.0000000000000004 in floating point."""
    return max(1, math.ceil(round(count * epochs, 6)))


def steps_of(count: int, epochs: float, batch_rows: int) -> int:
    """Steps that make `epochs` passes over `count` rows."""
    return -(-rows_of(count, epochs) // rows_a_step(count, batch_rows))


def random_parts(keys: Sequence[Hashable], parts: int, salt: str, sources: Sequence[int] = ()) -> list[list[int]]:
    """Places of `keys` split at random into `parts` of equal size (the first ones one larger when it does not divide).

    The split is by a hash of the key, so it does not depend on which process holds which key. sources: of each key; every part then holds
    each source's share of the whole, to within one.
    """
    ranked = sorted(range(len(keys)), key=lambda i: hashlib.blake2b(f"{salt}/{keys[i]!r}".encode(), digest_size=8).digest())
    if sources:
        ranked.sort(key=lambda i: sources[i])
        return [ranked[part::parts] for part in range(parts)]
    size, extra = divmod(len(ranked), parts)
    split, start = [], 0
    for part in range(parts):
        end = start + size + (part < extra)
        split.append(ranked[start:end])
        start = end
    return split


def split(accelerator: Any, keys: Sequence[Hashable], parts: int, salt: str, sources: Sequence[int] = ()) -> list[list[int]]:
    """As `random_parts` over the keys of all processes: for each part the places of this process's `keys` in it."""
    several = accelerator.num_processes > 1
    everyone = gather_object(list(keys)) if several else keys
    theirs = gather_object(list(sources)) if several else sources
    mine = {key: place for place, key in enumerate(keys)}
    return [sorted(mine[everyone[i]] for i in part if everyone[i] in mine) for part in random_parts(everyone, parts, salt, theirs)]
