"""Layout of rows and micro-batches, on sequences small enough to read."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1cli.train.batches import PADDING, PREFIX, Sample, collate, group_rows, micro_batches, packed_rows, segment_mask
from tests.train.toy import PAD, group_samples, tokens


def test_a_shared_prompt_stands_once_and_positions_restart_after_it() -> None:
    batch = collate(group_rows([Sample(0, [11, 12], [21, 22, 23]), Sample(1, [11, 12], [31])]), PAD)
    assert batch.input_ids_BT.tolist() == [[11, 12, 21, 22, 23, 31]]
    assert batch.position_ids_BT.tolist() == [[0, 1, 2, 3, 4, 2]]
    assert batch.source_N.tolist() == [1, 2, 3, 1]  # the first token of each completion is predicted from the prompt's end
    assert batch.target_N.tolist() == [21, 22, 23, 31]
    assert batch.sequence_N.tolist() == [0, 0, 0, 1]


def test_segments_of_a_packed_row_see_only_themselves() -> None:
    batch = collate(packed_rows([Sample(0, [11, 12], [21]), Sample(1, [13], [31])], 16), PAD)
    assert batch.input_ids_BT.tolist() == [[11, 12, 21, 13, 31]]
    assert batch.position_ids_BT.tolist() == [[0, 1, 2, 0, 1]]
    assert batch.source_N.tolist() == [1, 3]
    assert batch.attention_mask is not None
    mask = batch.attention_mask[0, 0].int().tolist()
    assert mask == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 1]]


def test_completions_see_the_prefix_and_padding_sees_something() -> None:
    mask = segment_mask(torch.tensor([[PREFIX, 1, 1, 2, PADDING]]))[0, 0].int().tolist()
    assert mask == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 1]]  # a row of zeros would be NaN


def test_tokens_that_do_not_count_are_context_only() -> None:
    batch = collate(packed_rows([Sample(0, [11], [21, 22, 23], trained=[True, False, True])], 16), PAD)
    assert batch.target_N.tolist() == [21, 23] and batch.source_N.tolist() == [0, 2]
    assert batch.attention_mask is None  # a single sequence needs no mask


@pytest.mark.parametrize("pack_length", [1, 20, 40, 10_000])
def test_rows_keep_to_the_length_and_lose_nothing(pack_length: int) -> None:
    samples = group_samples(groups=5, size=6)
    for rows in (group_rows(samples, pack_length), packed_rows(samples, pack_length)):
        assert sorted(s.index for row in rows for s in row.samples) == list(range(len(samples)))
        assert all(row.plain or row.length <= pack_length for row in rows)
    assert len(group_rows(samples, 10_000)) == 5 and len(packed_rows(samples, 10_000)) == 1


@pytest.mark.parametrize("limit", [1, 30, 64, 10_000])
def test_micro_batches_keep_to_the_limit_and_hold_the_right_tokens(limit: int) -> None:
    rng = random.Random(1)
    samples = group_samples(groups=4, size=4) + [Sample(16 + i, tokens(rng, 1, 30), tokens(rng, 1, 30)) for i in range(9)]
    batches = micro_batches(group_rows(samples, 40), limit, PAD)
    assert sorted(s.index for batch in batches for s in batch.samples) == list(range(len(samples)))
    for batch in batches:
        assert batch.input_ids_BT.numel() <= limit or len(batch.input_ids_BT) == 1
        lengths = [len(sample.completion_ids) for sample in batch.samples]
        assert batch.target_N.tolist() == [token for sample in batch.samples for token in sample.completion_ids]
        assert batch.sequence_N.tolist() == [number for number, length in enumerate(lengths) for _ in range(length)]
        before = batch.input_ids_BT.flatten()[batch.source_N].tolist()
        assert before == [token for s in batch.samples for token in [s.prompt_ids[-1], *s.completion_ids[:-1]]]


def test_padding_of_plain_rows_keeps_the_causal_path() -> None:
    batch = collate(group_rows([Sample(0, [11, 12], [21, 22]), Sample(1, [13], [31])]), PAD)
    assert batch.input_ids_BT.tolist() == [[11, 12, 21, 22], [13, 31, PAD, PAD]] and batch.attention_mask is None
    assert batch.position_ids_BT.diff().eq(1).all()


def test_a_token_that_nothing_predicts_cannot_count() -> None:
    """Its place would be the one before the row: the end of another row."""
    with pytest.raises(AssertionError, match="without a prompt"):
        collate(packed_rows([Sample(0, [], [21, 22]), Sample(1, [11], [31])], 0), PAD)
    batch = collate(packed_rows([Sample(0, [], [21, 22], trained=[False, True]), Sample(1, [11], [31])], 16), PAD)
    assert batch.source_N.tolist() == [0, 2] and batch.target_N.tolist() == [22, 31]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 70), st.integers(0, 5))
def test_rows_are_filled_first_fit_decreasing(lengths: list[int], pack_length: int, shared: int) -> None:
    """As by the textbook: each sequence goes to the first row that has room for it."""
    samples = [Sample(number, [9] * shared + [number], [1] * length) for number, length in enumerate(lengths)]
    prefix = shared if len(samples) > 1 else shared + 1
    rows: list[list[int]] = []
    for sample in sorted(samples, key=lambda s: (-len(s.completion_ids), s.index)):
        needed = shared + 1 - prefix + len(sample.completion_ids)
        used = [prefix + sum(shared + 1 - prefix + lengths[i] for i in row) for row in rows]
        home = next((row for row, full in zip(rows, used, strict=True) if full + needed <= pack_length), None)
        rows.append([sample.index]) if home is None else home.append(sample.index)
    assert [[sample.index for sample in row.samples] for row in packed_rows(samples, pack_length)] == rows
