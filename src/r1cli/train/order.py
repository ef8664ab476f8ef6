"""Which rows a step takes: a function of (seed, step) alone, so that a resumed run and any number of processes see the same order."""

import hashlib
import random
from collections.abc import Hashable, Sequence


def shuffled(count: int, epoch: int, seed: int) -> list[int]:
    """The order of `count` rows in an epoch."""
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


def step_rows(count: int, step: int, per_step: int, seed: int) -> list[int]:
    """Row numbers of a step that takes `per_step` rows of an endless run of shuffled epochs; an epoch takes every row once."""
    taken: list[int] = []
    place = step * per_step
    while len(taken) < per_step:
        epoch, offset = divmod(place, count)
        part = shuffled(count, epoch, seed)[offset : offset + per_step - len(taken)]
        taken += part
        place += len(part)
    return taken


def random_parts(keys: Sequence[Hashable], parts: int, salt: str) -> list[list[int]]:
    """Places of `keys` split at random into `parts` of equal size (the first ones one larger when it does not divide).

    The split is by a hash of the key, so it does not depend on which process holds which key.
    """
    ranked = sorted(range(len(keys)), key=lambda i: hashlib.blake2b(f"{salt}/{keys[i]!r}".encode(), digest_size=8).digest())
    size, extra = divmod(len(ranked), parts)
    split, start = [], 0
    for part in range(parts):
        end = start + size + (part < extra)
        split.append(ranked[start:end])
        start = end
    return split
