"""The scores of an evaluation, from what each problem's completions gave.

    pass@1      mean over problems of the share of right completions, with its 95% interval (`intervals.mean_interval`)
    pass@2, 4.. chance that one of so many completions is right, unbiased (`passk`)
    cons@k      share of problems whose majority answer is right (`majority`), with Wilson's interval
    truncated   share of completions cut at the length limit; such completions count as they were scored

DeepSeek-R1, section 3 "Evaluation Setup": pass@1 is the mean over k samples at a temperature, not one greedy answer.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from operator import eq
from statistics import fmean
from typing import Any

from r1cli.metrics.intervals import mean_interval
from r1cli.metrics.majority import cons_at_k
from r1cli.metrics.passk import mean_pass_at_k, powers_up_to


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem's completions, in the order drawn; all lists have one entry a completion.

    correct:   whether it is right
    answers:   what it answered, None without an answer; None instead of the list when answers cannot be compared (programs)
    truncated: whether it was cut at the length limit, None where nobody noted it
    tokens:    how long it is, None where nobody noted it
    """

    correct: Sequence[bool]
    answers: Sequence[str | None] | None
    truncated: Sequence[bool | None]
    tokens: Sequence[int | None]


def passes_of(name: str) -> int | None:
    """The k of `pass@k`; None for another name, and where k is no number from 1."""
    number = name.removeprefix("pass@")
    return int(number) if number != name and number.isdecimal() and int(number) > 0 else None


def summarise(problems: Sequence[Problem], same: Callable[[Any, Any], bool] = eq, passes: Collection[int] = ()) -> dict[str, Any]:
    """The scores as one flat JSON object. Where problems differ in their number of completions, k is the smallest.

    passes: further ks of pass@k, beside the powers of two; those above the smallest number of completions are left out.
    Keys: problems, samples (completions in all), k, pass@1, low, high, pass@2 ..., cons@k with cons_low and cons_high, truncated,
    mean_tokens, tokens. cons@k is left out for k 1, where it says nothing new, and null where answers cannot be compared; truncated
    and the tokens are null when a completion lacks them. Raises `ValueError` when there are no problems.
    """
    samples = sum(len(p.correct) for p in problems)
    k = min((len(p.correct) for p in problems), default=0)
    interval = mean_interval([fmean(p.correct) for p in problems], samples)
    scores: dict[str, Any] = {"problems": len(problems), "samples": samples, "k": k}
    scores |= {"pass@1": interval.mean, "low": interval.low, "high": interval.high}
    counts = [(len(p.correct), sum(p.correct)) for p in problems]
    scores |= {f"pass@{power}": mean_pass_at_k(counts, power) for power in sorted({*powers_up_to(k), *passes}) if 1 < power <= k}
    if k > 1:
        scores |= _consensus(problems, same)
    truncated = _all_known([t for p in problems for t in p.truncated])
    tokens = _all_known([t for p in problems for t in p.tokens])
    scores["truncated"] = None if truncated is None else fmean(truncated)
    scores["mean_tokens"] = None if tokens is None else fmean(tokens)
    scores["tokens"] = None if tokens is None else sum(tokens)
    return scores


def _consensus(problems: Sequence[Problem], same: Callable[[Any, Any], bool]) -> dict[str, float | None]:
    if any(p.answers is None for p in problems):
        return {"cons@k": None, "cons_low": None, "cons_high": None}
    votes = [cons_at_k(p.answers or (), [float(c) for c in p.correct], same) for p in problems]
    interval = mean_interval(votes, len(votes))
    return {"cons@k": interval.mean, "cons_low": interval.low, "cons_high": interval.high}


def _all_known(values: list[Any]) -> list[Any] | None:
    return None if any(value is None for value in values) else values
