"""Tables as plain text and as Markdown: what `r1 eval` shows people, and what a recipe prints at its end.

from r1cli.report.tables import score_table
score_table([{"model": "base", "problems": 200, "samples": 800, "pass@1": 0.41, "low": 0.36, "high": 0.46}])
"""

from collections.abc import Mapping, Sequence
from typing import Any

WIDE = ("stage", "benchmark", "model")  # text columns of a score table; the others are numbers
INTERVAL = "95% interval"
PREFERENCE = "preference: "  # a reward model's mean score


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Columns aligned with spaces: the first `left` to the left, the rest to the right. No rule lines, no trailing blanks."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = []
    for row in (header, *rows):
        cells = [cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """The same as a Markdown table; bars in cells are escaped."""
    rule = ["---" if i < left else "---:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (header, rule, *rows))


def score_table(scores: Sequence[Mapping[str, Any]], *, markdown: bool = False) -> str:
    """One line an evaluation (objects as `r1 eval --json` prints them), with the columns that any of them has."""
    header, rows, left = score_cells(scores)
    return (markdown_table if markdown else text_table)(header, rows, left=left)


def score_cells(scores: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]], int]:
    """Header and cells of a score table, and how many of its columns are text. pass@1 has its interval beside it."""
    present = [key for key in _columns(scores) if any(_value(s, key) is not None for s in scores)]
    left = sum(key in WIDE for key in present)
    return [key.replace("_", " ") for key in present], [[_cell(s, key) for key in present] for s in scores], left


def quality_table(found: Mapping[str, Any]) -> str:
    """What a reward model is worth on held-out rows (`metrics.reward_quality.quality`), a line a figure."""
    header, rows = quality_cells(found)
    return text_table(header, rows)


def quality_cells(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of `quality_table`."""
    kind = "pairs" if found["kind"] == "pairs" else "labelled completions"
    wins = f"the {found['length_rule']} reply wins" if kind == "pairs" else f"{found['length_rule']} than a length is good"
    lines = [
        ("accuracy", percent(found["accuracy"]), span(found, "accuracy_low", "accuracy_high")),
        (
            f"accuracy of lengths alone ({wins})",
            percent(found["length_accuracy"]),
            span(found, "length_accuracy_low", "length_accuracy_high"),
        ),
        ("accuracy above that", _signed(100 * found["over_length"]), span(found, "over_length_low", "over_length_high")),
    ]
    if "against_length" in found:
        name = f"accuracy where lengths mislead ({found['against_length_rows']})"
        lines.append((name, percent(found["against_length"]), span(found, "against_length_low", "against_length_high")))
    for key, name in (("auc", "area under the ROC curve"), ("length_auc", "area of lengths alone")):
        if key in found:
            lines.append((name, figure(found[key]), f"{found[f'{key}_low']:.3f} - {found[f'{key}_high']:.3f}"))
    names = {
        "majority_accuracy": "accuracy of the more frequent label", "loss": "loss",
        "brier": "Brier score",
        "calibration_error": "expected calibration error", "length_correlation": "correlation of score and length",
        "margin_length_correlation": "correlation of margin and surplus length",
    }  # fmt: skip
    lines += [(name, figure(found[key]), None) for key, name in names.items() if found.get(key) is not None]
    header = [f"held out: {found['rows']} {kind} about {found['prompts']} prompts", "", INTERVAL]
    return header, [[name, value, interval or ""] for name, value, interval in lines]


def _signed(value: float) -> str:
    return f"{value:+.1f}"


def _columns(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    powers = sorted({key for s in scores for key in s if key.startswith("pass@") and key != "pass@1"}, key=lambda key: int(key[5:]))
    preference = dict.fromkeys(f"{PREFERENCE}{name}" for s in scores for name in s.get("preference") or ())
    return [*WIDE, "problems", "samples", "k", "pass@1", INTERVAL, *powers, "cons@k", *preference, "truncated", "mean_tokens", "seconds"]


def _cell(score: Mapping[str, Any], key: str) -> str:
    value = _value(score, key)
    if value is None:
        return "-"
    if key.startswith(("pass@", "cons@")) or key == "truncated":
        return percent(value)
    return figure(value) if isinstance(value, (int, float)) else str(value)


def _value(score: Mapping[str, Any], key: str) -> Any:
    if key.startswith(PREFERENCE):
        return (score.get("preference") or {}).get(key.removeprefix(PREFERENCE))
    return span(score, "low", "high") if key == INTERVAL else score.get(key)


def span(score: Mapping[str, Any], low: str, high: str) -> str | None:
    """`36.1 - 46.0` (percent) from two keys, or None when the score has no interval."""
    if score.get(low) is None or score.get(high) is None:
        return None
    return f"{100 * score[low]:.1f} - {100 * score[high]:.1f}"


def percent(value: float) -> str:
    """A share of 1 as `41.5%`."""
    return f"{100 * value:.1f}%"


def figure(value: float) -> str:
    """A number as people read it: integers in full with thousands marks, others with four digits."""
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
