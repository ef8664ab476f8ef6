"""Confidence intervals of scores that are means over problems.

The unit is the problem. k completions of one problem share its difficulty, so they are not k independent trials, and an interval over
all completions is too narrow by up to sqrt(k) (Miller 2024, "Adding Error Bars to Evals", arXiv 2411.00640, section 2.2). The usual
repair, mean +- 1.96 x the standard error over problem means, fails where benchmarks live: near 0% and 100% it leaves [0, 1] or has
no width at all. Hence Wilson's interval (Wilson 1927; Brown, Cai and DasGupta 2001) with an effective number of problems
(Korn and Graubard 1998, who do the same with the Clopper-Pearson interval).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist, fmean
from typing import Any


@dataclass(frozen=True)
class Interval:
    """A mean with the interval that holds the true one in 95% (`level`) of repeated experiments."""

    mean: float
    low: float
    high: float


def wilson(mean: float, n: float, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share `mean` (0..1) seen in n trials; n may be fractional. n 0 gives [0, 1]."""
    if n <= 0:
        return Interval(mean, 0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    # At 0 and 1 the bound is exact; in floating point it may miss by a digit.
    return Interval(mean, 0.0 if mean == 0 else max(0.0, centre - half), 1.0 if mean == 1 else min(1.0, centre + half))


def design_effect(means: Sequence[float]) -> float:
    """Variance of the problem means (each 0..1) over that of yes-or-no problems of the same mean: 1 when k is 1, less when k helps.

    One all-right and one all-wrong problem are added before the ratio is taken (Agresti and Coull 1998 add as many successes and
    failures to a share). Without them a set where every problem scores 0, or all score the same, would claim to have no spread, and
    one right completion among thousands would turn a wide interval into a sliver. With k = 1 they change nothing: the ratio stays 1.
    """
    values = [*means, 0.0, 1.0]
    mean = fmean(values)
    return fmean((v - mean) ** 2 for v in values) / (mean * (1 - mean))


def mean_interval(means: Sequence[float], samples: int, level: float = 0.95) -> Interval:
    """The mean over problems of a score in 0..1 and its interval, with the problem as the unit.

    means: each problem's mean over its completions. samples: completions in all. The effective number of trials is the number of
    problems over the design effect, at most `samples`, as if all completions were independent. With one completion a problem it
    is Wilson's interval. Raises `ValueError` for no problems and for scores outside 0..1.
    """
    if not means:
        raise ValueError("the interval of no problems")
    if min(means) < 0 or max(means) > 1:
        raise ValueError(f"scores must lie in 0..1, found {min(means)}..{max(means)}")
    return wilson(min(1.0, fmean(means)), min(len(means) / design_effect(means), samples), level)


class ProblemMeans:
    """Scores of completions, collected by problem, for a mean over problems and its interval. count: scores so far.

    A problem with more completions than others counts no more than they do, in the mean as in the interval and as in pass@1.
    """

    def __init__(self) -> None:
        self.count, self._inside = 0, True
        self._problems: dict[Any, tuple[float, int]] = {}

    def add(self, problem: Any, score: float) -> None:
        """Take one completion's score."""
        total, count = self._problems.get(problem, (0.0, 0))
        self._problems[problem] = (total + score, count + 1)
        self.count += 1
        self._inside = self._inside and 0 <= score <= 1

    def mean(self) -> float:
        """The mean over problems of each one's mean. Raises `ValueError` (a `StatisticsError`) when there are none."""
        return fmean(total / count for total, count in self._problems.values())

    def interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """(low, high) of the mean over problems (`mean_interval`); None when a score was outside of 0..1."""
        if not self._inside:
            return None
        found = mean_interval([min(1.0, total / count) for total, count in self._problems.values()], self.count, level)
        return found.low, found.high


def paired_difference(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of `second - first` over the same problems, and its interval: how much better is one model than the other?

    Each is one score in 0..1 a problem, in the same order. Differences cancel what makes a problem hard for both, so this interval is
    narrower than two separate ones suggest. It is Agresti and Min's (2005) interval for matched pairs, in which half a pair is added
    to each of the four outcomes (right/right, right/wrong, ...); written with sums it takes fractional scores too. The reported mean is
    the plain one. Raises `ValueError` for no problems and for lists of different length.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"a paired difference needs the same problems twice, not {len(first)} and {len(second)}")
    differences = [b - a for a, b in zip(first, second, strict=True)]
    n = len(differences) + 2
    centre = sum(differences) / n
    variance = (sum(d * d for d in differences) + 1) / n - centre**2
    half = NormalDist().inv_cdf(0.5 + level / 2) * sqrt(variance / n)
    return Interval(fmean(differences), max(-1.0, centre - half), min(1.0, centre + half))
