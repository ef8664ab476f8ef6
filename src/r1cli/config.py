"""Where the value of each setting comes from: flag > `R1_*` variable > config file > preset > default.

    r1 grpo -c runs/first/config.json -o runs/second        the settings of a run, once more
    r1 grpo -c recipe.toml --lr 1e-6                        table [grpo], or keys at the top level
    R1_GRPO_LR=1e-6 r1 grpo ...                             one command; R1_LR is for all of them
    r1 grpo --preset r1-zero                                the numbers of a paper, src/r1cli/presets/

Every layer is checked by the same `flags.convert`. A key that no field has is refused, so that a typing error never turns into a default.
"""

import json
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

from r1cli.errors import Exit, R1Error, nearest
from r1cli.flags import Param, convert, empty, params_of, unknown
from r1cli.grpo_settings import FILLED_IN
from r1cli.settings import COMMANDS
from r1cli.shared_settings import RUN, Flag

PRESETS = Path(__file__).parent / "presets"
PRESET_COMMANDS = ("sample", "reject", "sft", "rm", "grpo", "distill")
# What a run did once and what a repetition must not do again by itself: `force` in a repeated run would delete what it repeats.
ONCE = ("force", "resume", "dry_run", "debug", "quiet", "verbose", "progress")
OTHER_VARIABLES = ("R1_SANDBOX_URL", "R1_SANDBOX_TOKEN")  # of the code reward (docs/code-rewards.md)
OF_A_SERVICE = re.compile(r"_(SERVICE_HOST|SERVICE_PORT\w*|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)$")  # Kubernetes', of a service named r1


def preset_names() -> list[str]:
    """The presets that come with r1."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


CONFIG = Param("config", Flag("TOML file, run directory, or the config.json of a run", RUN, short="c", metavar="FILE"), str, True, None)
PRESET = Param(
    "preset",
    Flag("start from a paper's numbers, such as r1-zero (docs/cli.md lists all)", RUN, metavar="NAME", choices=tuple(preset_names())),
    str,
    True,
    None,
)


@dataclass(frozen=True)
class Resolved:
    """The settings of one call, and which layer set each field: "flag", "env", "config", "preset" or "default"."""

    settings: Any
    sources: dict[str, str]


def extra_params(command: str) -> tuple[Param, ...]:
    """The options that every command has besides its fields."""
    return (CONFIG, PRESET) if command in PRESET_COMMANDS else (CONFIG,)


def resolve(command: str, given: dict[str, Any], environ: dict[str, str] | None = None) -> Resolved:
    """The settings of `r1 COMMAND` from the flags in `given` and the layers below them. A bad value is an `R1Error` (exit 2)."""
    given = dict(given)
    config, preset = given.pop("config", None), given.pop("preset", None)
    for param, value in ((CONFIG, config), (PRESET, preset)):
        if value == "":
            raise empty(f"`{param.option}`")
    params = {param.name: param for param in params_of(COMMANDS[command])}
    of_file, by_default = from_file(command, Path(config)) if config else ({}, {})
    layers = [
        ("flag", {name: convert(params[name], value, f"`{params[name].option}`") for name, value in given.items()}),
        ("env", from_env(command, os.environ if environ is None else environ)),
        ("config", of_file),
        ("preset", from_preset(command, preset) if preset else {}),
        ("default", by_default),
    ]
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, param in params.items():
        source, layer = next(((source, layer) for source, layer in layers if name in layer), ("default", {}))
        values[name] = layer[name] if name in layer else _default(param)
        sources[name] = source
    missing = [param.option for param in params.values() if values[param.name] is MISSING]
    if missing:
        raise R1Error(
            f"`r1 {command}` needs {' and '.join(f'`{option}`' for option in missing)}",
            hint=f"`r1 {command} --help` begins with two examples",
            code=Exit.USAGE,
        )
    return Resolved(COMMANDS[command](**values), sources)


def _default(param: Param) -> Any:
    if isinstance(param.default, list):
        return list(param.default)
    return [] if param.flag.positional else param.default


def from_env(command: str, environ: Any) -> dict[str, Any]:
    """The fields that `R1_COMMAND_FIELD` or `R1_FIELD` set (the first one wins); `R1_NO_FIELD=1` turns a switch off.

    A list is one text, or a JSON array of texts.
    """
    params = {param.name: param for param in params_of(COMMANDS[command])}
    prefix = f"R1_{command.upper()}_"
    known = [f"{prefix}{name.upper()}" for name in params] + [f"{prefix}NO_{p.name.upper()}" for p in params.values() if p.negatable]
    for variable in environ:
        if variable.startswith(prefix) and variable not in known:
            raise R1Error(
                f"`{variable}`: `r1 {command}` has no such setting",
                hint=nearest(variable, known) if _close(variable, known) else f"`r1 {command} --help` lists what it takes",
                code=Exit.USAGE,
            )
    values = {}
    for name, param in params.items():
        for head in (prefix, "R1_"):
            variable, negative = f"{head}{name.upper()}", f"{head}NO_{name.upper()}"
            if variable in environ:
                values[name] = convert(param, _env_value(param, environ[variable]), f"`{variable}`")
                break
            if param.negatable and negative in environ:
                values[name] = not convert(param, environ[negative], f"`{negative}`")
                break
    return values


def again(command: str, sources: Mapping[str, str], *, reads_stdin: bool = False) -> str:
    """This call as a line to paste that goes on where it was: with --resume and the variables that set something, without --force;
    ROWS are the same rows again."""
    words = [word for word in sys.argv[1:] if word != "--force"]
    words += [] if "--resume" in words else ["--resume"]
    names = [name.upper() for name, source in sources.items() if source == "env" and name not in ONCE]
    heads = (f"R1_{command.upper()}_", "R1_")
    spelled = [[f"{head}{no}{name}" for head in heads for no in ("", "NO_")] for name in names]
    set_by = [next(variable for variable in some if variable in os.environ) for some in spelled if any(v in os.environ for v in some)]
    line = " ".join([*(f"{variable}={shlex.quote(os.environ[variable])}" for variable in set_by), shlex.join(["r1", *words])])
    return f"{line} < ROWS" if reads_stdin else line


def strange_variables(environ: Any) -> list[str]:
    """What is to be said of `R1_*` variables that no command reads. Those of one command are its own to refuse (`from_env`)."""
    fields = [param for settings in COMMANDS.values() for param in params_of(settings)]
    known = {f"R1_{param.name.upper()}" for param in fields} | {f"R1_NO_{param.name.upper()}" for param in fields if param.negatable}
    known |= set(OTHER_VARIABLES)
    heads = tuple(f"R1_{command.upper()}_" for command in COMMANDS)
    strange = [name for name in sorted(environ) if name.startswith("R1_") and name not in known and not name.startswith(heads)]
    strange = [name for name in strange if not OF_A_SERVICE.search(name)]
    close = [name for name in strange if _close(name, sorted(known))]
    said = [f"`{name}` is set, and no command has such a setting: {nearest(name, known)}" for name in close]
    if others := [f"`{name}`" for name in strange if name not in close]:
        said.append(f"no command has a setting for {', '.join(others)}: the scheme is R1_SETTING, or R1_COMMAND_SETTING")
    return said


def _close(name: str, known: list[str]) -> bool:
    return nearest(name, known).startswith("did")


def _env_value(param: Param, text: str) -> Any:
    if param.kind is list and text.startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def from_file(command: str, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that a TOML file or a run's config.json sets for `command`, and those that the run took by default: they were the
    defaults of its version of r1, and give way to a preset as today's do."""
    if path.is_dir():
        path = path / "config.json"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise R1Error(
            f"cannot read the configuration `{path}` ({error.strerror})",
            hint="give a TOML file or the config.json of a run to -c",
            code=Exit.USAGE,
        ) from None
    if path.suffix == ".json":
        return _from_run(command, path, text)
    return _from_toml(command, str(path), _parse_toml(str(path), text)), {}


def _parse_toml(name: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise R1Error(
            f"`{name}` is not valid TOML ({error})", hint='a key looks like `lr = 1e-6` or `rewards = "accuracy"`', code=Exit.USAGE
        ) from None


def _from_toml(command: str, name: str, table: dict[str, Any]) -> dict[str, Any]:
    """Keys at the top level are for every command that reads the file; [command] holds those of one, and wins."""
    top = {key: value for key, value in table.items() if not isinstance(value, dict)}
    for key, value in table.items():
        if isinstance(value, dict) and key not in COMMANDS:
            raise R1Error(f"`{name}`: no command is called `{key}`", hint=nearest(key, COMMANDS), code=Exit.USAGE)
    return _checked(command, name, top) | _checked(command, name, table.get(command, {}))


def _from_run(command: str, path: Path, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings that a run was given, and those it took by default, without what belongs to that one call (`ONCE`)."""
    try:
        document = json.loads(text)
        settings, writer, sources = dict(document["settings"]), document["command"], dict(document.get("sources", {}))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise R1Error(
            f"`{path}` is not the config.json of a run", hint="a run directory of r1 has one; a file by hand is TOML", code=Exit.USAGE
        ) from None
    if writer != command:
        raise R1Error(f"`{path}` was written by `r1 {writer}`, not by `r1 {command}`", hint=f"r1 {writer} -c {path}", code=Exit.USAGE)
    values = _checked(command, str(path), {key: value for key, value in settings.items() if key not in ONCE})
    by_default = {name for name in values if sources.get(name) == "default"}
    taken = {name: value for name, value in values.items() if name in by_default - FILLED_IN}
    return {name: value for name, value in values.items() if name not in by_default}, taken


def from_preset(command: str, name: str) -> dict[str, Any]:
    """The fields that src/r1cli/presets/NAME.toml sets for `command`."""
    path = PRESETS / f"{name}.toml"
    if not path.is_file():
        raise R1Error(f"unknown preset `{name}`", hint=nearest(name, preset_names()), code=Exit.USAGE)
    table = _parse_toml(name, path.read_text(encoding="utf-8"))
    if command not in table:
        raise R1Error(
            f"preset `{name}` says nothing about `r1 {command}`",
            hint="it is for " + ", ".join(f"`r1 {key}`" for key in table),
            code=Exit.USAGE,
        )
    return _from_toml(command, f"preset {name}", table)


def _checked(command: str, where: str, table: dict[str, Any]) -> dict[str, Any]:
    params = {param.name: param for param in params_of(COMMANDS[command])}
    values = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in params:
            raise unknown(key, list(params), f"`{where}`", command)
        if isinstance(value, list) and all(isinstance(part, str) for part in value) and _has_commas(params[name]):
            value = ",".join(value)
        values[name] = convert(params[name], value, f"`{key}` in `{where}`")
    return values


def _has_commas(param: Param) -> bool:
    """Whether a field is a list that the command line writes with commas: a file may have an array there."""
    return param.kind is str and (param.flag.metavar or "").endswith(",...")
