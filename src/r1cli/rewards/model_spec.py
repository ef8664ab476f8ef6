"""How `--reward-model` is read.

    NAME=MODEL[@STEP][:OPTION=VALUE]...        MODEL: a folder, run directory or hub name, or the address of a server

    helpful=runs/rm-helpful:view=summary       scores what follows </think>
    harmless=runs/rm-safety:view=full          scores the whole response
    helpful=http://127.0.0.1:8001:weight=0.5   a server with vLLM's classify interface
    helpful=CKPT@1300:set=helpful              from step 1300 of `r1 grpo` on, for rows whose `set` is "helpful"

Source of the two views: DeepSeek-R1, section 2.3.4: helpfulness is judged by the final summary, harmlessness by the entire response.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from r1cli.errors import Exit, R1Error, nearest
from r1cli.rewards.reward import RewardSpec
from r1cli.rewards.sets import read_sets

VIEWS, SCALES, TEMPLATES = ("summary", "full"), ("sigmoid", "running"), ("own", "plain")
ERROR, WHOLE = "error", "whole"
_NAME = re.compile(r"[A-Za-z_][\w-]*")
_OPTION = re.compile(r":(?=[A-Za-z_]+=)")
_START = re.compile(r"@(\d+)$")
_EXAMPLE = "--reward-model helpful=FOLDER:view=summary"


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The options of an entry.

    view:       `summary` scores what follows the reasoning, `full` the whole response
    weight:     factor in the row's `reward`
    set:        sets of rows it is for, joined by +; none: all rows
    scale:      how a logit becomes a score in 0..1: `sigmoid`, or `running` (`preference.Running`; `r1 grpo` only)
    no_summary: score of a response that never closes its reasoning, or has nothing after it; `whole` scores a response
                without any reasoning as its own summary
    too_long:   score of a conversation that does not fit the model's context, or `error` to stop there
    template:   `own` is the model's chat template; `plain` goes without one (`text.reply`)
    dtype:      computation type of a local model;  tokens: most tokens (padding included) a forward pass of it holds
    model:      what the server calls the model;  key: environment variable that holds the server's key
    """

    view: str = "full"
    weight: float = 1.0
    set: tuple[str, ...] = ()
    scale: str = "sigmoid"
    no_summary: float | str = 0.0
    too_long: float | str = 0.0
    template: str = "own"
    dtype: str = "auto"
    tokens: int = 0
    model: str = ""
    key: str = ""


@dataclass(frozen=True)
class ModelSpec:
    """One `--reward-model`, read and checked. start: steps of `r1 grpo` before it counts, None when the entry does not say."""

    name: str
    source: str
    options: ModelOptions
    start: int | None = None

    @property
    def remote(self) -> bool:
        return self.source.startswith(("http://", "https://"))

    def reward(self, start: int = 0) -> RewardSpec:
        """It as one of the rewards. It has no maximum: a sigmoid never reaches 1, so `--keep passing` does not look at it."""
        begins = start if self.start is None else self.start
        return RewardSpec(self.name, self.options.weight, {}, self.source, None, begins, self.options.set)


def parse_models(entries: Sequence[str], rewards: Sequence[str] = ()) -> list[ModelSpec]:
    """`--reward-model` as a list. Raises `R1Error` (exit 2) for what cannot be read, and a name given twice or taken by a rule."""
    specs: list[ModelSpec] = []
    for entry in entries:
        spec = _parse(entry)
        if spec.name in rewards or any(spec.name == other.name for other in specs):
            raise R1Error(f"two rewards are called `{spec.name}`", hint="give each reward model a name of its own", code=Exit.USAGE)
        specs.append(spec)
    return specs


def _parse(entry: str) -> ModelSpec:
    head, *parts = _OPTION.split(entry)
    name, equals, source = head.partition("=")
    if not equals or not source or not _NAME.fullmatch(name):
        raise R1Error(f"`--reward-model` must be NAME=MODEL, found `{entry}`", hint=_EXAMPLE, code=Exit.USAGE)
    started = _START.search(source)
    source = _START.sub("", source)
    values: dict[str, Any] = {}
    for part in parts:
        key, _, text = part.partition("=")
        values[key] = _read(name, key, text)
    spec = ModelSpec(name, source, ModelOptions(**values), int(started[1]) if started else None)
    for key in ("model", "key") if not spec.remote else ("dtype", "tokens"):
        if key in values:
            where = "a server" if not spec.remote else "a model in this process"
            raise R1Error(f"option `{key}` of reward model `{name}` is for {where}", hint=f"leave out :{key}=", code=Exit.USAGE)
    return spec


_WORDS = {"view": VIEWS, "scale": SCALES, "template": TEMPLATES, "dtype": ("auto", "bfloat16", "float32", "float16")}
_NUMBERS: dict[str, tuple[Callable[[str], float], float, float, str]] = {
    "weight": (float, -1e9, 1e9, "a number"),
    "tokens": (int, 1, 1e9, "a whole number above 0"),
    "no_summary": (float, 0.0, 1.0, "0 to 1, or `whole`"),
    "too_long": (float, 0.0, 1.0, "0 to 1, or `error`"),
}


def _read(name: str, key: str, text: str) -> Any:
    known = [option.name for option in fields(ModelOptions)]
    if key not in known:
        raise R1Error(f"reward model `{name}` has no option `{key}`", hint=f"{nearest(key, known)}; see docs/rewards.md", code=Exit.USAGE)
    if key == "set":
        return read_sets(text, name)
    if key in ("model", "key") or (key, text) in (("no_summary", WHOLE), ("too_long", ERROR)):
        return text
    if key in _WORDS:
        if text in _WORDS[key]:
            return text
        raise _refused(name, key, text, nearest(text, _WORDS[key]))
    kind, low, high, words = _NUMBERS[key]
    try:
        value = kind(text)
    except ValueError:
        raise _refused(name, key, text, f"it takes {words}") from None
    if not low <= value <= high:  # NaN is outside of everything
        raise _refused(name, key, text, f"it takes {words}")
    return value


def _refused(name: str, key: str, text: str, hint: str) -> R1Error:
    return R1Error(f"option `{key}` of reward model `{name}` cannot be `{text}`", hint=hint, code=Exit.USAGE)
