"""Several sources of rows as one data set: how many rows of each, which ones, in which order.

    FILE      all its rows          FILE:N   exactly N of them          FILE=W   a share of W among the weighted ones

Every choice is by a hash of (seed, row), so the same seed gives the same bytes whatever the order of the sources and of the rows in them
(with `--dedupe`, which of several sources a repeated row is taken from follows the order in which they are named).
Rows wait on disk; about 350 bytes of each stay in memory.
"""

import hashlib
import math
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from types import TracebackType
from typing import Self

from r1cli.errors import Exit, R1Error
from r1cli.row import Row, dump, parse


@dataclass(frozen=True)
class Part:
    """One source of a mixture: its name, and an exact `count` or a `weight`; neither means all rows."""

    name: str
    count: int | None = None
    weight: float | None = None


def part_of(text: str) -> Part:
    """`FILE`, `FILE:N` or `FILE=W`. `hf:./folder:train:100` and `data.jsonl=0.3` read as one expects: only a number at the end counts."""
    exact = re.fullmatch(r"(.+):(\d+)", text)
    if exact:
        return Part(exact[1], count=int(exact[2]))
    share = re.fullmatch(r"(.+)=(\d+\.?\d*|\.\d+)", text)
    if share:
        return Part(share[1], weight=float(share[2]))
    if re.search(r"=[^/]*$", text) and not text.endswith((".jsonl", ".gz", ".zst", ".parquet")):
        raise R1Error(f"`{text}`: the weight must be a number from 0 up", hint="for example math.jsonl=0.7 chat.jsonl=0.3", code=Exit.USAGE)
    return Part(text)


def check_parts(parts: Sequence[Part], total: int | None) -> None:
    """Refuse (`R1Error`, exit 2) weights without sense, and a total with nothing to scale."""
    weights = [part.weight for part in parts if part.weight is not None]
    if weights and not any(weights):
        raise R1Error("all weights are 0", hint="give at least one source a weight above 0", code=Exit.USAGE)
    if total is not None and not weights:
        raise R1Error(
            "`--total` needs weights, and no source has one", hint="write FILE=WEIGHT, or FILE:N for exact counts", code=Exit.USAGE
        )


def allot(parts: Sequence[Part], available: Sequence[int], total: int | None) -> list[int]:
    """How many rows each part gives. Raises `R1Error` (exit 2) when a part has fewer rows than it must give.

    Weighted parts share `total` less the rows of the other parts, by largest remainder; without a total they are scaled until the first of
    them is used up.
    """
    counts = [have if part.count is None else part.count for part, have in zip(parts, available, strict=True)]
    weighted = [index for index, part in enumerate(parts) if part.weight is not None]
    for index in weighted:
        counts[index] = 0
    if weighted:
        weights = [parts[index].weight or 0.0 for index in weighted]
        room = None if total is None else total - sum(counts)
        if room is not None and room < 0:
            raise R1Error(
                f"--total is {total}, but the sources without a weight alone give {sum(counts)} rows",
                hint="raise --total, or give them weights too",
                code=Exit.USAGE,
            )
        shares = _shares(weights, [available[index] for index in weighted], room)
        for index, share in zip(weighted, shares, strict=True):
            counts[index] = share
    for part, count, have in zip(parts, counts, available, strict=True):
        if count > have:
            raise R1Error(
                f"`{part.name}` has {have} rows to give, {count} are asked for",
                hint="ask for fewer, or name a larger source",
                code=Exit.USAGE,
            )
    return counts


def _shares(weights: list[float], available: list[int], room: int | None) -> list[int]:
    if room is None:
        scale = min(have / weight for weight, have in zip(weights, available, strict=True) if weight > 0)
        return [math.floor(weight * scale + 1e-9) for weight in weights]  # 1e-9: 0.3 * (30 / 0.3) is 30
    exact = [weight * room / math.fsum(weights) for weight in weights]
    shares = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: (shares[index] - exact[index], index))
    for index in by_remainder[: room - sum(shares)]:
        shares[index] += 1
    return shares


class Mixture:
    """Rows of several parts, waiting on disk until it is known how many of each are wanted. A context manager.

    `add` the rows of each part, then read the mixture with `rows`. available: rows so far, by part.
    """

    def __init__(self, parts: int, seed: int) -> None:
        self._seed = seed
        self._spool = tempfile.TemporaryFile("w+b")  # noqa: SIM115  closed by __exit__
        self._entries: list[list[tuple[bytes, bytes, int]]] = [[] for _ in range(parts)]  # (order key, choice key, offset)
        self._copies: Counter[bytes] = Counter()

    def add(self, part: int, rows: Iterable[Row]) -> None:
        """Take in the rows of one part."""
        for row in rows:
            line = dump(row).encode("utf-8")
            digest = hashlib.blake2b(line, digest_size=16).digest()
            copy = self._copies[digest]  # equal rows must not end up side by side
            self._copies[digest] += 1
            order, choice = (_key(use, self._seed, copy, digest) for use in (b"order", b"choice"))
            self._entries[part].append((order, choice, self._spool.tell()))
            self._spool.write(line + b"\n")

    @property
    def available(self) -> list[int]:
        return [len(entries) for entries in self._entries]

    def rows(self, counts: Sequence[int], shuffle: bool) -> Iterator[Row]:
        """`counts[i]` rows of part i: all in one random order, or part after part in the order they came in."""
        chosen = []
        for entries, count in zip(self._entries, counts, strict=True):
            kept = entries if count == len(entries) else sorted(entries, key=lambda entry: entry[1])[:count]
            chosen.extend(kept)
        chosen.sort(key=itemgetter(0 if shuffle else 2))
        for _, _, offset in chosen:
            self._spool.seek(offset)
            yield parse(self._spool.readline()[:-1].decode("utf-8"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._spool.close()


def _key(use: bytes, seed: int, copy: int, digest: bytes) -> bytes:
    return hashlib.blake2b(b"%s/%d/%d/%s" % (use, seed, copy, digest), digest_size=16).digest()
