"""Several sources of rows as one data set: how many rows of each.

    FILE      all its rows          FILE:25%   a quarter of them                     FILE=W   a share of W among the weighted ones
    FILE:N    exactly N of them     FILE:2.5x  each of them twice, half of them once more

Which rows these are, and in which order, is decided in `steps.draw`.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from r1cli.errors import Exit, R1Error

STDIN = "/dev/stdin"


@dataclass(frozen=True)
class Part:
    """One source of a mixture: its name, and an exact `count`, a `share` of its rows or a `weight`; none of them means all rows."""

    name: str
    count: int | None = None
    weight: float | None = None
    share: Fraction | None = None

    @property
    def whole(self) -> bool:
        """True when there is nothing to decide: all rows, once."""
        return self.count is None and self.weight is None and self.share is None


def part_of(text: str) -> Part:
    """`FILE`, `FILE:N`, `FILE:P%`, `FILE:Kx` or `FILE=W`. `hf:./folder:train:100` and `data.jsonl=0.3` read as one expects: only a
    number at the end counts. `/dev/stdin` is `-`, however it came there."""
    part = _part_of(text)
    return replace(part, name="-") if part.name == STDIN else part


def _part_of(text: str) -> Part:
    exact = re.fullmatch(r"(.+):(\d+)", text)
    if exact:
        return Part(exact[1], count=int(exact[2]))
    share = re.fullmatch(r"(.+):(\d+\.?\d*|\.\d+)([%x])", text)
    if share:
        return Part(share[1], share=Fraction(share[2]) / (100 if share[3] == "%" else 1))
    weight = re.fullmatch(r"(.+)=(\d+\.?\d*|\.\d+)", text)
    if weight:
        return Part(weight[1], weight=float(weight[2]))
    if re.search(r"=[^/]*$", text) and not text.endswith((".jsonl", ".gz", ".zst", ".parquet")):
        raise R1Error(
            f"`{text}`: the weight must be a number from 0 up",
            hint="for example math.jsonl=0.7 chat.jsonl=0.3; "
            "a row count is math.jsonl:1000, a share math.jsonl:25%, repeated rows math.jsonl:2.5x",
            code=Exit.USAGE,
        )
    return Part(text)


def check_parts(parts: Sequence[Part], total: int | None) -> None:
    """Refuse (`R1Error`, exit 2) weights without sense, and a total with nothing to scale."""
    weighted = [part for part in parts if part.weight is not None]
    weights = [part.weight for part in weighted]
    if weights and not any(weights):
        raise R1Error("all weights are 0", hint="give at least one source a weight above 0", code=Exit.USAGE)
    if len(weights) == 1 and total is None:
        name, weight = weighted[0].name, f"{weighted[0].weight:g}"
        others = " ".join(f"{part.name}=1" for part in parts if part.whole)
        way = f"weigh the others too: {name}={weight} {others}; or" if others else "without it all rows are given;"
        raise R1Error(
            f"`{name}={weight}` is the only weight, so it does nothing: weights are shares among the weighted sources",
            hint=f"{way} {name}:{weight}x repeats its rows, {name}:N gives exactly N",
            code=Exit.USAGE,
        )
    if total is not None and not weights:
        raise R1Error(
            "`--total` needs weights, and no source has one", hint="write FILE=WEIGHT, or FILE:N for exact counts", code=Exit.USAGE
        )


def allot(parts: Sequence[Part], available: Sequence[int], total: int | None, max_repeat: int = 1) -> list[int]:
    """How many rows each part gives. Raises `R1Error` (exit 2) when a part has fewer rows than it must give.

    A share is rounded to the nearest row, halves up. Weighted parts share `total` less the rows of the other parts, by largest remainder;
    without a total they are scaled until the first of them is used up. max_repeat: how often a row may be given to reach a count or the
    share of a total.
    """
    counts = [_own_count(part, have) for part, have in zip(parts, available, strict=True)]
    weighted = [index for index, part in enumerate(parts) if part.weight is not None]
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
        if part.share is None and count > have * max_repeat:
            times = math.ceil(count / have) if have else 0
            hint = f"ask for fewer, or --max-repeat {times} to repeat rows" if times else "name a source with rows"
            raise R1Error(f"`{part.name}` has {have} rows to give, {count} are asked for", hint=hint, code=Exit.USAGE)
    return counts


def _own_count(part: Part, have: int) -> int:
    """What a part gives by itself; 0 for a weighted one."""
    if part.weight is not None:
        return 0
    if part.share is not None:
        return math.floor(part.share * have + Fraction(1, 2))
    return have if part.count is None else part.count


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
