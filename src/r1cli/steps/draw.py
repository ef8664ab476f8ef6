"""Which rows of each source a mixture takes, how often, in which order, and which of them are for validation.

Rows are entries of an index here: arrays with one element a row. Every choice goes by numbers made of the seed and the row's digest, so it
does not depend on where a row stood. Rows that are equal byte for byte are told apart by counting them.
"""

from typing import Any

from r1cli.steps.grams import mix

ORDER, CHOICE, SPLIT, LEADER = 0, 1, 2, 3  # uses of the seed: one must not follow from another
_COPY, _REPEAT = 0x9E3779B97F4A7C15, 0xD1342543DE82EF95
Array = Any


def keys(digests: Array, seed: int, use: int) -> Array:
    """(rows,) uint64: one number for each row, without ties that come from equal rows. digests: (rows, 2) uint64."""
    import numpy as np

    start = mix(np.array([(seed * 4 + use) % 2**64], np.uint64))
    first = mix(mix(digests[:, 0] ^ start) ^ digests[:, 1])
    return mix(first + _copies(digests) * np.uint64(_COPY))


def _copies(digests: Array) -> Array:
    """How many equal rows come before each row."""
    import numpy as np

    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable
    ordered = digests[order]
    new = np.ones(len(order), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    starts = np.flatnonzero(new)
    copies = np.empty(len(order), np.uint64)
    copies[order] = np.arange(len(order)) - starts[np.cumsum(new) - 1]
    return copies


def ranks(order_keys: Array) -> Array:
    """The keys as 0, 1, 2 ...: no ties, not even by chance."""
    import numpy as np

    result = np.empty(len(order_keys), np.int64)
    result[np.argsort(order_keys, kind="stable")] = np.arange(len(order_keys))
    return result


def take(choices: Array, count: int, strata: Array | None = None) -> Array:
    """How often each row of one source is taken, so that it is `count` in all: (rows,) int64.

    Every row count // rows times, and those with the lowest choice keys once more. With strata (a number for each row) the extra ones are
    spread over them by largest remainder, so that every stratum keeps its share.
    """
    import numpy as np

    rows = len(choices)
    if not rows:
        return np.zeros(0, np.int64)
    times = np.full(rows, count // rows, np.int64)
    extra = count % rows
    if strata is None:
        times[np.argsort(choices, kind="stable")[:extra]] += 1
        return times
    _, of_row, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    quotas = by_largest_remainder(sizes, extra)
    order = np.lexsort((choices, of_row))
    place = np.arange(rows) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # of each row within its stratum
    times[order[place < np.repeat(quotas, sizes)]] += 1
    return times


def by_largest_remainder(sizes: Array, total: int) -> Array:
    """`total` shared out in proportion to `sizes`: (groups,) int64 whose sum it is. Equal remainders: the larger group, then the first."""
    import numpy as np

    sizes = np.asarray(sizes, np.int64)
    whole = int(sizes.sum())
    exact = [int(size) * total for size in sizes]  # Python's integers do not overflow
    quotas = np.array([value // whole for value in exact], np.int64)
    remainders = [value % whole for value in exact]
    order = sorted(range(len(exact)), key=lambda group: (-remainders[group], -int(sizes[group]), group))
    quotas[order[: total - int(quotas.sum())]] += 1
    return quotas


def validation_rows(prompts: Array, choices: Array, wanted: int, strata: Array | None = None) -> Array:
    """Which rows are held back: (rows,) bool, at most `wanted` of them, and all rows of a prompt or none.

    prompts: (rows,) a number for each prompt. Prompts are gone through by the lowest choice key among their rows; one that would exceed
    what is wanted (of its stratum, the one of that row) is passed over.
    """
    import numpy as np

    if not len(prompts):
        return np.zeros(0, bool)
    order = np.lexsort((choices, prompts))
    first = np.flatnonzero(np.concatenate([[True], prompts[order][1:] != prompts[order][:-1]]))
    sizes = np.diff(np.append(first, len(order)))
    leaders = order[first]
    groups = np.argsort(choices[leaders], kind="stable")
    if strata is None:
        room, stratum = [wanted], np.zeros(len(leaders), np.int64)
    else:
        _, of_row, counts = np.unique(strata, return_inverse=True, return_counts=True)
        room, stratum = by_largest_remainder(counts, wanted).tolist(), of_row[leaders]
    held = np.zeros(len(leaders), bool)
    left = sum(room)
    for group, size, name in zip(groups.tolist(), sizes[groups].tolist(), stratum[groups].tolist(), strict=True):
        if not left:
            break
        if size <= room[name]:
            held[group] = True
            room[name] -= size
            left -= size
    result = np.zeros(len(order), bool)
    result[order] = np.repeat(held, sizes)
    return result


def repeated(times: Array, order_keys: Array) -> Array:
    """The positions of the rows in the order of a shuffled mixture, each as often as `times` says: (sum of times,) int64."""
    import numpy as np

    positions = np.repeat(np.arange(len(times)), times)
    firsts = np.repeat(np.cumsum(times) - times, times)
    nth = (np.arange(len(positions)) - firsts).astype(np.uint64)
    again = np.where(nth == 0, order_keys[positions], mix(order_keys[positions] + nth * np.uint64(_REPEAT)))
    return positions[np.lexsort((nth, order_keys[positions], again))]
