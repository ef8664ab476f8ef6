"""Flags: one settings dataclass becomes the options of one command, and any raw value becomes a checked one.

Typer only splits the command line here: every value arrives as text and is converted by `convert`, so that a flag, a variable, a TOML key
and a preset are refused with the same words. What is left out: where values come from and which one wins (`config.py`).
"""

import difflib
import functools
import inspect
import math
import types
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from r1cli.errors import Exit, R1Error
from r1cli.shared_settings import INPUT, MODEL, NAMES, OUTPUT, REWARDS, RUN, SAMPLING, TRAINING, Changing, Flag
from r1cli.synonyms import instead

GROUPS = (INPUT, OUTPUT, MODEL, SAMPLING, REWARDS, TRAINING, RUN)
LARGEST = 2**63  # whole numbers are those of 64 bits with a sign, as torch's and the engines' are
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


@dataclass(frozen=True)
class Param:
    """One field of a settings dataclass, as the command line sees it. `default` is `MISSING` when the user must give a value."""

    name: str
    flag: Flag
    kind: type  # str, int, float, bool, list (of str) or Changing
    optional: bool
    default: Any

    @property
    def option(self) -> str:
        """`--batch-size` for the field batch_size; the field's own name for a positional."""
        return self.name if self.flag.positional else "--" + self.name.replace("_", "-")

    @property
    def counted(self) -> bool:
        """True for a flag that is repeated instead of taking a number (-qq)."""
        return self.kind is int and self.flag.metavar == ""

    @property
    def negatable(self) -> bool:
        """True for a switch that is on by default and so has a --no- form."""
        return self.kind is bool and self.default is True

    @property
    def required(self) -> bool:
        """True when no default exists. Input rows are never required here: no path means stdin."""
        return self.default is MISSING and not self.flag.positional


@functools.cache
def params_of(settings: type) -> tuple[Param, ...]:
    """The fields of a settings dataclass in the order of --help: by group, the required ones first, then as declared."""
    hints = get_type_hints(settings, include_extras=True)
    params = [_param(field, hints[field.name]) for field in fields(settings)]
    return tuple(sorted(params, key=lambda param: (GROUPS.index(param.flag.group), not param.required)))


def _param(field: Any, hint: Any) -> Param:
    kind, flag = get_args(hint)
    optional = get_origin(kind) in (Union, types.UnionType)
    if optional:
        kinds = [arg for arg in get_args(kind) if arg is not type(None)]
        optional, kind = len(kinds) < len(get_args(kind)), Changing if Changing in kinds else kinds[0]
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return Param(field.name, flag, get_origin(kind) or kind, optional, default)


def convert(param: Param, value: Any, origin: str) -> Any:
    """`value` (text, or what TOML or JSON holds) as the field's type, inside its bounds and choices.

    origin: the name to blame in messages, e.g. "`--lr`" or "`lr` in `run.toml`". Raises `R1Error` (exit 2).
    """
    if value is None and param.optional:
        return None
    if param.kind is list:
        parts = [value] if isinstance(value, str) else value
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            raise _refused(param, value, origin)
        if "" in parts:  # as --stop it would end every completion at once, as a file be this folder
            raise empty(origin)
        return list(parts)
    if value == "" and param.name in NAMES:
        raise empty(origin)
    try:
        result = _READ[param.kind](value)
    except OverflowError:
        raise R1Error(f"{origin} must fit 64 bits, found `{value}`", hint=f"from {-LARGEST} to {LARGEST - 1}", code=Exit.USAGE) from None
    except (ValueError, TypeError):
        raise _refused(param, value, origin) from None
    low, high = param.flag.min, param.flag.max
    outside = param.kind in (int, float) and ((low is not None and result < low) or (high is not None and result > high))
    if outside or (param.flag.choices and result not in param.flag.choices):
        raise _refused(param, value, origin)
    return result


def empty(origin: str) -> R1Error:
    """The error for a name without a character: an unset variable of the shell. As a file it would be this folder."""
    return R1Error(f"{origin} is empty", hint="leave it out, or look at the variable it came from", code=Exit.USAGE)


def _read_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in TRUE + FALSE:
        return value.lower() in TRUE
    raise ValueError


def _read_int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError
    number = int(value)
    if not -LARGEST <= number < LARGEST:
        raise OverflowError
    return number


def _read_float(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError
    return float(value)


def _read_str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _read_changing(value: Any) -> Any:
    """A plain number stays one; what changes stays text, once it is known to be readable."""
    text = Changing(_read_int(value) if isinstance(value, int) else _read_str(value))
    values = [number for _, number in text.switches()]
    if min(values) < 1:
        raise ValueError
    return text if len(values) > 1 else values[0]


_READ: dict[type, Callable[[Any], Any]] = {
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
    str: _read_str,
    Changing: _read_changing,
}


def _refused(param: Param, value: Any, origin: str) -> R1Error:
    found = f"`{value}`" if isinstance(value, (str, int, float)) and not isinstance(value, bool) else repr(value)
    hint = f"see what `{param.option}` takes in --help"
    if param.flag.choices and isinstance(value, str):
        close = difflib.get_close_matches(value, param.flag.choices, n=1)
        hint = f"did you mean `{close[0]}`?" if close else hint
    return R1Error(f"{origin} must be {expected(param)}, found {found}", hint=hint, code=Exit.USAGE)


def expected(param: Param) -> str:
    """What the field takes, in words: "a whole number of at least 1", "one of `a`, `b`"."""
    if param.flag.choices:
        return "one of " + ", ".join(f"`{choice}`" for choice in param.flag.choices)
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list of texts",
        Changing: "a whole number of at least 1, and VALUE@STEP after commas",
    }[param.kind]
    return f"{words} {bounds(param)}".rstrip()


def bounds(param: Param) -> str:
    """The bounds in words: "between 0 and 1", "of at least 1", or ""."""
    low, high = param.flag.min, param.flag.max
    if low is not None and high is not None:
        return f"between {low:g} and {high:g}"
    if low is not None:
        return f"of at least {low:g}"
    return f"of at most {high:g}" if high is not None else ""


def metavar(param: Param) -> str:
    """What stands for the value in --help; empty for a switch."""
    if param.flag.metavar is not None:
        return param.flag.metavar
    if param.flag.choices:
        return "|".join(param.flag.choices)
    if param.flag.positional:
        return f"[{param.name.upper()}]..."
    return {bool: "", int: "INT", float: "NUMBER", str: "TEXT", list: "TEXT", Changing: "INT[,INT@STEP]"}[param.kind]


def notes(param: Param) -> str:
    """What stands in brackets after the help text: "default: 16, at least 2", "required" or ""."""
    parts = []
    if param.required:
        parts.append("required")
    elif param.kind is not bool and not param.counted and param.default not in (MISSING, None, []):
        parts.append(f"default: {param.default:g}" if param.kind in (int, float) and param.default < 1e6 else f"default: {param.default}")
    elif param.negatable:
        parts.append("default: on")
    if param.kind in (int, float) and not param.counted and bounds(param):
        parts.append(bounds(param).removeprefix("of "))
    return ", ".join(parts)


def names(param: Param) -> list[str]:
    """The spellings of an option: "--limit", "-n"; a switch that is on by default is "--shuffle/--no-shuffle"."""
    long = f"{param.option}/--no-{param.option[2:]}" if param.negatable else param.option
    return [long] + ([f"-{param.flag.short}"] if param.flag.short else [])


def callback(settings: type, extra: tuple[Param, ...], run: Callable[[dict[str, Any]], None]) -> Callable[..., None]:
    """A function whose signature Typer reads as the options of `settings` plus `extra`; it calls `run` with the flags that were given."""
    params = (*params_of(settings), *extra)

    def command(**values: Any) -> None:
        given = {param.name: values[param.name] for param in params if _typed(param, values[param.name])}
        _refuse_swallowed(params, given)
        run(given)

    signature = inspect.Signature([_parameter(param) for param in params])
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in signature.parameters.values()}
    return command


def _typed(param: Param, value: Any) -> bool:
    return value not in (None, [], ()) and not (param.counted and value == 0)


def _parameter(param: Param) -> inspect.Parameter:
    """The field as Typer reads it. The default is always None: a value that comes back is one the user typed."""
    common: dict[str, Any] = {"help": param.flag.help, "show_default": False}
    if param.flag.choices:
        common["autocompletion"] = _completing(param.flag.choices)
    elif param.name == "rewards":
        common["autocompletion"] = _complete_rewards
    annotation: Any
    if param.flag.positional:
        annotation = Annotated[list[str] | None, typer.Argument(metavar=metavar(param), **common)]
    elif param.kind is bool:
        annotation = Annotated[bool | None, typer.Option(*names(param), **common)]
    elif param.counted:
        annotation = Annotated[int, typer.Option(*names(param), count=True, **common)]
    else:
        kind = list[str] | None if param.kind is list else str | None
        annotation = Annotated[kind, typer.Option(*names(param), metavar=metavar(param), **common)]
    default = 0 if param.counted else None
    return inspect.Parameter(param.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _completing(choices: tuple[str, ...]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


def _complete_rewards(incomplete: str) -> list[str]:
    """The names that may follow the last comma; the registry imports no reward to list them."""
    from r1cli.rewards.registry import KINDS

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in KINDS if name.startswith(last)]


def _refuse_swallowed(params: tuple[Param, ...], given: dict[str, Any]) -> None:
    """`--model --rewards accuracy` takes "--rewards" as the model's name: refuse it instead of looking for such a model."""
    known = {name for param in params if not param.flag.positional for name in names(param)[0].split("/")}
    for param in params:
        value = given.get(param.name)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and text in known:
                raise R1Error(
                    f"`{param.option}` needs a value, found the flag `{text}`",
                    hint=f"write `{param.option} {metavar(param) or 'VALUE'} {text} ...`",
                    code=Exit.USAGE,
                )


def unknown(name: str, known: list[str], where: str, command: str) -> R1Error:
    """The error for a key that no field has."""
    hint = instead(name, known)
    if hint.startswith("known"):
        hint = f"`r1 {command} --help` lists what it takes"
    return R1Error(f"{where}: `r1 {command}` has no setting `{name}`", hint=hint, code=Exit.USAGE)
