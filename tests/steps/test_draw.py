"""Drawing: how often a row is taken, in which order, which ones are held back; the same whatever the order of the rows."""

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1cli.steps import draw
from r1cli.steps.dedupe import digest


def digests(names: list[str]) -> np.ndarray:
    return np.frombuffer(b"".join(digest(name.encode()) for name in names), np.uint64).reshape(-1, 2)


def shuffled(names: list[str], times: list[int] | None = None, seed: int = 0) -> list[str]:
    keys = draw.keys(digests(names), seed, draw.ORDER)
    return [names[i] for i in draw.repeated(np.array([1] * len(names) if times is None else times, np.int64), keys)]


NAMES = [f"row {n}" for n in range(50)]


@given(st.randoms(use_true_random=False), st.integers(0, 120))
def test_which_rows_and_which_order_do_not_depend_on_where_rows_stood(rng: random.Random, count: int) -> None:
    def mixture(names: list[str]) -> list[str]:
        times = draw.take(draw.keys(digests(names), 3, draw.CHOICE), count)
        return shuffled(names, times.tolist(), 3)

    some = NAMES + NAMES[:7]  # seven rows are there twice
    result = mixture(some)
    assert len(result) == count
    assert mixture(rng.sample(some, len(some))) == result


def test_a_shuffle_is_a_permutation_that_the_seed_decides() -> None:
    assert sorted(shuffled(NAMES)) == sorted(NAMES)
    assert shuffled(NAMES) != NAMES
    assert shuffled(NAMES, seed=1) != shuffled(NAMES, seed=2)
    assert shuffled([]) == []


def test_every_row_is_drawn_equally_often() -> None:
    counts = Counter(int(i) for seed in range(500) for i in np.flatnonzero(draw.take(draw.keys(digests(NAMES[:10]), seed, draw.CHOICE), 3)))
    assert all(abs(counts[n] - 150) < 5 * (500 * 0.3 * 0.7) ** 0.5 for n in range(10))


def test_every_row_comes_equally_early() -> None:
    places = [shuffled(NAMES[:10], seed=seed).index(NAMES[0]) for seed in range(500)]
    assert abs(sum(places) / 500 - 4.5) < 5 * (99 / 12 / 500) ** 0.5


def test_being_drawn_says_nothing_about_the_place() -> None:
    names = [f"l{n}" for n in range(2000)] + [f"s{n}" for n in range(200)]
    choices = draw.keys(digests(names), 0, draw.CHOICE)
    times = np.concatenate([draw.take(choices[:2000], 200), np.ones(200, np.int64)])
    places = [n for n, name in enumerate(shuffled(names, times.tolist())) if name.startswith("l")]
    assert abs(sum(places) / 200 - 199.5) < 5 * 400 / (12 * 200) ** 0.5


def test_equal_rows_and_repeats_of_a_row_are_not_neighbours() -> None:
    for order in (shuffled(NAMES * 4), shuffled(NAMES, [4] * 50)):
        assert Counter(order) == dict.fromkeys(NAMES, 4)
        assert sum(one == two for one, two in pairwise(order)) < 20


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(0, 100))
def test_strata_keep_their_shares(strata: list[int], count: int) -> None:
    choices = draw.keys(digests(NAMES[: len(strata)]), 0, draw.CHOICE)
    times = draw.take(choices, count, np.array(strata))
    assert times.sum() == count
    assert times.max() - times.min() <= 1
    for name in set(strata):
        size = strata.count(name)
        assert abs(times[np.array(strata) == name].sum() - count * size / len(strata)) < 1


@pytest.mark.parametrize(
    ("sizes", "total", "quotas"),
    [([70, 30], 10, [7, 3]), ([1, 1, 1], 2, [1, 1, 0]), ([5, 4, 1], 5, [3, 2, 0]), ([3], 0, [0]), ([2**40, 2**40], 2**40, [2**39] * 2)],
)
def test_largest_remainders_by_hand(sizes: list[int], total: int, quotas: list[int]) -> None:
    assert draw.by_largest_remainder(np.array(sizes), total).tolist() == quotas


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50), st.integers(0, 50), st.randoms(use_true_random=False))
def test_all_rows_of_a_prompt_are_on_one_side(prompts: list[int], wanted: int, rng: random.Random) -> None:
    names = NAMES[: len(prompts)]
    held = draw.validation_rows(np.array(prompts), draw.keys(digests(names), 0, draw.SPLIT), wanted)
    assert {prompts[i] for i in np.flatnonzero(held)}.isdisjoint(prompts[i] for i in np.flatnonzero(~held))
    assert held.sum() <= wanted
    left_out = [prompts.count(prompt) for prompt in set(prompts) if not held[prompts.index(prompt)]]
    assert all(size > wanted - held.sum() for size in left_out), "a prompt that fits is not left out"
    order = rng.sample(range(len(names)), len(names))
    keys = draw.keys(digests([names[i] for i in order]), 0, draw.SPLIT)
    again = draw.validation_rows(np.array([prompts[i] for i in order]), keys, wanted)
    assert [bool(held[i]) for i in order] == again.tolist()


def test_the_rows_held_back_keep_the_shares_of_strata() -> None:
    names = [f"n{n}" for n in range(100)]
    strata = np.array([0] * 80 + [1] * 20)
    held = draw.validation_rows(np.arange(100), draw.keys(digests(names), 0, draw.SPLIT), 10, strata)
    assert (held[:80].sum(), held[80:].sum()) == (8, 2)
