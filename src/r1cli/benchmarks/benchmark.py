"""Benchmarks by name: one TOML file each beside this one, with the settings a published score was measured with.

    r1 eval -m MODEL --benchmark math500                        the rows of its own source
    r1 eval -m MODEL --benchmark math500 rows.jsonl             other rows (`prompt`, `answer`), the same settings

A benchmark stands below flags, variables and config files and above defaults: `-k 8` still wins. Its source and the columns of that
source are used only when no rows are named; rows that are named bring their own --map.
"""

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r1cli.errors import Exit, R1Error, nearest
from r1cli.flags import convert, params_of
from r1cli.settings import EvalSettings

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Benchmark:
    """What a TOML file says: `inputs` with their `map` where the rows can be had, `rows` (what they must hold) where they cannot."""

    name: str
    title: str
    about: str
    settings: dict[str, Any]
    inputs: tuple[str, ...] = ()
    map: tuple[str, ...] = ()
    rows: str = "`prompt` and `answer`"


def names() -> list[str]:
    """The benchmarks that come with r1."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> Benchmark:
    """The benchmark of this name. Raises `R1Error` (exit 2) when there is none."""
    path = FOLDER / f"{name}.toml"
    if name not in names():
        hint = f"{nearest(name, names())}; `r1 eval --list-benchmarks` lists them"
        raise R1Error(f"unknown benchmark `{name}`", hint=hint, code=Exit.USAGE)
    table = tomllib.loads(path.read_text("utf-8"))
    params = {param.name: param for param in params_of(EvalSettings)}
    settings = {key: convert(params[key], value, f"`{key}` in `{path.name}`") for key, value in table.pop("settings").items()}
    inputs, columns = tuple(table.pop("inputs", ())), tuple(table.pop("map", ()))
    return Benchmark(name=name, settings=settings, inputs=inputs, map=columns, **table)


def apply(benchmark: Benchmark, settings: EvalSettings, sources: dict[str, str]) -> EvalSettings:
    """The settings with the benchmark's in place of every default. sources: setting -> the layer that set it.

    Raises `R1Error` (exit 2) when no rows are named and the benchmark has no source of its own.
    """
    changes = {name: value for name, value in benchmark.settings.items() if sources.get(name, "default") == "default"}
    if not settings.inputs:
        if not benchmark.inputs:
            raise R1Error(
                f"the rows of `{benchmark.name}` cannot be fetched: name a file with them",
                hint=f"r1 eval --benchmark {benchmark.name} rows.jsonl, each row with {benchmark.rows}",
                code=Exit.USAGE,
            )
        changes["inputs"] = list(benchmark.inputs)
        if not settings.map:
            changes["map"] = list(benchmark.map)
    return replace(settings, **changes)
