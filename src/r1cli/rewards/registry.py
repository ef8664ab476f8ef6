r"""The names of the rewards, and how `--rewards` is read.

    NAME[=WEIGHT][=WORD][@STEP][:OPTION=VALUE]...      entries are separated by commas

    accuracy,format=0.5              weights are numbers
    code=fraction                    a word sets the reward's main option (here `score=fraction`)
    code=fraction=0.5                both
    format=0.5:style=r1              further options follow colons
    path/to/file.py:function=2       a user's own; module:function likewise
    helpful=1@1300                   counts from step 1300 of `r1 grpo` on
    accuracy:set=reasoning+logic     for rows whose `set` is one of these (`sets.py`); null for the others

A reward module is imported when its name is used, and none of them imports anything heavy at the top.
"""

import math
import re
from importlib import import_module
from typing import Any

from r1cli.errors import Exit, R1Error, nearest
from r1cli.rewards.reward import Option, Reward, RewardKind, RewardSpec
from r1cli.rewards.sets import Sets, read_sets

KINDS = {
    "accuracy": "r1cli.rewards.accuracy:ACCURACY",
    "math": "r1cli.rewards.accuracy:MATH",
    "format": "r1cli.rewards.format:FORMAT",
    "language": "r1cli.rewards.language:LANGUAGE",
    "choice": "r1cli.rewards.choice:CHOICE",
    "code": "r1cli.rewards.code.reward:CODE",
    "refusal": "r1cli.rewards.refusal:REFUSAL",
    "repetition": "r1cli.rewards.repetition:REPETITION",
    "overlong": "r1cli.rewards.length:OVERLONG",
    "length": "r1cli.rewards.length:LENGTH",
    "brevity": "r1cli.rewards.length:BREVITY",
}
"""Every built-in reward: name -> module:attribute of its `RewardKind`."""

HINT = "`r1 rewards` lists every reward with its options"
WEIGHT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
NO_WEIGHTS = ("nan", "inf", "infinity")
START = re.compile(r"@(\d+)(?=:|$)")
TRUTH = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def kind_of(name: str) -> RewardKind:
    """The registered reward of this name. Raises `R1Error` (exit 2) when there is none."""
    if name not in KINDS:
        raise R1Error(f"unknown reward `{name}`", hint=f"{nearest(name, KINDS)}; {HINT}", code=Exit.USAGE)
    module, attribute = KINDS[name].split(":")
    return getattr(import_module(module), attribute)


def kinds() -> list[RewardKind]:
    """Every registered reward, in the order of the list."""
    return [kind_of(name) for name in KINDS]


def parse_specs(text: str, **flags: Any) -> list[RewardSpec]:
    """`--rewards` as a list. Raises `R1Error` (exit 2) for an unknown name, a bad weight or option, or a name given twice.

    flags: values for the options of these names, in every reward that has one and whose entry does not set it itself.
    """
    specs: list[RewardSpec] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        spec = _parse_entry(entry, flags)
        if any(spec.name == other.name for other in specs):
            raise R1Error(
                f"reward `{spec.name}` is named twice in `{text}`", hint="name each reward once, with one weight", code=Exit.USAGE
            )
        specs.append(spec)
    if not specs:
        raise R1Error("no rewards are named", hint=HINT, code=Exit.USAGE)
    return specs


def make(spec: RewardSpec) -> Reward:
    """The reward of a spec, ready to score. Users' files are imported by `make`, in the worker and (to check them) once in the caller."""
    reward = _kind_for(spec.source or spec.name).make({"source": spec.source or spec.name, **spec.options})
    reward.name = spec.name
    return reward


def _parse_entry(entry: str, flags: dict[str, Any]) -> RewardSpec:
    started = START.search(entry)
    head, *rest = START.sub("", entry, count=1).split(":")
    name, *values = head.split("=")
    source = name
    if name not in KINDS and rest and not values:  # path/to/file.py:function or module:function
        function, *values = rest.pop(0).split("=")
        source, name = f"{name}:{function}", function
    kind = _kind_for(source)
    options = {option.name: flags.get(option.name, option.default) for option in kind.options}
    weight: float | None = None
    for value in values:
        if WEIGHT.fullmatch(value):
            if weight is not None:
                raise R1Error(f"reward `{source}` has two weights in `{entry}`", hint=HINT, code=Exit.USAGE)
            weight = float(value)
        elif value.lstrip("+-").lower() in NO_WEIGHTS:  # a number all the same, and no word of an option
            raise R1Error(
                f"the weight of reward `{source}` cannot be `{value}`: a weight is a finite number",
                hint=f"write {source}=0.5",
                code=Exit.USAGE,
            )
        elif kind.mode is not None:
            options[kind.mode] = _read(kind, kind.mode, value)
        else:
            raise R1Error(
                f"`{value}` is not a weight for reward `{source}`", hint=f"write {source}=0.5, or {source}:option=value", code=Exit.USAGE
            )
    sets: Sets = ()
    for part in rest:
        key, equals, value = part.partition("=")
        if not equals:
            raise R1Error(f"`{part}` in `{entry}` is not an option", hint=f"write {source}:option=value", code=Exit.USAGE)
        if key == "set":
            sets = read_sets(value, name)
        else:
            options[key] = _read(kind, key, value)
    return RewardSpec(name, 1.0 if weight is None else weight, options, source, kind.maximum, int(started[1]) if started else 0, sets)


def _kind_for(source: str) -> RewardKind:
    if source in KINDS or ":" not in source:
        return kind_of(source)
    return import_module("r1cli.rewards.user").USER


def _read(kind: RewardKind, key: str, text: str) -> Any:
    option: Option | None = next((o for o in kind.options if o.name == key), None)
    if option is None:
        known = [o.name for o in kind.options]
        hint = nearest(key, known) if known else "it takes a weight only"
        raise R1Error(f"reward `{kind.name}` has no option `{key}`", hint=f"{hint}; {HINT}", code=Exit.USAGE)
    if option.choices and text not in option.choices:
        raise R1Error(f"option `{key}` of reward `{kind.name}` cannot be `{text}`", hint=nearest(text, option.choices), code=Exit.USAGE)
    try:
        value: Any = TRUTH[text.lower()] if option.kind is bool else option.kind(text)
    except (KeyError, ValueError):
        value = math.nan
    if isinstance(value, float) and not math.isfinite(value):
        raise R1Error(f"option `{key}` of reward `{kind.name}` must be {option.kind.__name__}, not `{text}`", hint=HINT, code=Exit.USAGE)
    return value
