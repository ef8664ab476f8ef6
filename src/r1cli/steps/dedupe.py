"""Exact duplicates: rows that would teach the same thing twice."""

import hashlib
import json
from collections.abc import Iterable, Iterator

from r1cli.row import Row
from r1cli.steps.keep import Dropped

CONTENT = ("messages", "prompt", "completion", "chosen", "rejected", "label", "answer")
"""The fields that make two rows the same; who made a row, with which seed and for which reward does not."""


def content_of(row: Row) -> bytes:
    """A digest of what the row teaches: its `CONTENT` fields, or all but its id when it has none of them."""
    content = {name: row[name] for name in CONTENT if name in row} or {name: value for name, value in row.items() if name != "id"}
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode("ascii"), digest_size=16).digest()


def dedupe_rows(rows: Iterable[Row], seen: set[bytes], dropped: Dropped) -> Iterator[Row]:
    """The rows whose content is not in `seen`, which grows: hand the same set to several sources, and the first one named wins."""
    for row in rows:
        content = content_of(row)
        if content in seen:
            dropped.add(row, "duplicate")
            continue
        seen.add(content)
        yield row
