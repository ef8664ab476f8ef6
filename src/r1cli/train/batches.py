"""Token sequences -> padded rows -> micro-batches, with a group's prompt computed once.

Shapes: _B rows, _T positions of a row, _N completion tokens (packed), _S sequences.

A row is a prefix followed by any number of sequences that begin with it, laid end to end: each one attends to the prefix and to itself,
and counts its positions from the end of the prefix. The model sees the same numbers as if each sequence stood alone after its own copy of
the prefix, without computing it again: in GRPO the prefix is the group's prompt, in SFT what all prompts of a step begin with. Rows with a
single sequence need no mask at all and run on the attention kernel's causal path. No row needs a T x T mask where attention goes by
segments (`segments.py`): on a CPU, and on a GPU that has the kernels (`varlen.py`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from r1cli.train.segments import PADDING, PREFIX

PACK_LENGTH = 2048  # positions; beyond it a T x T mask, where one is needed, costs more than a repeated prompt


@dataclass(slots=True)
class Sample:
    """One sequence to train on: the loss is over `completion_ids` only.

    index:            place in the step's list; ties the sequence to its advantage and its log-probabilities
    prompt_ids:       tokens before the completion, not trained on; without any, the first completion token must not count
    completion_ids:   tokens trained on
    trained:          which completion tokens count (None: all); a reward model scores at the last one, and so does the probe of a model
    sampler_logprobs: log-probability of each completion token as the sampler computed it (None in SFT)
    advantage:        of the whole completion
    truncated:        finish_reason was "length"
    key:              names the sequence over all processes (a rollout is split at random by it)
    """

    index: int
    prompt_ids: list[int]
    completion_ids: list[int]
    trained: list[bool] | None = None
    sampler_logprobs: list[float] | None = None
    advantage: float = 0.0
    truncated: bool = False
    key: tuple[int, int] = (0, 0)

    @property
    def trained_tokens(self) -> int:
        """Completion tokens that count."""
        return len(self.completion_ids) if self.trained is None else sum(self.trained)


@dataclass(slots=True)
class RowLayout:
    """What one row of a batch holds: a prefix that all its sequences begin with (may be empty), computed once, and what each adds to it."""

    prefix_ids: list[int]
    samples: list[Sample]

    @property
    def length(self) -> int:
        return len(self.prefix_ids) + sum(self.own_length(sample) for sample in self.samples)

    @property
    def plain(self) -> bool:
        """True when causal attention is all the row needs."""
        return len(self.samples) == 1

    def own_length(self, sample: Sample) -> int:
        """Positions that a sequence adds to the row."""
        return len(sample.prompt_ids) - len(self.prefix_ids) + len(sample.completion_ids)


@dataclass(slots=True)
class MicroBatch:
    """Tensors of one forward pass; see the module's docstring. `samples` are in the order of `sequence_N`.

    marks_BT: segment number of each position: PREFIX, 1, 2, ... along a row, PADDING behind its end.
    """

    input_ids_BT: Tensor
    position_ids_BT: Tensor
    marks_BT: Tensor
    source_N: Tensor
    target_N: Tensor
    sequence_N: Tensor
    samples: list[Sample] = field(default_factory=list)

    @property
    def attention_mask(self) -> Tensor | None:
        """[B, 1, T, T] bool, None where plain causal attention does."""
        return dense_mask(self.marks_BT)

    def to(self, device: torch.device) -> "MicroBatch":
        """On the device, but for the marks: where segments begin and end is read from them one by one."""
        names = ("input_ids_BT", "position_ids_BT", "source_N", "target_N", "sequence_N")
        return replace(self, **{name: _sent(getattr(self, name), device) for name in names})


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """From page-locked memory a GPU fetches it while it computes; else the program waits for all that it was asked before."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def group_rows(samples: Iterable[Sample], pack_length: int = PACK_LENGTH) -> list[RowLayout]:
    """Rows of completions that share a prompt; a row is closed when it would pass `pack_length`."""
    by_prompt: dict[tuple[int, ...], list[Sample]] = {}
    for sample in samples:
        by_prompt.setdefault(tuple(sample.prompt_ids), []).append(sample)
    return [row for prompt, members in by_prompt.items() for row in _filled(list(prompt), members, pack_length)]


def packed_rows(samples: Sequence[Sample], pack_length: int = PACK_LENGTH) -> list[RowLayout]:
    """Rows of different prompts. What all of them begin with (a system message) is computed once a row. No sequence is cut."""
    return _filled(_common_prefix([sample.prompt_ids for sample in samples]), samples, pack_length)


def _common_prefix(prompts: Sequence[list[int]]) -> list[int]:
    """What all prompts begin with: what the first and the last in order have in common."""
    first, last = min(prompts), max(prompts)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:length]


def _filled(prefix: list[int], samples: Iterable[Sample], pack_length: int) -> list[RowLayout]:
    """First-fit decreasing into rows of `pack_length` positions; a longer sequence gets a row of its own."""
    rows: list[RowLayout] = []
    ordered = sorted(samples, key=lambda s: (-len(s.prompt_ids) - len(s.completion_ids), s.index))
    room = _Room(len(ordered))
    for sample in ordered:
        needed = len(sample.prompt_ids) - len(prefix) + len(sample.completion_ids)
        home = room.first(needed)
        if home is None:
            home = len(rows)
            rows.append(RowLayout(prefix, []))
            room.set(home, pack_length - len(prefix))
        rows[home].samples.append(sample)
        room.set(home, room.of(home) - needed)
    return rows


class _Room:
    """Positions that are free in each row, and the first row with enough of them: a tree of maxima, as thousands of rows may be open."""

    def __init__(self, rows: int) -> None:
        self._leaves = 1 << max(0, rows - 1).bit_length()
        self._most = [-1] * (2 * self._leaves)  # node i is over 2i and 2i + 1; a row that is not begun has no room

    def of(self, row: int) -> int:
        return self._most[self._leaves + row]

    def set(self, row: int, free: int) -> None:
        node = self._leaves + row
        self._most[node] = free
        while node > 1:
            node //= 2
            self._most[node] = max(self._most[2 * node], self._most[2 * node + 1])

    def first(self, needed: int) -> int | None:
        if self._most[1] < needed:
            return None
        node = 1
        while node < self._leaves:
            node = 2 * node if self._most[2 * node] >= needed else 2 * node + 1
        return node - self._leaves


def micro_batches(rows: Sequence[RowLayout], tokens: int, pad_id: int, alone_beyond: int | None = None) -> list[MicroBatch]:
    """Rows sorted by length and cut so that rows x longest row stays within `tokens` (a single longer row still makes a batch).

    alone_beyond: a row longer than this is a batch by itself (`Policy.alone_beyond`).
    """
    batches: list[list[RowLayout]] = []
    for row in sorted(rows, key=lambda r: (r.plain, r.length), reverse=True):
        last = batches[-1] if batches else None
        apart = alone_beyond is not None and last is not None and last[0].length > alone_beyond
        if last and last[0].plain == row.plain and (len(last) + 1) * last[0].length <= tokens and not apart:
            last.append(row)
        else:
            batches.append([row])
    return [collate(batch, pad_id) for batch in batches]


def collate(rows: Sequence[RowLayout], pad_id: int) -> MicroBatch:
    """Rows of any kind as one micro-batch, padded on the right.

    Positions count on through the padding: transformers takes a position that goes back for the start of another packed sequence, and
    would make a T x T mask for rows that need none.
    """
    width = max(row.length for row in rows)
    laid = [_lay_out(row) for row in rows]
    samples = [sample for row in rows for sample in row.samples]
    source: list[int] = []
    target: list[int] = []
    sequence: list[int] = []
    number = 0
    for b, (row, (_, _, _, predicted_from)) in enumerate(zip(rows, laid, strict=True)):
        for sample, places in zip(row.samples, predicted_from, strict=True):
            for place, token, counts in zip(places, sample.completion_ids, sample.trained or [True] * len(places), strict=True):
                if counts:
                    assert place >= 0, "the first token of a row without a prompt cannot be predicted from anything"
                    source.append(b * width + place)
                    target.append(token)
                    sequence.append(number)
            number += 1
    return MicroBatch(
        torch.tensor([_padded(ids, width, pad_id) for ids, _, _, _ in laid]),
        torch.tensor([positions + list(range(len(positions), width)) for _, positions, _, _ in laid]),
        torch.tensor([_padded(marks, width, PADDING) for _, _, marks, _ in laid]),
        torch.tensor(source, dtype=torch.long),
        torch.tensor(target, dtype=torch.long),
        torch.tensor(sequence, dtype=torch.long),
        samples,
    )


def _padded(values: list[int], width: int, filler: int) -> list[int]:
    return values + [filler] * (width - len(values))


def _lay_out(row: RowLayout) -> tuple[list[int], list[int], list[int], list[list[int]]]:
    """Token ids, positions and segment numbers of a row, and for each sequence the place that predicts each completion token.

    The first token of a completion is predicted from the end of its prompt, each later one from its predecessor.
    """
    ids = list(row.prefix_ids)
    positions = list(range(len(ids)))
    segments = [1 if row.plain else PREFIX] * len(ids)
    predicted_from = []
    for number, sample in enumerate(row.samples, start=1):
        own_prompt = sample.prompt_ids[len(row.prefix_ids) :]
        tokens = own_prompt + sample.completion_ids
        start = len(ids) + len(own_prompt)
        end_of_prompt = start - 1 if own_prompt else len(row.prefix_ids) - 1
        ids += tokens
        positions += range(len(row.prefix_ids), len(row.prefix_ids) + len(tokens))
        segments += [number] * len(tokens)
        predicted_from.append([end_of_prompt, *range(start, start + len(sample.completion_ids) - 1)][: len(sample.completion_ids)])
    return ids, positions, segments, predicted_from


def dense_mask(marks_BT: Tensor) -> Tensor | None:
    """`segment_mask`, or None when every row is a single segment."""
    plain = ((marks_BT == 1) | (marks_BT == PADDING)).all()
    return None if plain else segment_mask(marks_BT)


def segment_mask(marks_BT: Tensor) -> Tensor:
    """[B, 1, T, T] bool, True where a query (third axis) may attend to a key (fourth): itself, its own segment before it, the prefix."""
    query, key = marks_BT[:, :, None], marks_BT[:, None, :]
    size = marks_BT.shape[1]
    causal = torch.ones(size, size, dtype=torch.bool, device=marks_BT.device).tril()
    allowed = causal & ((query == key) | ((key == PREFIX) & (query != PADDING)))
    return allowed[:, None]
