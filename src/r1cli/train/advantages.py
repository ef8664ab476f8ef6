"""Rewards of a group -> advantages. Pure functions of a list of numbers.

Source: DeepSeekMath (arXiv 2402.03300), section 4.1.2, and the DeepSeek-R1 paper, equation 3: A_i = (r_i - mean(r)) / std(r).
The standard deviation is the sample one (ddof 1) and EPSILON is added to it, as TRL does: rewards [1, 0, 0, 0] give +1.4997, -0.4999 x 3.
"""

import math
from collections.abc import Sequence

EPSILON = 1e-4
KINDS = ("group", "batch", "mean", "loo")


def standard_deviation(values: Sequence[float]) -> float:
    """Sample standard deviation (ddof 1); 0 for equal values, however they round."""
    if min(values) == max(values):
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def group_advantages(rewards: Sequence[Sequence[float]], kind: str = "group", batch: Sequence[float] | None = None) -> list[list[float]]:
    """Advantages of every completion, group by group.

    rewards: one list of rewards a group; every group has at least two (the mean of a group of one is itself: no signal, refused).
    kind:    group  (r - group mean) / group std             GRPO
             batch  (r - group mean) / std of all rewards    REINFORCE++-style
             mean   r - group mean                           Dr. GRPO (arXiv 2503.20783)
             loo    r - mean of the others                   RLOO (arXiv 2402.14740)
    batch:   all rewards of the step when other processes hold some of them (only for "batch"; None: these are all).

    A group whose rewards are all equal gets exactly 0.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown advantage {kind!r}; known: {', '.join(KINDS)}")
    if any(len(group) < 2 for group in rewards):
        raise ValueError("a group needs at least two completions: the advantage of a single one is always zero")
    everything = batch if batch is not None else [r for group in rewards for r in group]
    batch_std = standard_deviation(everything) if kind == "batch" and everything else 0.0
    return [_advantages(group, kind, batch_std) for group in rewards]


def _advantages(group: Sequence[float], kind: str, batch_std: float) -> list[float]:
    if min(group) == max(group):
        return [0.0] * len(group)
    mean = math.fsum(group) / len(group)
    centred = [r - mean for r in group]
    if kind == "mean":
        return centred
    if kind == "loo":
        scale = len(group) / (len(group) - 1)
        return [c * scale for c in centred]
    std = standard_deviation(group) if kind == "group" else batch_std
    return [c / (std + EPSILON) for c in centred]
