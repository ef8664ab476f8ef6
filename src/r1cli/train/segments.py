"""Where the sequences of a micro-batch lie once its padding is gone, and who attends to whom.

Shapes: _N all tokens of the batch, end to end without padding; _S segments of about one length, _L the longest of them.

A segment is a run of tokens that attends to itself, causally: a shared prefix, or a sequence. A sequence behind a prefix attends to all of
it as well. That is all the structure there is, so attention needs no T x T mask: it is computed a bucket of segments at a time, and then
between each prefix and the tokens behind it.
"""

from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

PREFIX = 0  # segment number of a prompt that the segments after it share
PADDING = -1
FULLNESS = 0.75  # the shortest segment of a bucket is at least this share of the longest


@dataclass(slots=True)
class Shared:
    """A prefix and the tokens behind it that see all of it: [start, middle) and [middle, end) of the packed tokens."""

    start: int
    middle: int
    end: int


@dataclass(slots=True)
class Segments:
    """keep_N: index of each token in the flattened [B, T] rows. buckets_SL: index into the packed tokens, `count` where there is none."""

    count: int
    keep_N: Tensor
    packed_BT: Tensor
    buckets_SL: list[Tensor]
    shared: list[Shared]

    @classmethod
    def of(cls, marks_BT: Tensor) -> "Segments":
        """From the segment number of every position of the padded rows (PREFIX, 1, 2, ..., PADDING)."""
        flat = marks_BT.flatten()
        keep_N = (flat != PADDING).nonzero().squeeze(-1)
        packed = torch.zeros_like(flat)
        packed[keep_N] = torch.arange(len(keep_N), device=flat.device)
        runs: list[tuple[int, int]] = []
        shared: list[Shared] = []
        at = 0
        for marks in marks_BT.tolist():
            first = at
            parts = [(mark, len(list(same))) for mark, same in groupby(marks) if mark != PADDING]
            for _, length in parts:
                runs.append((at, length))
                at += length
            if parts and parts[0][0] == PREFIX and len(parts) > 1:
                shared.append(Shared(first, first + parts[0][1], at))
        return cls(len(keep_N), keep_N, packed.view_as(marks_BT), _buckets(runs, len(keep_N), flat.device), shared)


def _buckets(runs: list[tuple[int, int]], count: int, device: torch.device) -> list[Tensor]:
    """Runs of similar length, stacked as rows of indices; `count` fills the shorter ones up."""
    buckets: list[list[tuple[int, int]]] = []
    for run in sorted(runs, key=lambda r: (-r[1], r[0])):
        if buckets and run[1] >= FULLNESS * buckets[-1][0][1]:
            buckets[-1].append(run)
        else:
            buckets.append([run])
    found = []
    for bucket in buckets:
        start_S, length_S = torch.tensor(bucket, device=device).unbind(-1)
        place_L = torch.arange(bucket[0][1], device=device)
        found.append(torch.where(place_L < length_S[:, None], start_S[:, None] + place_L, count))
    return found
