"""Preferences as tensors: which sequences share a micro-batch, and the two losses.

Shapes: _N scores of a micro-batch, _P pairs of it.

A pair's two sequences are one row behind the tokens they have in common, so a prompt is computed once (`batches.py`); where a model
cannot share rows they are two rows of the same micro-batch. The loss of a pair needs both scores at once.

Sources: Bradley-Terry (1952) as in InstructGPT (arXiv 2203.02155, equation 1); the margin of Llama 2 (arXiv 2307.09288, equation 2);
centring by Eisenstein et al. (arXiv 2312.09244), as in TRL's RewardTrainer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from r1cli.train.batches import MicroBatch, RowLayout, Sample, collate

LossOf = Callable[[MicroBatch, Tensor], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True, slots=True)
class Example:
    """sides: tokens of (chosen, rejected), or of one completion, prompt included and scored at the last. target: margin, or label."""

    sides: tuple[list[int], ...]
    target: float

    @property
    def tokens(self) -> int:
        return sum(len(side) for side in self.sides)


def example_batches(
    examples: Sequence[Example], numbers: Sequence[int], tokens: int, pad_id: int, *, shared: bool, alone_beyond: int | None = None
) -> list[MicroBatch]:
    """Micro-batches of examples[i] for i in numbers, longest first, of at most `tokens` positions (padding included; a single longer
    example still makes one). A sample's index is `number * sides + side`. shared: see `Policy.row_length`. alone_beyond: see `Policy`; the
    sides of an example stay together.
    """
    laid = [_rows(examples[number], number, shared, pad_id) for number in numbers]
    batches: list[list[RowLayout]] = []
    width = 0
    for rows in sorted(laid, key=lambda rows: (-_width(rows), rows[0].samples[0].index)):
        apart = alone_beyond is not None and width > alone_beyond
        if batches and (len(batches[-1]) + len(rows)) * width <= tokens and not apart:
            batches[-1] += rows
        else:
            batches.append(rows)
            width = _width(rows)
    return [collate(batch, pad_id) for batch in batches]


def _width(rows: Sequence[RowLayout]) -> int:
    return max(row.length for row in rows)


def _rows(example: Example, number: int, shared: bool, pad_id: int) -> list[RowLayout]:
    """An example's rows. One token is put behind each sequence: what is read is the place that would predict it, the last token."""
    count = len(example.sides)
    together = shared and count > 1
    prefix = _common(example.sides) if together else []
    samples = []
    for side, ids in enumerate(example.sides):
        own = [*ids[len(prefix) :], pad_id]
        samples.append(Sample(number * count + side, prefix, own, trained=[False] * (len(own) - 1) + [True]))
    return [RowLayout(prefix, samples)] if together else [RowLayout([], [sample]) for sample in samples]


def _common(sides: Sequence[list[int]]) -> list[int]:
    """What all sides begin with, without the last token of any."""
    shortest = min(len(side) for side in sides) - 1
    return [pair[0] for pair in takewhile(lambda pair: len(set(pair)) == 1, zip(*(side[:shortest] for side in sides), strict=True))]


def preference_loss(scores_N: Tensor, target_P: Tensor, center: float, weight: float) -> tuple[Tensor, dict[str, Tensor]]:
    """weight * sum over pairs of -log sigmoid(chosen - rejected - margin) + center * (chosen + rejected)^2, and what is worth logging.

    scores_N: chosen and rejected of each pair in turn. With weight 1 / pairs it is TRL's mean.
    """
    chosen_P, rejected_P = scores_N.view(-1, 2).unbind(-1)
    margin_P = chosen_P - rejected_P
    loss = (-logsigmoid(margin_P - target_P) + center * (chosen_P + rejected_P) ** 2).sum() * weight
    figures = {
        "accuracy": (margin_P > 0).float().sum() * weight,
        "margin": margin_P.sum() * weight,
        "score": scores_N.sum() * weight / 2,
    }
    return loss, figures


def label_loss(scores_N: Tensor, label_N: Tensor, weight: float) -> tuple[Tensor, dict[str, Tensor]]:
    """weight * sum of the binary cross-entropy of sigmoid(score) and the label (1 is good), and what is worth logging."""
    loss = binary_cross_entropy_with_logits(scores_N, label_N, reduction="sum") * weight
    right_N = (scores_N > 0) == (label_N > 0.5)
    return loss, {"accuracy": right_N.float().sum() * weight, "score": scores_N.sum() * weight}


def loss_of(examples: Sequence[Example], center: float, weight: float) -> LossOf:
    """The loss of micro-batches of these examples, all pairs or all labelled; `weight` is 1 over the step's examples."""
    sides = len(examples[0].sides)

    def loss(batch: MicroBatch, scores_N: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        numbers = [sample.index // sides for sample in batch.samples[::sides]]
        target = torch.tensor([examples[number].target for number in numbers], device=scores_N.device)
        return preference_loss(scores_N, target, center, weight) if sides == 2 else label_loss(scores_N, target, weight)

    return loss
