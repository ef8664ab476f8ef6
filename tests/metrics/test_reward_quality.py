"""What a reward model is worth, compared with scipy where it has the figure, and with counts by hand."""

import math
import random
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import bootstrap, mannwhitneyu, pearsonr, rankdata

from r1cli.metrics.intervals import paired_difference, wilson
from r1cli.metrics.reward_quality import (
    LengthRule,
    Measured,
    area_under_roc,
    calibration_error,
    clustered,
    clustered_difference,
    learn_rule,
    mean_ranks,
    pearson,
    quality,
    sigmoid,
    softplus,
)

few = st.lists(st.integers(-5, 5).map(float), min_size=2, max_size=30)


def pair(chosen: float, rejected: float, lengths: tuple[int, int] = (1, 1), prompt: str = "") -> Measured:
    return Measured((chosen, rejected), lengths, prompt or f"{chosen} {rejected} {lengths}")


def one(score: float, label: float, length: int = 1, prompt: str = "") -> Measured:
    return Measured((score,), (length,), prompt or f"{score} {label} {length}", label)


@given(few)
def test_ranks_are_scipys(values: list[float]) -> None:
    assert mean_ranks(values) == pytest.approx(list(rankdata(values)))


labelled = st.lists(st.tuples(st.integers(-5, 5).map(float), st.sampled_from([0.0, 1.0])), min_size=2, max_size=30)


@given(labelled)
def test_the_area_under_the_curve_is_mann_whitneys_u(rows: list[tuple[float, float]]) -> None:
    scores, labels = [score for score, _ in rows], [label for _, label in rows]
    good, bad = ([score for score, label in rows if label == wanted] for wanted in (1.0, 0.0))
    found = area_under_roc(scores, labels, [str(place) for place in range(len(rows))])
    if not good or not bad:
        assert found is None
    else:
        assert found is not None and found.mean == pytest.approx(mannwhitneyu(good, bad).statistic / (len(good) * len(bad)))


def area_interval(spread: float, copies: int = 1, clusters: int | None = None) -> tuple[float, float, float]:
    rng = random.Random(5)
    rows = [(rng.gauss(spread * (n % 2), 1.0), float(n % 2), str(n if clusters is None else n % clusters)) for n in range(80)] * copies
    found = area_under_roc(*([row[part] for row in rows] for part in range(3)))  # type: ignore[arg-type]
    assert found is not None
    return found.mean, found.low, found.high


def test_the_interval_of_the_area_is_that_of_the_bootstrap() -> None:
    rng = numpy.random.default_rng(0)
    source = random.Random(5)
    rows = [(source.gauss(1.0 * (n % 2), 1.0), n % 2) for n in range(80)]
    good, bad = (numpy.array([score for score, label in rows if label == wanted]) for wanted in (1, 0))

    def area(one: Any, other: Any, axis: int = -1) -> Any:
        return mannwhitneyu(one, other, axis=axis).statistic / (len(good) * len(bad))

    theirs = bootstrap((good, bad), area, n_resamples=2000, rng=rng, method="percentile").confidence_interval
    mean, low, high = area_interval(1.0)
    assert mean == pytest.approx(float(area(good, bad)))
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_the_same_rows_twice_make_the_area_no_surer() -> None:
    assert area_interval(1.0, copies=3) == pytest.approx(area_interval(1.0), abs=1e-3)


def test_an_area_of_one_is_as_sure_as_the_rarer_label_is_frequent() -> None:
    found = area_under_roc([1.0, 2.0, 3.0, 9.0], [0.0, 0.0, 0.0, 1.0], list("abcd"))
    assert found == wilson(1.0, 1)


def test_the_correlation_is_scipys_and_nothing_when_nothing_varies() -> None:
    rng = random.Random(1)
    one_, other = [rng.gauss(0, 1) for _ in range(50)], [rng.gauss(0, 2) for _ in range(50)]
    assert pearson(one_, other) == pytest.approx(pearsonr(one_, other).statistic)
    assert pearson([1.0, 1.0], [2.0, 3.0]) is None


@given(st.floats(-1e4, 1e4))
def test_sigmoid_and_softplus_hold_at_any_size(value: float) -> None:
    assert sigmoid(value) == pytest.approx(float(expit(value)), rel=1e-9, abs=1e-300)
    assert softplus(value) == pytest.approx(math.log1p(math.exp(value)) if value < 30 else value)


def test_the_calibration_error_by_hand() -> None:
    # bin 0.9..1: mean chance 0.95, 1 of 2 right; bin 0.6..0.7: 0.65, 2 of 2. (2 * 0.45 + 2 * 0.35) / 4
    assert calibration_error([0.92, 0.98, 0.61, 0.69], [1.0, 0.0, 1.0, 1.0]) == pytest.approx(0.4)
    assert calibration_error([1.0, 0.0], [1.0, 0.0]) == 0.0


def test_the_unit_of_the_interval_is_the_prompt() -> None:
    values = [1.0, 1.0, 0.0, 0.0]
    assert clustered(values, list("abcd")) == wilson(0.5, 4)
    assert clustered(values, list("aabb")) == wilson(0.5, 2)
    mixed = clustered(values, list("abab"))  # each prompt has one right and one wrong: the prompts do not differ
    assert mixed.high - mixed.low <= wilson(0.5, 2).high - wilson(0.5, 2).low


def test_a_difference_has_the_prompt_as_its_unit_too() -> None:
    first, second = [1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0]
    assert clustered_difference(first, second, list("abcd")) == paired_difference(first, second)
    together = clustered_difference(first * 2, second * 2, list("abcd") * 2)
    assert together.mean == pytest.approx(0.25)
    assert (together.low, together.high) == pytest.approx((paired_difference(first, second).low, paired_difference(first, second).high))


def test_the_figures_of_pairs() -> None:
    rows = [pair(2.0, 0.0, (10, 5)), pair(0.0, 1.0, (9, 3)), pair(1.0, 0.0, (2, 4)), pair(0.5, 0.5, (7, 7))]
    rule = learn_rule(rows)
    assert rule == LengthRule(1)
    found = quality(rows, rule)
    assert (found["kind"], found["rows"], found["prompts"], found["ties"]) == ("pairs", 4, 4, 1)
    assert found["accuracy"] == 0.5  # a tie is not right, as in TRL
    assert found["length_accuracy"] == pytest.approx(2.5 / 4)
    assert (found["against_length_rows"], found["against_length"]) == (1, 1.0)
    assert found["over_length"] == pytest.approx(0.5 - 2.5 / 4)
    margins = [2.0, -1.0, 1.0, 0.0]
    assert found["brier"] == pytest.approx(sum((1 - expit(m)) ** 2 for m in margins) / 4)
    assert found["loss"] == pytest.approx(sum(-math.log(expit(m)) for m in margins) / 4)
    assert found["margin_length_correlation"] == pytest.approx(pearsonr(margins, [5, 6, -2, 0]).statistic)
    assert found["length_correlation"] == pytest.approx(pearsonr([2, 0, 0, 1, 1, 0, 0.5, 0.5], [10, 5, 9, 3, 2, 4, 7, 7]).statistic)


def test_the_figures_of_labels() -> None:
    rows = [one(2.0, 1.0, 10), one(-1.0, 0.0, 3), one(1.0, 0.0, 12), one(0.5, 1.0, 11)]
    found = quality(rows, LengthRule(1, 3))
    assert (found["kind"], found["accuracy"], found["auc"], found["majority_accuracy"]) == ("labels", 0.75, 0.75, 0.5)
    assert found["length_accuracy"] == 0.75
    assert found["brier"] == pytest.approx(sum((expit(s) - y) ** 2 for s, y in ((2, 1), (-1, 0), (1, 0), (0.5, 1))) / 4)


@given(st.lists(st.tuples(st.integers(1, 8), st.sampled_from([0.0, 1.0])), min_size=1, max_size=12))
def test_the_rule_of_lengths_is_the_best_of_all_thresholds(rows: list[tuple[int, float]]) -> None:
    measured = [one(0.0, label, length) for length, label in rows]
    best = max(sum(LengthRule(sign, place / 2).right(row) for row in measured) for sign in (1, -1) for place in range(-2, 20))
    rule = learn_rule(measured)
    assert sum(rule.right(row) for row in measured) == best


def test_no_rows_have_no_quality() -> None:
    with pytest.raises(ValueError, match="no rows"):
        quality([], LengthRule(1))
