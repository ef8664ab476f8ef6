"""Anything that JSON can hold survives a trip through every command that reads and writes rows, in both formats, in and out."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r1cli.commands import mix, reject, sample
from r1cli.config import resolve
from r1cli.guard import Context
from r1cli.io.stream import RowWriter, read_rows
from r1cli.report.console import Console
from r1cli.row import dump, parse

TEXT = st.text(st.characters(), max_size=4)  # half surrogate pairs included
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
# the fields that commands look into hold anything too
NAMES = st.sampled_from(["prompt", "messages", "answer", "language", "rewards", "reward", "completion", "a", "", "a.b", "\ud800"]) | TEXT
ROWS = st.lists(st.dictionaries(NAMES.filter(lambda name: name != "id"), VALUES, max_size=4), min_size=1, max_size=6).map(
    lambda rows: [{"id": number, **row} for number, row in enumerate(rows)]
)


def run(command: str, module: Any, given: dict[str, Any]) -> None:
    resolved = resolve(command, {"quiet": 2, "force": True, **given}, {})
    module.run(resolved.settings, Context(command, resolved.sources, Console(quiet=2)))


def exact(rows: Any) -> list[str]:
    """Rows as text that tells 1 from 1.0 and from true, and an absent field from a null one; orders do not count."""
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return
    with RowWriter(path, force=True) as writer:
        writer.write_all(rows)


FORMATS = [(into, out) for into in ("jsonl", "parquet") for out in ("jsonl", "parquet")]
MIX: list[dict[str, Any]] = [
    {"shuffle": False},
    {"validation": "50%", "stratify": "a"},
    {"decontaminate": ["bench.jsonl"], "chars": "..100000", "ngram": 3},
]


@pytest.mark.parametrize(("into", "out"), FORMATS)
@pytest.mark.parametrize("flags", MIX, ids=["stream", "index", "filters"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(rows=ROWS)
def test_through_mix(tmp_path: Path, rows: list[dict[str, Any]], into: str, out: str, flags: dict[str, Any]) -> None:
    write(tmp_path / f"in.{into}", rows)
    (tmp_path / "bench.jsonl").write_text('{"prompt": "words that no row has"}\n')
    flags = {**flags, **({"decontaminate": [str(tmp_path / "bench.jsonl")]} if "decontaminate" in flags else {})}
    outputs = [tmp_path / f"out.{out}"]
    if "validation" in flags and len(rows) > 1:
        outputs.append(tmp_path / f"held.{out}")
        flags["validation_out"] = str(outputs[1])
    else:
        flags = {name: value for name, value in flags.items() if name not in ("validation", "stratify")}  # the latter is for a part
    run("mix", mix, {"inputs": [str(tmp_path / f"in.{into}")], "out": str(outputs[0]), **flags})
    assert exact(row for path in outputs for row in read_rows([str(path)])) == exact(rows)


@pytest.mark.parametrize(("into", "out"), FORMATS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(rows=ROWS)
def test_through_reject(tmp_path: Path, rows: list[dict[str, Any]], into: str, out: str) -> None:
    rows = [{**row, "completion": str(row["id"])} for row in rows]
    write(tmp_path / f"in.{into}", rows)
    run(
        "reject",
        reject,
        {
            "inputs": [str(tmp_path / f"in.{into}")],
            "out": str(tmp_path / f"out.{out}"),
            "rewards": "format",
            "keep": "all",
            "reward_workers": 1,
        },
    )
    found = [dict(row) for row in read_rows([str(tmp_path / f"out.{out}")])]
    for row in found:
        assert isinstance(row["rewards"], dict)
    scored = {"rewards", "reward"}
    assert exact({name: value for name, value in row.items() if name not in scored} for row in found) == exact(
        {name: value for name, value in row.items() if name not in scored} for row in rows
    )


class Parrot:
    """An engine that says the same to everything."""

    name, model, max_model_len = "parrot", "parrot", 4096

    def __init__(self) -> None:
        from tests.tiny import tiny_tokenizer  # imports torch: only the test that needs it pays for it

        self.tokenizer = tiny_tokenizer()

    def sample(self, requests: Iterable[Any], params: Any) -> Iterator[Any]:
        from r1cli.engines.protocol import Completion

        return (Completion(request.key, [5, 6], "hello", "stop") for request in requests)

    def close(self) -> None:
        """Nothing to free."""


WRITTEN = {"sample", "completion", "finish_reason", "num_tokens", "model", "seed", "rewards", "reward", "think_prefix"}  # by `r1 sample`


@pytest.mark.parametrize(("into", "out"), [("jsonl", "jsonl"), ("parquet", "jsonl"), ("jsonl", "parquet")])
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_rows_survive_sample(
    rows: list[dict[str, Any]], into: str, out: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("r1cli.engines.load.load_engine", lambda *_, **__: Parrot())
    asked = [{**row, "prompt": "say hello"} for row in rows]
    write(tmp_path / f"in.{into}", asked)
    run("sample", sample, {"model": str(tiny), "inputs": [str(tmp_path / f"in.{into}")], "out": str(tmp_path / f"out.{out}")})
    drawn = list(read_rows([str(tmp_path / f"out.{out}")]))
    assert all(row["completion"] == "hello" and row["num_tokens"] == 2 for row in drawn)
    kept = [{name: value for name, value in row.items() if name not in WRITTEN} for row in drawn]
    assert exact(kept) == exact({name: value for name, value in row.items() if name not in WRITTEN} for row in asked)


ODD = [
    '{"a": 1.0, "b": -0.0, "c": 1e16, "d": 1E400}',
    '{"a": "\\ud800"}',
    '{"a": 123456789012345678901234567890}',
    '{"a":1,"a":2}',
    '{"a": 01}',
    '{"a": "\x01"}',
    '{"a": +1}',
    '{"a": .5}',
    '{"a": 1.}',
    '{"a": Infinity}',
    '{"a": 5e-324}',
    "{}",
    "{",
    "[]",
    '"x"',
    '{"a": 1} x',
    '{"a": 0.1e-7}',
    '{"a": -0}',
    '{"a": 18446744073709551616}',
    '{"a": "\\u00e9\\n\\/"}',
    "{'a': 1}",
    '{"a": "\\x"}',
    '{"a": tru}',
    "",
    "  ",
]
LINES = st.dictionaries(TEXT, VALUES, max_size=3).map(json.dumps)
CUT = st.builds(lambda line, at: line[:at], LINES, st.integers(1, 60))
SPOILT = st.builds(
    lambda line, text, at: line[:at] + text + line[at:], LINES, st.text('0123456789.eE+-\\u{}[],:" ', max_size=3), st.integers(0, 30)
)


def outcome(read: Callable[[str], Any], line: str) -> str:
    """What a reader makes of a line: its values with their types, or that it refuses."""
    try:
        value = read(line)
    except Exception:
        return "refused"
    return json.dumps(value) if isinstance(value, dict) else "refused"


def strictly(line: str) -> Any:
    """The standard library's reader, without NaN and infinity."""
    value = json.loads(line)
    json.dumps(value, allow_nan=False)
    return value


@settings(deadline=None)
@given(st.sampled_from(ODD) | CUT | SPOILT)
def test_lines_are_read_as_the_standard_library_reads_them(line: str) -> None:
    assert outcome(parse, line) == outcome(strictly, line)


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_what_is_written_is_read_back_in_the_same_order(row: dict[str, Any]) -> None:
    assert json.dumps(dict(parse(dump(row)))) == json.dumps(row)
