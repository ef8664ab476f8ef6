"""Tables: alignment, which columns are there, intervals beside their scores."""

from r1cli.metrics.reward_quality import LengthRule, Measured, quality
from r1cli.report.tables import figure, markdown_table, quality_table, score_table, text_table

BASE = {"stage": "base", "model": "runs/base", "problems": 200, "samples": 800, "pass@1": 0.0125, "low": 0.004, "high": 0.03}
STUDENT = BASE | {
    "stage": "student",
    "pass@1": 0.415,
    "low": 0.36,
    "high": 0.4725,
    "pass@4": 0.6,
    "cons@k": 0.5,
    "mean_tokens": 87.25,
    "seconds": 1234.5,
}


def test_columns_are_aligned_without_trailing_blanks() -> None:
    assert text_table(["a", "n"], [["long name", "1"], ["b", "1000"]]) == "a             n\nlong name     1\nb          1000"


def test_a_score_table_has_the_columns_that_any_score_has() -> None:
    lines = score_table([BASE, STUDENT]).splitlines()
    assert lines[0].split("  ")[0] == "stage"
    assert "pass@4" in lines[0] and "truncated" not in lines[0] and "benchmark" not in lines[0]
    assert lines[1].split()[4:] == ["1.2%", "0.4", "-", "3.0", "-", "-", "-", "-"]
    assert "41.5%   36.0 - 47.2" in lines[2] and lines[2].endswith("1,234")
    assert len({line.index("%") for line in lines[1:]}) == 1


def test_powers_are_in_the_order_of_numbers() -> None:
    header = score_table([{"pass@16": 0.5, "pass@2": 0.1, "pass@1": 0.1, "pass@4": 0.2}]).splitlines()[0]
    assert header.split() == ["pass@1", "pass@2", "pass@4", "pass@16"]


def test_markdown_escapes_bars() -> None:
    assert markdown_table(["a", "b"], [["x|y", "1"]]) == "| a | b |\n| --- | ---: |\n| x\\|y | 1 |"
    assert score_table([BASE], markdown=True).startswith("| stage | model |")


def test_figures() -> None:
    assert [figure(v) for v in (1234567, 87.25, 0.000123456, 12.0, 98765.4)] == ["1,234,567", "87.25", "0.0001235", "12", "98,765"]


def test_what_a_reward_model_is_worth_line_by_line() -> None:
    pairs = [Measured((1.0, 0.0), (5, 3), "a"), Measured((0.0, 1.0), (5, 3), "b"), Measured((2.0, 1.0), (1, 3), "c")]
    lines = quality_table(quality(pairs, LengthRule(1))).splitlines()
    assert lines[0].startswith("held out: 3 pairs about 3 prompts") and lines[0].endswith("95% interval")
    assert lines[1].split() == ["accuracy", "66.7%", "20.8", "-", "93.9"]
    assert "accuracy of lengths alone (the longer reply wins)" in lines[2] and "accuracy where lengths mislead (1)" in lines[4]
    labels = [Measured((1.0,), (5,), "a", 1.0), Measured((-1.0,), (4,), "b", 0.0)]
    text = quality_table(quality(labels, LengthRule(1, 4)))
    assert "2 labelled completions" in text and "area under the ROC curve" in text and "mislead" not in text
