"""Preferences as micro-batches: pairs stay together, budgets hold, and the losses by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1cli.train.preference import Example, example_batches, label_loss, loss_of, preference_loss
from tests.train.toy import PAD

ids = st.lists(st.integers(4, 9), min_size=1, max_size=12)


@given(st.lists(st.tuples(ids, ids), min_size=1, max_size=8), st.integers(1, 80), st.booleans())
def test_a_pair_is_in_one_micro_batch_and_each_side_is_read_at_its_last_token(
    sides: list[tuple[list[int], list[int]]], tokens: int, shared: bool
) -> None:
    examples = [Example(pair, 0.0) for pair in sides]
    batches = example_batches(examples, range(len(examples)), tokens, PAD, shared=shared)
    seen = []
    for batch in batches:
        indices = [sample.index for sample in batch.samples]
        assert [(first // 2, first % 2, second) for first, second in zip(indices[::2], indices[1::2], strict=True)] == [
            (first // 2, 0, first + 1) for first in indices[::2]
        ]
        seen += indices[::2]
        rows, width = batch.input_ids_BT.shape
        assert rows * width <= tokens or len(batch.samples) == 2
        last = batch.input_ids_BT.flatten()[batch.source_N].tolist()
        assert last == [examples[index // 2].sides[index % 2][-1] for index in indices]
    assert sorted(seen) == [2 * number for number in range(len(examples))]


def test_a_pairs_prompt_is_computed_once() -> None:
    example = Example(([5, 6, 7, 8], [5, 6, 9]), 0.0)
    [shared] = example_batches([example], [0], 100, PAD, shared=True)
    assert shared.input_ids_BT.tolist() == [[5, 6, 7, 8, PAD, 9, PAD]]
    assert shared.position_ids_BT.tolist() == [[0, 1, 2, 3, 4, 2, 3]]
    [apart] = example_batches([example], [0], 100, PAD, shared=False)
    assert apart.input_ids_BT.shape == (2, 5)


def test_one_side_may_begin_the_other() -> None:
    [batch] = example_batches([Example(([5, 6], [5, 6, 7]), 0.0)], [0], 100, PAD, shared=True)
    assert batch.input_ids_BT.flatten()[batch.source_N].tolist() == [6, 7]


def test_the_loss_of_pairs_by_hand() -> None:
    scores = torch.tensor([2.0, 0.5, -1.0, 1.0])  # margins 1.5 and -2
    loss, figures = preference_loss(scores, torch.tensor([0.5, 0.0]), 0.1, 0.5)
    expected = (math.log1p(math.exp(-1.0)) + math.log1p(math.exp(2.0)) + 0.1 * (2.5**2 + 0.0)) / 2
    assert float(loss) == pytest.approx(expected)
    assert {name: float(value) for name, value in figures.items()} == pytest.approx({"accuracy": 0.5, "margin": -0.25, "score": 0.625})


def test_the_loss_of_labels_by_hand() -> None:
    loss, figures = label_loss(torch.tensor([2.0, -1.0, 0.5]), torch.tensor([1.0, 0.0, 0.0]), 1 / 3)
    expected = (math.log1p(math.exp(-2.0)) + math.log1p(math.exp(-1.0)) + math.log1p(math.exp(0.5))) / 3
    assert float(loss) == pytest.approx(expected)
    assert float(figures["accuracy"]) == pytest.approx(2 / 3)


def test_margins_follow_their_pair_into_any_micro_batch() -> None:
    examples = [Example(([5] * (3 + n), [6] * (3 + n)), float(n)) for n in range(4)]
    loss = loss_of(examples, 0.0, 1.0)
    total = 0.0
    for batch in example_batches(examples, [0, 1, 2, 3], 1, PAD, shared=True):
        value, _ = loss(batch, torch.tensor([1.0, 0.0]))
        total += float(value)
    assert total == pytest.approx(sum(math.log1p(math.exp(n - 1.0)) for n in range(4)))
