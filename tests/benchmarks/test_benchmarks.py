"""Every benchmark file parses, names rewards that exist, and stands below flags and above defaults."""

import pytest

from r1cli.benchmarks import benchmark as benchmarks
from r1cli.errors import R1Error
from r1cli.io.fields import FieldMap
from r1cli.rewards.registry import parse_specs
from r1cli.settings import EvalSettings


@pytest.mark.parametrize("name", benchmarks.names())
def test_a_benchmark_says_all_that_a_score_depends_on(name: str) -> None:
    found = benchmarks.load(name)
    assert {"template", "rewards", "samples", "temperature", "top_p", "max_completion_length"} <= set(found.settings)
    assert parse_specs(found.settings["rewards"])
    FieldMap(found.map)
    settings = benchmarks.apply(found, EvalSettings(inputs=["rows.jsonl"]), {})
    assert (settings.temperature, settings.top_p, settings.max_completion_length) == (0.6, 0.95, 32768)


def test_the_papers_k() -> None:
    ks = {name: benchmarks.load(name).settings["samples"] for name in ("aime24", "math500")}
    assert ks == {"aime24": 64, "math500": 4}


def test_a_flag_wins_over_the_benchmark_and_the_benchmark_over_defaults() -> None:
    settings = EvalSettings(inputs=["rows.jsonl"], samples=2, temperature=0.6)
    applied = benchmarks.apply(benchmarks.load("math500"), settings, {"samples": "flag", "temperature": "default"})
    assert (applied.samples, applied.template, applied.inputs, applied.map) == (2, "boxed", ["rows.jsonl"], [])


def test_without_rows_the_benchmark_brings_its_own() -> None:
    applied = benchmarks.apply(benchmarks.load("aime24"), EvalSettings(inputs=[]), {})
    assert applied.inputs[0].startswith("hf:") and applied.map
    with pytest.raises(R1Error, match="cannot be fetched") as error:
        benchmarks.apply(benchmarks.load("gsm8k"), EvalSettings(inputs=[]), {})
    assert error.value.code == 2 and "rows.jsonl" in (error.value.hint or "")


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(R1Error) as error:
        benchmarks.load("math50")
    assert "`math500`" in (error.value.hint or "") and error.value.code == 2
