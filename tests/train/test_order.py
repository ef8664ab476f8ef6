"""Which rows a step takes, and how a rollout is split."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1cli.train.order import random_parts, rows_a_step, step_rows, steps_of


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 3))
def test_every_row_is_taken_once_an_epoch(count: int, per_step: int, seed: int) -> None:
    epochs = 3
    steps = -(-count * epochs // per_step)
    taken = [row for step in range(steps) for row in step_rows(count, step, per_step, seed)][: count * epochs]
    for epoch in range(epochs):
        assert sorted(taken[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_a_step_is_a_function_of_its_number_and_the_seed() -> None:
    assert step_rows(100, 7, 8, seed=1) == step_rows(100, 7, 8, seed=1)
    assert step_rows(100, 7, 8, seed=1) != step_rows(100, 7, 8, seed=2)
    assert step_rows(10, 0, 10, seed=1) != step_rows(10, 1, 10, seed=1)  # each epoch has its own order


@given(st.lists(st.integers(), unique=True, max_size=40), st.integers(1, 9))
def test_parts_are_equal_and_hold_every_place_once(keys: list[int], parts: int) -> None:
    split = random_parts(keys, parts, "salt")
    assert Counter(i for part in split for i in part) == Counter(range(len(keys)))
    assert len(split) == parts and max(map(len, split)) - min(map(len, split)) <= 1


def test_the_split_belongs_to_the_keys_not_to_their_places() -> None:
    keys = [("step", i) for i in range(30)]
    turned = keys[::-1]
    one = [{keys[i] for i in part} for part in random_parts(keys, 4, "salt")]
    other = [{turned[i] for i in part} for part in random_parts(turned, 4, "salt")]
    assert [part & other_part for part, other_part in zip(one[:2], other[:2], strict=True)] == one[:2]
    assert random_parts(keys, 4, "salt") != random_parts(keys, 4, "pepper")
    assert random_parts(keys, 3, "salt")[0] != list(range(10))


@pytest.mark.parametrize("sources", [(), [0, 0, 1, 1, 1, 0]])
def test_also_a_small_rollout_is_split_at_random(sources: Sequence[int]) -> None:
    firsts = [frozenset(random_parts(range(6), 2, str(salt), sources)[0]) for salt in range(30)]
    assert len(set(firsts)) > 6 and len({index for first in firsts for index in first}) == 6


@given(st.lists(st.integers(0, 3), min_size=1, max_size=80), st.integers(1, 9))
def test_every_part_holds_the_shares_of_the_whole(sources: list[int], parts: int) -> None:
    split = random_parts(range(len(sources)), parts, "salt", sources)
    assert Counter(i for part in split for i in part) == Counter(range(len(sources)))
    assert max(map(len, split)) - min(map(len, split)) <= 1
    for source, number in Counter(sources).items():
        held = [sum(sources[i] == source for i in part) for part in split]
        assert max(held) - min(held) <= 1 and sum(held) == number


@pytest.mark.parametrize("parts", [1, 16])
def test_the_papers_split(parts: int) -> None:
    assert {len(part) for part in random_parts(range(8192), parts, "0/0/0")} == {8192 // parts}


@pytest.mark.parametrize(
    ("count", "epochs", "batch_rows", "steps"),
    [(12, 6, 128, 6), (128, 2, 128, 2), (300, 2, 128, 5), (12, 0.5, 128, 1), (12, 2.5, 128, 3), (5, 0.1, 2, 1), (0, 2, 128, 1)],
)
def test_epochs_are_passes_over_the_rows_also_when_they_do_not_fill_a_step(count: int, epochs: float, batch_rows: int, steps: int) -> None:
    assert steps_of(count, epochs, batch_rows) == steps
    taken = Counter(row for step in range(steps) for row in step_rows(count, step, rows_a_step(count, batch_rows), 0)) if count else {}
    assert all(times >= int(epochs) for times in taken.values()) and len(taken) >= min(count, int(count * epochs))
