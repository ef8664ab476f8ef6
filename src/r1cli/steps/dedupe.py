"""Exact duplicates: rows that would teach the same thing twice.

Rows of a stream are compared with those before them (`dedupe_rows`: the first one stays). Rows of an index are compared all at once
(`first_of_equal`: the one with the lowest key stays, whatever the order).
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from r1cli.row import Row
from r1cli.steps.keep import Dropped

CONTENT = ("messages", "prompt", "completion", "chosen", "rejected", "label", "answer")
"""The fields that make two rows the same; who made a row, with which seed and for which reward does not."""
REASON = "duplicate"
_ENCODE = msgspec.json.Encoder(order="sorted").encode


def digest(data: bytes) -> bytes:
    """16 bytes that are the same for the same data in every process. It does not stand up to one who seeks collisions."""
    import xxhash

    return xxhash.xxh3_128_digest(data)


def content_of(row: Row) -> bytes:
    """A digest of what the row teaches: its `CONTENT` fields, or all but its id when it has none of them."""
    content = {name: row[name] for name in CONTENT if name in row} or {name: value for name, value in row.items() if name != "id"}
    return digest(canonical(content))


def canonical(value: Any) -> bytes:
    """A JSON value as bytes that do not depend on the order of keys; equal ones have equal values, and 1, 1.0 and true differ."""
    try:
        return _ENCODE(value)
    except (UnicodeError, ValueError, OverflowError):  # half a surrogate pair, an integer beyond 64 bits
        return b"json" + json.dumps(value, sort_keys=True).encode("ascii")


def dedupe_rows(rows: Iterable[Row], seen: set[bytes], dropped: Dropped) -> Iterator[Row]:
    """The rows whose content is not in `seen`, which grows: hand the same set to several sources, and the first one named wins."""
    for row in rows:
        content = content_of(row)
        if content in seen:
            dropped.add(row, REASON)
            continue
        seen.add(content)
        yield row


def first_of_equal(contents: Any, keys: Any) -> Any:
    """For each row the position of the row that stands for all with its content: the one with the lowest key.

    contents: (rows, 2) uint64, the digests. keys: (rows,) numbers without ties. Returns (rows,) int64; a row that stays has its own.
    """
    import numpy as np

    order = np.lexsort((keys, contents[:, 1], contents[:, 0]))
    ordered = contents[order]
    new = np.ones(len(order), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    leaders = order[np.flatnonzero(new)]
    standing_for = np.empty(len(order), np.int64)
    standing_for[order] = leaders[np.cumsum(new) - 1]
    return standing_for
