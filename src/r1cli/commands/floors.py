"""`--min SCORE=VALUE` of `r1 eval`: what is asked of the scores, and whether they reach it.

What no evaluation could give is refused before anything is drawn; what these rows turn out not to give, when they have been scored.
"""

import math
from collections.abc import Sequence
from typing import Any

from r1cli.errors import Exit, R1Error, nearest
from r1cli.metrics.scores import passes_of
from r1cli.rewards.reward import RewardSpec

DECIDED = ("pass@1", "low", "cons@k", "cons_low")  # by the first rule, which tells right from wrong
MAJORITY = ("cons@k", "cons_low")


def floor_of(text: str, specs: Sequence[RewardSpec], k: int | None, *, decides: bool = True) -> tuple[str, float]:
    """`pass@1=0.5` as a pair. Raises `R1Error` (exit 2) for a name that no evaluation, or not this one, can have.

    k: completions that will be drawn of each problem; None where they are there, and nobody knows yet. decides: whether a rule tells right
    from wrong.
    """
    name, equals, value = text.partition("=")
    try:
        floor = float(value)
    except ValueError:
        floor = math.nan
    known = [*DECIDED, *(spec.name for spec in specs)]
    if not equals or not math.isfinite(floor):
        raise R1Error(f"`--min {text}` is not a score and a number", hint="for example --min pass@1=0.5", code=Exit.USAGE)
    wanted = passes_of(name)
    if name not in known and wanted is None:
        raise R1Error(f"`--min {text}`: there is no score `{name}`", hint=nearest(name, known), code=Exit.USAGE)
    if not decides and (wanted is not None or name in DECIDED):
        what = f"`--min {text}`: no rule tells right from wrong here, so there is no `{name}`"
        raise R1Error(what, hint=f"--rewards accuracy, or name a reward: --min {specs[0].name}=0.5", code=Exit.USAGE)
    least = 2 if name in MAJORITY else wanted or 1
    if k is not None and k < least:
        raise R1Error(f"`--min {text}`: with {k} completions a problem there is no `{name}`", hint=f"-k {least}", code=Exit.USAGE)
    return name, floor


def check_floor(scores: dict[str, Any], name: str, floor: float) -> None:
    """Raise `R1Error` (exit 1) when a score is below its floor, (exit 2) when these rows do not give it."""
    value = scores.get(name, scores["rewards"].get(name))
    if value is None:
        why, hint = _missing(scores, name)
        raise R1Error(f"`--min {name}={floor:g}`: {why}, so there is no `{name}`", hint=hint, code=Exit.USAGE)
    if value < floor:
        raise R1Error(f"{name} is {value:.4f}, below {floor:g}", code=Exit.FAILED)


def _missing(scores: dict[str, Any], name: str) -> tuple[str, str]:
    """Why these rows do not give a score, and what to do."""
    least = 2 if name in MAJORITY else passes_of(name) or 1
    if scores["k"] < least:
        why = "a problem has 1 completion only" if scores["k"] == 1 else f"a problem has {scores['k']} completions only"
        return why, f"draw at least {least} completions of each problem, or ask for pass@{scores['k']}"
    if name in MAJORITY:
        return "answers of this kind cannot be compared with each other", "ask for pass@1"
    return "no row has a value for it", "look at the rows: --rows FILE keeps what each reward gave"
