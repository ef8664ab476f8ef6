"""Rewards of length, in tokens (`num_tokens`): overlong, length and brevity.

overlong  DAPO's soft overlong punishment (arXiv 2503.14476, section 3.4, equation 13), whatever the answer is worth:

              0                                   L <= max - cache
              ((max - cache) - L) / cache         max - cache < L <= max
              -1                                  max < L

length    the cosine-scaled reward ("Demystifying Long Chain-of-Thought Reasoning", arXiv 2502.03373, section 4.1; open-r1's numbers):
          a right answer earns 1 at length 0 and 0.5 at `max`, a wrong one -1 at length 0 and -0.5 at `max`, along half a cosine.
          Beyond `max` it stays at the end value (open-r1's cosine would rise again).
brevity   a right answer earns 1 - L / max, never below 0; a wrong one 0, so that being short alone earns nothing.

`length` and `brevity` ask another reward (`by`) whether the answer is right; a completion cut at the limit is wrong. A row that gives
`by` nothing to judge by (no gold) is null in them too, however its completion ended.
"""

import math
from collections.abc import Mapping
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.rewards.reward import Option, Reward, RewardKind, Score, Undecided
from r1cli.row import Row, require

BY = ("accuracy", "math", "choice", "code")
DAPO_CACHE_SHARE = 0.2  # DAPO: a cache of 4,096 of 20,480 tokens


class OverlongReward(Reward):
    """A number in [-1, 0]. maximum, cache: tokens; a cache of 0 is a fifth of the maximum, as in DAPO."""

    name = "overlong"

    def __init__(self, maximum: int, cache: int = 0) -> None:
        _refuse_no_maximum("overlong", maximum)
        self.maximum = maximum
        self.cache = cache or max(1, round(DAPO_CACHE_SHARE * maximum))
        if not 0 < self.cache <= maximum:
            what = f"reward `overlong` needs a cache between 1 and its max of {maximum}"
            raise R1Error(what, hint="overlong:max=20480:cache=4096", code=Exit.USAGE)

    def score(self, row: Row) -> float:
        over = tokens_of(row) - (self.maximum - self.cache)
        return -min(1.0, max(0, over) / self.cache) + 0.0


class _OfRightAnswers(Reward):
    """Base of `length` and `brevity`: asks the reward `by` for correctness, and runs where that one has to run."""

    def __init__(self, maximum: int, by: Reward) -> None:
        _refuse_no_maximum(self.name, maximum)
        self.maximum = maximum
        self.by = by
        self.isolated = by.isolated
        self.memory_gib = by.memory_gib

    def quick(self, row: Row) -> Score | Undecided:
        tokens_of(row)  # a missing field is told here, not in a worker
        judged = self.by.quick(_asked(row))
        return judged if isinstance(judged, Undecided) else self._shaped(row, judged)

    def score(self, row: Row) -> Score:
        return self._shaped(row, self.by.score(_asked(row)))

    def _shaped(self, row: Row, judged: Score) -> Score:
        return None if judged is None else self.shape(row, judged >= 1.0 and not _is_cut(row))

    def time_for(self, row: Row) -> float:
        return self.by.time_for(row)

    def settled(self, row: Row, score: Score) -> None:
        self.by.settled(row, score)

    def complaints(self) -> list[str]:
        return self.by.complaints()

    def shape(self, row: Row, right: bool) -> float:
        """The reward, once it is known whether the answer is right."""
        raise NotImplementedError


class LengthReward(_OfRightAnswers):
    """A number in [-1, -0.5] or [0.5, 1]."""

    name = "length"

    def shape(self, row: Row, right: bool) -> float:
        progress = min(1.0, tokens_of(row) / self.maximum)
        cosine = (1.0 + math.cos(math.pi * progress)) / 2  # 1 at length 0, 0 at the maximum
        return 0.5 + 0.5 * cosine if right else -0.5 - 0.5 * cosine


class BrevityReward(_OfRightAnswers):
    """A number in [0, 1]."""

    name = "brevity"

    def shape(self, row: Row, right: bool) -> float:
        return max(0.0, 1.0 - tokens_of(row) / self.maximum) if right else 0.0


def tokens_of(row: Row) -> int:
    """The completion's length in tokens. Raises `R1Error` (exit 2) when the row does not have it."""
    return int(require(row, "num_tokens", int))


def _is_cut(row: Row) -> bool:
    """Whether the completion ended at the length limit."""
    return bool(row.get("finish_reason") == "length")


def _asked(row: Row) -> Row:
    """What `by` is asked. Of a completion that is wrong anyway only whether the row has something to judge by: an empty one tells, and
    no program of it is run."""
    return row.with_fields(completion="") if _is_cut(row) else row


def _refuse_no_maximum(name: str, maximum: int) -> None:
    if maximum <= 0:
        hint = f"{name}:max=N, often your --max-completion-length"
        raise R1Error(f"reward `{name}` needs its length limit in tokens", hint=hint, code=Exit.USAGE)


def _by(options: Mapping[str, Any]) -> Reward:
    from r1cli.rewards.registry import make, parse_specs  # here, because the registry names this module

    return make(parse_specs(options["by"])[0])


def _make_overlong(options: Mapping[str, Any]) -> Reward:
    return OverlongReward(options["max"], options["cache"])


def _make_length(options: Mapping[str, Any]) -> Reward:
    return LengthReward(options["max"], _by(options))


def _make_brevity(options: Mapping[str, Any]) -> Reward:
    return BrevityReward(options["max"], _by(options))


_MAX = Option("max", int, 0, "length limit in tokens; must be given")
_JUDGE = Option("by", str, "accuracy", "the reward that tells whether the answer is right", BY)

OVERLONG = RewardKind(
    name="overlong",
    summary="DAPO's soft penalty for completions near or over the length limit",
    formula="0 up to max - cache tokens, then linearly down to -1 at max, -1 beyond",
    example="overlong:max=20480:cache=4096",
    make=_make_overlong,
    fields=("num_tokens",),
    options=(_MAX, Option("cache", int, 0, "tokens over which the penalty grows (default: a fifth of max)")),
    maximum=0.0,
)
LENGTH = RewardKind(
    name="length",
    summary="right answers earn more the shorter, wrong ones lose more the shorter, along a cosine",
    formula="right: 0.5 + 0.5 c, wrong: -0.5 - 0.5 c, with c = (1 + cos(pi min(1, tokens / max))) / 2",
    example="length:max=4096",
    make=_make_length,
    fields=("completion", "answer", "num_tokens", "finish_reason?"),
    options=(_MAX, _JUDGE),
    maximum=None,
)
BREVITY = RewardKind(
    name="brevity",
    summary="right answers earn more the shorter, wrong ones nothing",
    formula="right: max(0, 1 - tokens / max), wrong: 0",
    example="brevity=0.2:max=4096",
    make=_make_brevity,
    fields=("completion", "answer", "num_tokens", "finish_reason?"),
    options=(_MAX, _JUDGE),
    maximum=None,
)
