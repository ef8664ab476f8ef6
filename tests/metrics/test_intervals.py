"""Intervals against scipy, hand-computed numbers, and repeated experiments whose truth is known."""

import random
from collections.abc import Sequence

import pytest
from scipy.stats import binomtest

from r1cli.metrics.intervals import ProblemMeans, design_effect, mean_interval, paired_difference, wilson


@pytest.mark.parametrize(("right", "n"), [(0, 30), (1, 30), (15, 30), (30, 30), (7, 500), (1, 1), (0, 1)])
@pytest.mark.parametrize("level", [0.95, 0.99])
def test_one_completion_a_problem_is_wilson(right: int, n: int, level: float) -> None:
    ours = mean_interval([1.0] * right + [0.0] * (n - right), n, level)
    theirs = binomtest(right, n).proportion_ci(level, method="wilson")
    assert (ours.mean, ours.low, ours.high) == pytest.approx((right / n, theirs.low, theirs.high), abs=1e-12)


def test_repeating_every_completion_does_not_narrow_the_interval() -> None:
    once = mean_interval([1.0] * 12 + [0.0] * 18, 30)
    assert mean_interval([1.0] * 12 + [0.0] * 18, 30 * 64) == once


def test_independent_completions_count_in_full_and_no_more() -> None:
    # Every problem has the same share: there is no spread between problems, and the 800 completions are 800 trials.
    assert mean_interval([0.25] * 200, 800) == wilson(0.25, 800)


def test_the_design_effect_by_hand() -> None:
    # [.5, .5] with 0 and 1 added: mean .5, variance (2 * 0 + 2 * .25) / 4 = .125, over .25
    assert design_effect([0.5, 0.5]) == pytest.approx(0.5)
    assert design_effect([0.0, 1.0, 1.0]) == pytest.approx(1.0)


def test_no_right_completion_and_one_right_completion_tell_nearly_the_same() -> None:
    none = mean_interval([0.0] * 30, 30 * 64)
    one = mean_interval([0.0] * 29 + [1 / 64], 30 * 64)
    assert none.low == 0 and 0.10 < none.high < 0.13
    assert 0.8 * none.high < one.high < 1.2 * none.high


def coverage(draw: Sequence[float], k: int, problems: int, rng: random.Random) -> float:
    """Share of 300 experiments whose interval holds the true mean; problem difficulties are drawn from `draw`."""
    truth, held = sum(draw) / len(draw), 0
    for _ in range(300):
        chances = [rng.choice(draw) for _ in range(problems)]
        means = [sum(rng.random() < p for _ in range(k)) / k for p in chances]
        interval = mean_interval(means, k * problems)
        held += interval.low <= truth <= interval.high
    return held / 300


@pytest.mark.parametrize("draw", [[0.0] * 19 + [0.8], [0.02], [0.1, 0.5, 0.9], [0.95, 1.0, 1.0, 0.9]])
@pytest.mark.parametrize("k", [1, 8])
def test_intervals_hold_the_truth_as_often_as_they_claim(draw: list[float], k: int) -> None:
    assert coverage(draw, k, 40, random.Random(1)) >= 0.92  # the plain mean +- 1.96 se holds it in 40% to 90% of these


def test_scores_outside_0_to_1_and_empty_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="must lie in"):
        mean_interval([0.5, 1.5], 2)
    with pytest.raises(ValueError, match="no problems"):
        mean_interval([], 0)


def test_a_mean_stands_in_the_middle_of_its_interval_when_problems_are_uneven() -> None:
    found = ProblemMeans()
    for problem, scores in (("a", [1.0] * 9), ("b", [0.0])):
        for score in scores:
            found.add(problem, score)
    expected = mean_interval([1.0, 0.0], 10)
    assert found.count == 10 and found.mean() == expected.mean == 0.5 and found.interval() == (expected.low, expected.high)


def test_a_paired_difference_is_agresti_and_mins_interval() -> None:
    # 100 pairs, 20 right only by the second and 8 only by the first. Half a pair to each cell: n 102, b 20.5, c 8.5;
    # difference 12/102 = .117647, variance (29/102 - .117647^2)/102 = .00265169, half width 1.959964 * .0514946 = .1009276.
    first = [0.0] * 20 + [1.0] * 8 + [1.0] * 40 + [0.0] * 32
    second = [1.0] * 20 + [0.0] * 8 + [1.0] * 40 + [0.0] * 32
    interval = paired_difference(first, second)
    assert interval.mean == pytest.approx(0.12)
    assert (interval.low, interval.high) == pytest.approx((0.016719, 0.218575), abs=1e-6)


def test_pairing_narrows_and_the_same_model_twice_differs_by_nothing() -> None:
    scores = [0.0, 0.25, 0.5, 0.75, 1.0] * 20
    better = [min(1.0, s + 0.1) for s in scores]
    paired = paired_difference(scores, better)
    assert paired.low > 0  # two separate intervals overlap
    assert mean_interval(scores, 400).high > mean_interval(better, 400).low
    same = paired_difference(scores, scores)
    assert same.mean == 0 and same.low == -same.high < 0
    with pytest.raises(ValueError, match="same problems"):
        paired_difference([1.0], [1.0, 0.0])
