"""Where the sequences of a micro-batch lie once its padding is gone, and who attends to whom.

Shapes: _N all tokens of the batch, end to end without padding; _S segments of about one length, _L the longest of them; _Q tokens behind a
prefix, _P tokens of those prefixes.

A segment is a run of tokens that attends to itself, causally: a shared prefix, or a sequence. A sequence behind a prefix attends to all of
it as well. That is all the structure there is, so attention needs no T x T mask: it is computed a bucket of segments at a time, and then
between each prefix and the tokens behind it. Where sequences are short, each is joined with its prefix instead: _M keys, a mask of
_S x _L x _M, and one pass instead of two.

On a CPU the packed tokens are filled up to a multiple of CPU_STEP with tokens that belong to no segment. The matrix library makes a kernel
for every new number of tokens and keeps it: up to 5 ms and 1 MiB each (oneDNN, bfloat16, AMX). In GRPO, whose batches all differ, a model
of 135M weights grew by 50 MiB a step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby

import torch
from torch import Tensor

PREFIX = 0  # segment number of a prompt that the segments after it share
PADDING = -1
FULLNESS = 0.75  # the shortest segment of a bucket is at least this share of the longest
CPU_STEP = 64  # packed tokens, and tokens of a pass over the head, come in multiples of this
TILE = 16  # queries of a segment, and keys, come in multiples of this: rows that the matrix units of a CPU take at a time
JOINED = 1_000_000  # elements of all masks, _S x _L x _M, up to which sequences are joined with their prefixes


@dataclass(slots=True)
class Shared:
    """A prefix and the tokens behind it that see all of it: [start, middle) and [middle, end) of the packed tokens."""

    start: int
    middle: int
    end: int


@dataclass(slots=True)
class Run:
    """A segment: `length` packed tokens from `start`, behind a prefix of `before` tokens from `prefix`."""

    start: int
    length: int
    prefix: int = 0
    before: int = 0


@dataclass(slots=True)
class Joined:
    """A bucket of segments with their prefixes: indices into the packed tokens, `count` where there is none, and who does not see whom."""

    query_SL: Tensor
    key_SM: Tensor
    hidden_SLM: Tensor


@dataclass(frozen=True, slots=True)
class Ends:
    """Where sequences laid end to end begin and end: [sequences + 1] int32, and the longest one."""

    offsets: Tensor
    longest: int

    @classmethod
    def of(cls, lengths: list[int], device: torch.device) -> "Ends":
        return cls(torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device), max(lengths))


@dataclass(frozen=True, slots=True)
class Lengths:
    """The segments of a micro-batch as the kernels of a GPU take them.

    short, long: the segments, those that kernels take together (their packed tokens [Q] and ends) and the places of those that are taken
    one by one. behind: (tokens behind a prefix [Q], prefix tokens [P], the ends of both).
    """

    short: tuple[Tensor | slice, Ends] | None
    long: list[slice]
    behind: tuple[Tensor, Tensor, Ends, Ends] | None

    @classmethod
    def of(cls, runs: list[Run], shared: list[Shared], device: torch.device, longest: int | None = None) -> "Lengths":
        """longest: tokens of a segment from which on it is a long one (None: none is)."""
        long = [slice(run.start, run.start + run.length) for run in runs if longest is not None and run.length >= longest]
        others = [run for run in runs if longest is None or run.length < longest]
        short = None
        if others:
            spans = [(run.start, run.start + run.length) for run in others]
            short = _places(spans, device) if long else slice(None), Ends.of([run.length for run in others], device)
        if not shared:
            return cls(short, long, None)
        after = [(part.middle, part.end) for part in shared]
        before = [(part.start, part.middle) for part in shared]
        ends = [Ends.of([stop - start for start, stop in spans], device) for spans in (after, before)]
        return cls(short, long, (_places(after, device), _places(before, device), ends[0], ends[1]))


@dataclass
class Segments:
    """keep_N: index of each token in the flattened [B, T] rows; packed_BT: the other way round. runs: the segments in the order of the
    packed tokens; shared: those among them that others see. count: packed tokens; used: those before the ones that only fill up."""

    count: int
    used: int
    keep_N: Tensor
    packed_BT: Tensor
    runs: list[Run]
    shared: list[Shared]
    _lengths: Lengths | None = None

    @classmethod
    def of(cls, marks_BT: Tensor, step: int = 1, device: torch.device | None = None) -> "Segments":
        """From the segment number of every position of the padded rows (PREFIX, 1, 2, ..., PADDING), filled up to a multiple of `step`.
        Indices are on `device`, else where the numbers are."""
        flat = marks_BT.flatten()
        keep_N = (flat != PADDING).nonzero().squeeze(-1)
        packed = torch.zeros_like(flat)
        packed[keep_N] = torch.arange(len(keep_N), device=flat.device)
        used, keep_N = len(keep_N), filled_up(keep_N, step)
        runs: list[Run] = []
        shared: list[Shared] = []
        at = 0
        for marks in marks_BT.tolist():
            first = at
            parts = [(mark, len(list(same))) for mark, same in groupby(marks) if mark != PADDING]
            behind = parts[0][1] if parts and parts[0][0] == PREFIX else 0
            for mark, length in parts:
                runs.append(Run(at, length) if mark == PREFIX else Run(at, length, first, behind))
                at += length
            if parts and parts[0][0] == PREFIX and len(parts) > 1:
                shared.append(Shared(first, first + parts[0][1], at))
        return cls(len(keep_N), used, keep_N.to(device or flat.device), packed.view_as(marks_BT).to(device or flat.device), runs, shared)

    def lengths(self, longest: int | None) -> Lengths:
        """For the kernels of a GPU, the same for all layers; see `Lengths.of`."""
        if self._lengths is None:
            self._lengths = Lengths.of(self.runs, self.shared, self.keep_N.device, longest)
        return self._lengths

    @cached_property
    def buckets_SL(self) -> list[Tensor]:
        """Runs of about one length: indices into the packed tokens, `count` where there is none."""
        return [_indices(bucket, self.count, self.keep_N.device) for bucket in _similar(self.runs, lambda run: run.length)]

    @cached_property
    def joined(self) -> list[Joined]:
        """The same tokens as `buckets_SL` and `shared`, in the other form; empty when the masks would be large."""
        near = [part for bucket in _similar(self.runs, lambda run: run.length) for part in _similar(bucket, lambda run: run.before)]
        small = sum(len(bucket) * _longest(bucket) * max(run.before + run.length for run in bucket) for bucket in near) <= JOINED
        return [_join(bucket, self.count, self.keep_N.device) for bucket in near] if small else []


def _places(spans: list[tuple[int, int]], device: torch.device) -> Tensor:
    return torch.cat([torch.arange(*span) for span in spans]).to(device)


def step_on(device: torch.device) -> int:
    """Packed tokens come in multiples of this."""
    return CPU_STEP if device.type == "cpu" else 1


def filled_up(index_N: Tensor, step: int) -> Tensor:
    """The indices and the first of them again, until their number is a multiple of `step`."""
    return torch.cat([index_N, index_N[:1].expand(-len(index_N) % step)])


def _similar(runs: list[Run], size: Callable[[Run], int]) -> list[list[Run]]:
    """Runs in buckets of about one size, the largest first."""
    buckets: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: (-size(run), run.start)):
        if buckets and size(run) >= FULLNESS * size(buckets[-1][0]):
            buckets[-1].append(run)
        else:
            buckets.append([run])
    return buckets


def _whole_tiles(size: int) -> int:
    return -(-size // TILE) * TILE


def _longest(bucket: list[Run]) -> int:
    return max(run.length for run in bucket)


def _indices(bucket: list[Run], count: int, device: torch.device) -> Tensor:
    """The packed tokens of each run, [S, L]; `count` fills the shorter ones up."""
    start_S1, length_S1 = torch.tensor([(run.start, run.length) for run in bucket], device=device)[:, :, None].unbind(1)
    place_L = torch.arange(_whole_tiles(_longest(bucket)), device=device)
    return torch.where(place_L < length_S1, start_S1 + place_L, count)


def _join(bucket: list[Run], count: int, device: torch.device) -> Joined:
    facts = torch.tensor([(run.start, run.length, run.prefix, run.before) for run in bucket], device=device)
    start_S1, length_S1, prefix_S1, before_S1 = facts[:, :, None].unbind(1)
    place_M = torch.arange(_whole_tiles(max(run.before + run.length for run in bucket)), device=device)
    own_SM = place_M - before_S1  # place in the run itself, negative in its prefix
    key_SM = torch.where(own_SM < 0, prefix_S1 + place_M, torch.where(own_SM < length_S1, start_S1 + own_SM, count))
    query_SL = _indices(bucket, count, device)
    return Joined(query_SL, key_SM, own_SM[:, None, :] > torch.arange(query_SL.shape[1], device=device)[:, None])
