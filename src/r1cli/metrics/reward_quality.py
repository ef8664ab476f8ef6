"""How good a reward model is on rows it was not trained on, beside a rule that sees nothing but lengths.

Pairs: the share in which the better reply has the higher score. Labelled completions: the share on the right side of 0, and the area under
the ROC curve. Both with intervals that take the prompt as the unit (`intervals.py`): pairs of one prompt share replies.

Calibration of p = sigmoid(margin) or sigmoid(score): the Brier score (1950), and the expected calibration error over ten bins of
equal width (Naeini et al. 2015; Guo et al. 2017, arXiv 1706.04599, equation 3). For pairs it is about the predicted winner, p >= 0.5.

The area under the curve has the variance of Obuchowski (1997), which is DeLong's (1988) for clustered data.

A rule about lengths is learnt from the training rows: the longer (or the shorter) reply wins; completions beyond (or below) a length
are good. Reward models that do no better have learnt length (Singhal et al., arXiv 2310.03716).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import exp, log1p, sqrt
from statistics import fmean
from typing import Any

from r1cli.metrics.intervals import Interval, design_effect, paired_difference, wilson

BINS = 10


@dataclass(frozen=True, slots=True)
class Measured:
    """A row that was scored. scores and lengths (tokens of the reply): of chosen and rejected, or of the one completion.

    prompt: equal for rows about one prompt. label: of the one completion, 1 is good; None for a pair.
    """

    scores: tuple[float, ...]
    lengths: tuple[int, ...]
    prompt: str
    label: float | None = None


@dataclass(frozen=True, slots=True)
class LengthRule:
    """Longer is better (sign 1) or shorter is (-1). threshold: completions that are longer (shorter) are good; unused for pairs."""

    sign: int
    threshold: float = 0.0

    def right(self, row: Measured) -> float:
        """Whether the rule is right about a row; 0.5 for a pair of equal lengths."""
        if row.label is None:
            surplus = self.sign * (row.lengths[0] - row.lengths[1])
            return 0.5 if surplus == 0 else float(surplus > 0)
        return float((self.sign * row.lengths[0] > self.sign * self.threshold) == (row.label > 0.5))


def learn_rule(rows: Sequence[Measured]) -> LengthRule:
    """The rule that is right about most of the training rows (their scores are not looked at)."""
    if rows[0].label is None:
        rules = [LengthRule(1), LengthRule(-1)]
        return max(rules, key=lambda rule: fmean(rule.right(row) for row in rows))
    ordered = sorted((row.lengths[0], row.label > 0.5) for row in rows if row.label is not None)
    good = sum(label for _, label in ordered)
    best, below, good_below = (max(good, len(ordered) - good), LengthRule(1 if good * 2 >= len(ordered) else -1, -1.0)), 0, 0
    for length, group in groupby(ordered, key=lambda pair: pair[0]):
        members = [label for _, label in group]
        below, good_below = below + len(members), good_below + sum(members)
        longer = below - good_below + good - good_below  # right, if what is longer than this is good
        for right, rule in ((longer, LengthRule(1, length)), (len(ordered) - longer, LengthRule(-1, length + 0.5))):
            best = max(best, (right, rule), key=lambda pair: pair[0])
    return best[1]


def quality(rows: Sequence[Measured], rule: LengthRule) -> dict[str, Any]:
    """All figures about rows that are all pairs or all labelled, as one flat JSON object. Raises `ValueError` for no rows."""
    if not rows:
        raise ValueError("no rows to measure a reward model on")
    pairs = rows[0].label is None
    right = [_right(row) for row in rows]
    by_rule = [rule.right(row) for row in rows]
    prompts = [row.prompt for row in rows]
    scores, lengths = [s for row in rows for s in row.scores], [float(n) for row in rows for n in row.lengths]
    found: dict[str, Any] = {"kind": "pairs" if pairs else "labels", "rows": len(rows), "prompts": len(set(prompts))}
    found |= _named("accuracy", clustered(right, prompts)) | _named("length_accuracy", clustered(by_rule, prompts))
    found |= {"length_rule": "longer" if rule.sign > 0 else "shorter"}
    found |= _named("over_length", clustered_difference(by_rule, right, prompts))
    wrong = [place for place, value in enumerate(by_rule) if value == 0]
    found["against_length_rows"] = len(wrong)
    if wrong:
        found |= _named("against_length", clustered([right[i] for i in wrong], [prompts[i] for i in wrong]))
    found |= (_pair_figures if pairs else _label_figures)(rows)
    return found | {"score_mean": fmean(scores), "length_correlation": pearson(scores, lengths)}


def _right(row: Measured) -> float:
    if row.label is None:
        return float(row.scores[0] > row.scores[1])
    return float((row.scores[0] > 0) == (row.label > 0.5))


def _named(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _pair_figures(rows: Sequence[Measured]) -> dict[str, Any]:
    margins = [row.scores[0] - row.scores[1] for row in rows]
    surplus = [float(row.lengths[0] - row.lengths[1]) for row in rows]
    sure = [sigmoid(abs(margin)) for margin in margins]
    return {
        "loss": fmean(softplus(-margin) for margin in margins),
        "brier": fmean((1 - sigmoid(margin)) ** 2 for margin in margins),
        "calibration_error": calibration_error(sure, [float(margin > 0) for margin in margins]),
        "margin_mean": fmean(margins),
        "ties": sum(margin == 0 for margin in margins),
        "margin_length_correlation": pearson(margins, surplus),
    }


def _label_figures(rows: Sequence[Measured]) -> dict[str, Any]:
    scores, labels = [row.scores[0] for row in rows], [row.label or 0.0 for row in rows]
    chances = [sigmoid(score) for score in scores]
    good = fmean(labels)
    prompts, lengths = [row.prompt for row in rows], [float(row.lengths[0]) for row in rows]
    areas: dict[str, Any] = {}
    if (area := area_under_roc(scores, labels, prompts)) is not None:
        either = [area_under_roc([sign * length for length in lengths], labels, prompts) for sign in (1, -1)]
        by_length = max((found for found in either if found is not None), key=lambda found: found.mean)
        areas = _named("auc", area) | _named("length_auc", by_length)
    return areas | {
        "loss": fmean(softplus(-score) if label > 0.5 else softplus(score) for score, label in zip(scores, labels, strict=True)),
        "brier": fmean((chance - label) ** 2 for chance, label in zip(chances, labels, strict=True)),
        "calibration_error": calibration_error(chances, labels),
        "good": good,
        "majority_accuracy": max(good, 1 - good),
    }


def clustered(values: Sequence[float], clusters: Sequence[str]) -> Interval:
    """The mean of values in 0..1 and its interval, with the cluster as the unit: Wilson's when every cluster has one value."""
    members: dict[str, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        members.setdefault(cluster, []).append(value)
    means = [fmean(group) for group in members.values()]
    return wilson(fmean(values), min(len(means) / design_effect(means), len(values)))


def clustered_difference(first: Sequence[float], second: Sequence[float], clusters: Sequence[str]) -> Interval:
    """The mean of `second - first` and its interval (`paired_difference`), with the cluster as the unit."""
    totals: dict[str, float] = {}
    for one, other, cluster in zip(first, second, clusters, strict=True):
        totals[cluster] = totals.get(cluster, 0.0) + other - one
    share = len(totals) / len(first)  # a cluster's total on the scale of a row, so that their mean is that of the rows
    return paired_difference([0.0] * len(totals), [total * share for total in totals.values()])


def calibration_error(chances: Sequence[float], outcomes: Sequence[float]) -> float:
    """Mean over rows of |mean chance - mean outcome| of the row's bin; ten bins of equal width over 0..1."""
    bins: dict[int, list[tuple[float, float]]] = {}
    for chance, outcome in zip(chances, outcomes, strict=True):
        bins.setdefault(min(BINS - 1, int(chance * BINS)), []).append((chance, outcome))
    gaps = (abs(sum(chance for chance, _ in members) - sum(outcome for _, outcome in members)) for members in bins.values())
    return sum(gaps) / len(chances)


def area_under_roc(scores: Sequence[float], labels: Sequence[float], clusters: Sequence[str]) -> Interval | None:
    """The chance that a good one has the higher score, ties half (Mann-Whitney), with its interval; None when all have one label.

    The interval is Wilson's with as many trials as give the area's variance, with the cluster as the unit. An area of 0 or 1 shows no
    variance: it counts the clusters of the rarer label.
    """
    ranks = mean_ranks(scores)
    good, bad = ([place for place, label in enumerate(labels) if (label > 0.5) == wanted] for wanted in (True, False))
    if not good or not bad:
        return None
    shares = [0.0] * len(scores)  # of each good one: bad ones below it; of each bad one: good ones above it
    for own, other, sign in ((good, bad, 1), (bad, good, -1)):
        among = mean_ranks([sign * scores[place] for place in own])
        for place, rank in zip(own, among, strict=True):
            whole = ranks[place] if sign > 0 else len(scores) + 1 - ranks[place]
            shares[place] = (whole - rank) / len(other)
    area = fmean(shares[place] for place in good)
    gaps: dict[str, list[float]] = {}  # of each cluster: what its good and its bad ones are above the area
    for place, label in enumerate(labels):
        gaps.setdefault(clusters[place], [0.0, 0.0])[label < 0.5] += shares[place] - area
    counts = [len({clusters[place] for place in own}) for own in (good, bad)]
    both = sum(one * other for one, other in gaps.values()) * 2 * len(gaps) / max(1, len(gaps) - 1) / (len(good) * len(bad))
    variance = both + sum(
        sum(gap[side] ** 2 for gap in gaps.values()) * counts[side] / max(1, counts[side] - 1) / len(own) ** 2
        for side, own in enumerate((good, bad))
    )
    return wilson(area, area * (1 - area) / variance if variance > 0 and 0 < area < 1 else min(counts))


def mean_ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share the mean of theirs."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    ranks, done = [0.0] * len(values), 0
    for _, group in groupby(order, key=lambda place: values[place]):
        places = list(group)
        for place in places:
            ranks[place] = done + (len(places) + 1) / 2
        done += len(places)
    return ranks


def pearson(one: Sequence[float], other: Sequence[float]) -> float | None:
    """The correlation coefficient; None when one of them does not vary."""
    mean_one, mean_other = fmean(one), fmean(other)
    across = sum((a - mean_one) * (b - mean_other) for a, b in zip(one, other, strict=True))
    spread = sqrt(sum((a - mean_one) ** 2 for a in one) * sum((b - mean_other) ** 2 for b in other))
    return across / spread if spread else None


def sigmoid(value: float) -> float:
    """1 / (1 + e^-value)."""
    return 1 / (1 + exp(-value)) if value >= 0 else exp(value) / (1 + exp(value))


def softplus(value: float) -> float:
    """log(1 + e^value): -log sigmoid(-value)."""
    return max(value, 0.0) + log1p(exp(-abs(value)))
