"""Rows are what was put in, and take four bytes a token."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1cli.train.batches import Sample
from r1cli.train.stored_rows import StoredRows, Turn

IDS = st.lists(st.integers(0, 2**31 - 1), max_size=5)


@given(st.lists(st.lists(st.tuples(IDS, IDS), max_size=3), max_size=6))
def test_rows_come_back(rows: list[list[Turn]]) -> None:
    stored = StoredRows()
    for row in rows:
        stored.append(row)
    assert len(stored) == len(rows)
    assert list(stored) == [[Sample(number, *turn) for turn in row] for number, row in enumerate(rows)]
    assert list(stored.turns) == [turn for row in rows for turn in row]
    with pytest.raises(IndexError):
        stored[len(rows)]


def test_a_token_takes_four_bytes() -> None:
    stored = StoredRows()
    for _ in range(100):
        stored.append([(list(range(1000)), list(range(1000, 2000)))])
    held = sum(sys.getsizeof(part) for whole in (stored, stored.turns) for part in vars(whole).values())
    assert held < 4.6 * 200_000
