"""Near-duplicates by MinHash (Broder 1997) and banding: rows whose sets of 5-word runs overlap by a given share (Jaccard similarity).

A row becomes a signature of 128 numbers, two rows agree in as many of them as their sets overlap (`rensa`, an extra). Rows that agree in
one whole band of a signature are compared with the band's first row; below the threshold they stay apart. What was found alike, directly
or through a third row, is one group, and the row with the lowest key stands for it. Nothing depends on the order of the rows.

A row keeps the lowest byte of each number (b-bit minwise hashing, Li and Koenig 2010, theorem 1: two different numbers agree in it once in
256) and 32 bits of each band: 192 bytes in all. An estimate from 128 numbers has a standard error of 0.035 at a similarity of 0.8.
"""

from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.steps.grams import RowWords, mix

REASON = "near-duplicate"
SLOTS, BANDS, SHINGLE = 128, 16, 5  # numbers a signature, bands it is cut into, words a shingle
_SEED = 0  # of the permutations; which rows are alike must not depend on --seed
_COMPARED = 100_000  # pairs at a time
Array = Any


def check_package() -> None:
    """`R1Error` (exit 3) unless the package for signatures is there."""
    try:
        import rensa  # noqa: F401
    except ImportError:
        raise R1Error("`--dedupe minhash` needs the package `rensa`", hint="pip install 'r1cli[minhash]'", code=Exit.ENVIRONMENT) from None


def sketch(words: RowWords) -> tuple[Array, Array, Array]:
    """(rows, SLOTS) uint8 and (rows, BANDS) uint32, what is kept of each row's signature, and (rows,) bool, which rows have no word."""
    import numpy as np
    from rensa import RMinHash

    grams, ends_B = words.windows(SHINGLE)
    rows = len(ends_B)
    offsets = np.concatenate([[0], ends_B])
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(grams, offsets.astype(np.uint64), SLOTS, _SEED)
    signatures = np.array(matrix.to_rows(), np.uint32).reshape(rows, SLOTS)
    wide = signatures.reshape(rows, BANDS, SLOTS // BANDS).astype(np.uint64)
    bands = np.full((rows, BANDS), 0x9E3779B97F4A7C15, np.uint64)
    for column in range(wide.shape[2]):
        bands = mix(bands ^ wide[:, :, column])
    return (signatures & np.uint32(0xFF)).astype(np.uint8), (bands >> np.uint64(32)).astype(np.uint32), offsets[1:] == offsets[:-1]


def similarity(one: Array, other: Array) -> Array:
    """The estimated Jaccard similarity of rows of `one` with rows of `other`, both (rows, SLOTS) uint8."""
    agreeing = (one == other).mean(axis=1)
    return (agreeing - 1 / 256) / (1 - 1 / 256)


def first_of_alike(sketches: Array, bands: Array, keys: Array, threshold: float, wordless: Array) -> Array:
    """For each row the position of the row that stands for its group; a row that stays has its own position.

    sketches, bands: what `sketch` gave. keys: (rows,) numbers without ties. wordless: (rows,) bool, rows that are compared with none.
    """
    import numpy as np

    rank = np.empty(len(keys), np.int64)
    rank[np.argsort(keys)] = np.arange(len(keys))
    parent = np.arange(len(keys))
    able = np.flatnonzero(~wordless)
    for band in range(bands.shape[1]):
        order = able[np.lexsort((rank[able], bands[able, band]))]
        values = bands[order, band]
        new = np.ones(len(order), bool)
        new[1:] = values[1:] != values[:-1]
        leaders = order[np.flatnonzero(new)][np.cumsum(new) - 1]
        apart = np.flatnonzero(parent[order] != parent[leaders])
        for start in range(0, len(apart), _COMPARED):
            some = apart[start : start + _COMPARED]
            alike = similarity(sketches[order[some]], sketches[leaders[some]]) >= threshold
            for row, leader in zip(order[some][alike].tolist(), leaders[some][alike].tolist(), strict=True):
                _join(parent, rank, row, leader)
        while (parent != parent[parent]).any():
            parent = parent[parent]
    return parent


def _join(parent: Array, rank: Array, one: int, other: int) -> None:
    one, other = _root(parent, one), _root(parent, other)
    if one != other:
        low, high = (one, other) if rank[one] < rank[other] else (other, one)
        parent[high] = low


def _root(parent: Array, row: int) -> int:
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = int(parent[row])
    return row
