"""Advantages against hand-computed numbers and against NumPy-free definitions."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1cli.train.advantages import EPSILON, group_advantages

REWARDS = st.lists(st.lists(st.sampled_from([-1.0, 0.0, 0.1, 0.5, 1.0, 3.0]), min_size=2, max_size=6), min_size=1, max_size=4)


def test_the_numbers_of_the_recipe() -> None:
    [group] = group_advantages([[1, 0, 0, 0]])
    assert group == pytest.approx([1.4997, -0.4999, -0.4999, -0.4999], abs=5e-5)


@pytest.mark.parametrize("kind", ["group", "batch", "mean", "loo"])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])  # the mean of 0.1 x 3 does not round to 0.1
def test_equal_rewards_give_exactly_zero(kind: str, value: float) -> None:
    assert group_advantages([[value] * 3, [0.0, 1.0]], kind)[0] == [0.0, 0.0, 0.0]


def test_each_kind_by_hand() -> None:
    rewards = [[1.0, 0.0], [2.0, 2.0, 2.0, 0.0]]
    assert group_advantages(rewards, "mean") == [[0.5, -0.5], [0.5, 0.5, 0.5, -1.5]]
    assert group_advantages(rewards, "loo")[0] == [1.0, -1.0]  # 1 - 0 and 0 - 1
    assert group_advantages(rewards, "loo")[1] == pytest.approx([2 / 3, 2 / 3, 2 / 3, -2.0])  # 2 - 4/3 and 0 - 2
    spread = statistics.stdev([1.0, 0.0, 2.0, 2.0, 2.0, 0.0]) + EPSILON
    assert group_advantages(rewards, "batch")[0] == pytest.approx([0.5 / spread, -0.5 / spread])


@given(REWARDS, st.sampled_from(["group", "batch", "mean", "loo"]))
def test_a_group_sums_to_zero_and_keeps_its_order(rewards: list[list[float]], kind: str) -> None:
    for group, advantages in zip(rewards, group_advantages(rewards, kind), strict=True):
        assert sum(advantages) == pytest.approx(0.0, abs=1e-9)
        assert sorted(range(len(group)), key=lambda i: (group[i], i)) == sorted(range(len(group)), key=lambda i: (advantages[i], i))


@given(REWARDS)
def test_the_group_form_is_the_definition(rewards: list[list[float]]) -> None:
    for group, advantages in zip(rewards, group_advantages(rewards), strict=True):
        spread = statistics.stdev(group) + EPSILON
        assert advantages == pytest.approx([(r - statistics.fmean(group)) / spread for r in group], abs=1e-9)


def test_a_group_of_one_and_an_unknown_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        group_advantages([[1.0, 0.0], [1.0]])
    with pytest.raises(ValueError, match="known: group"):
        group_advantages([[1.0, 0.0]], "median")
