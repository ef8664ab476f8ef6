"""One self-contained HTML page about runs and scores: curves, tables, settings, a sample browser.

    page("A title", [RunData(...)], [scores, ...])

Nothing on it is fetched from anywhere, and its content security policy forbids it: text in samples is a model's, and must not be able to
reach out. All text is escaped here, or set as text by `page.js`; every chart is drawn when the page is made (`charts.py`).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from math import isfinite
from typing import Any

from r1cli.report.charts import COLOURS, Series, interval_chart, line_chart
from r1cli.report.tables import figure, quality_cells, score_cells

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
MOST_SAMPLES = 2000  # of all runs together: a page of tens of megabytes opens slowly
CHART_NAMES = {
    "reward": "Reward, mean", "completion_length": "Completion length, tokens", "truncated": "Share cut at the length limit",
    "signal_groups": "Share of groups whose rewards differ", "kl": "KL to the reference", "entropy": "Entropy, nats a token",
    "clip_fraction": "Share of tokens clipped", "loss": "Loss", "grad_norm": "Gradient norm", "lr": "Learning rate",
    "tokens_per_second": "Tokens a second", "importance_weight": "Weight between trainer and sampler, mean",
    "accuracy": "Share told right in a step", "margin": "Score of chosen above rejected, mean", "score": "Score, mean",
    "held_out_accuracy": "Share told right, held out", "held_out_loss": "Loss, held out",
    "sampler_mismatch": "KL of the sampler from the trainer", "wasted": "Share of groups drawn for nothing", "refills": "Times drawn anew",
}  # fmt: skip
FIRST = ("reward", "reward/", "completion_length", "truncated", "signal_groups", "kl", "entropy", "clip_fraction", "loss")
NOT_CHARTS = ("step", "time")


@dataclass(frozen=True)
class RunData:
    """What a run directory holds. config: its config.json; metrics and samples: the records of the two .jsonl files, in file order.

    held_out: the held_out.json of a reward model.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()
    samples: Sequence[Mapping[str, Any]] = ()
    held_out: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, tuple[Any, str]]:
        """Setting -> (value, which layer set it)."""
        sources = self.config.get("sources", {})
        return {name: (value, sources.get(name, "")) for name, value in self.config.get("settings", {}).items()}


def page(title: str, runs: Sequence[RunData], scores: Sequence[Mapping[str, Any]]) -> str:
    """The page as text."""
    sections = [_scores(scores), _runs(runs), _reward_models(runs), _curves(runs), _samples(runs), _settings(runs)]
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{_asset("page.css")}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p class="note">made by r1 report, {made}</p>
{"".join(sections)}
</main>
<script>
{_asset("page.js")}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return files("r1cli.report").joinpath(name).read_text("utf-8")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int, classes: Sequence[str] = ()) -> str:
    """A table of escaped cells; `left` columns of text. classes: one class a row, where given."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}{' class=text' if i < left else ''}>{escape(cell)}</{tag}>" for i, cell in enumerate(row))

    names = [f' class="{name}"' if name else "" for name in classes]
    body = "".join(f"<tr{names[i] if i < len(names) else ''}>{cells('td', row)}</tr>" for i, row in enumerate(rows))
    return f'<div class="scroll"><table><thead><tr>{cells("th", header)}</tr></thead><tbody>{body}</tbody></table></div>'


def _scores(scores: Sequence[Mapping[str, Any]]) -> str:
    if not scores:
        return ""
    header, rows, left = score_cells(scores)
    spans = [(_score_name(s), s["pass@1"], s["low"], s["high"]) for s in scores if None not in map(s.get, ("pass@1", "low", "high"))]
    chart = interval_chart(spans) if spans else ""
    note = '<p class="note">pass@1 with its 95% interval; the unit is the problem, not the completion</p>' if spans else ""
    return f"<section><h2>Scores</h2>{note}{chart}{_table(header, rows, left)}</section>"


def _score_name(score: Mapping[str, Any]) -> str:
    parts = [str(score[key]) for key in ("stage", "benchmark") if score.get(key) is not None]
    return ", ".join(parts) or str(score.get("model") or "completions")


def _runs(runs: Sequence[RunData]) -> str:
    if not runs:
        return ""
    rows = [[run.name, str(run.config.get("command", "-")), str(run.settings.get("model", ("-", ""))[0]), *_progress(run)] for run in runs]
    return f"<section><h2>Runs</h2>{_table(['run', 'command', 'model', 'steps', 'minutes'], rows, 3)}</section>"


def _reward_models(runs: Sequence[RunData]) -> str:
    """What reward models are worth on held-out rows, a table a run."""
    tables = [(run.name, *quality_cells(run.held_out)) for run in runs if run.held_out]
    if not tables:
        return ""
    note = '<p class="note">the rule about lengths is learnt from the training rows; intervals take the prompt as the unit</p>'
    shown = "".join(f"<h3>{escape(name)}</h3>{_table(header, rows, 1)}" for name, header, rows in tables)
    return f"<section><h2>Reward models</h2>{note}{shown}</section>"


def _progress(run: RunData) -> list[str]:
    times = [record["time"] for record in run.metrics if isinstance(record.get("time"), (int, float))]
    minutes = f"{(times[-1] - times[0]) / 60:.1f}" if len(times) > 1 else "-"
    return [figure(run.metrics[-1]["step"]) if run.metrics else "-", minutes]


def curves(runs: Sequence[RunData]) -> dict[str, list[Series]]:
    """Metric -> its lines, one for each run that has it, in the order of the charts. Values that are not finite numbers are left out."""
    keys = dict.fromkeys(key for run in runs for record in run.metrics for key in record if key not in NOT_CHARTS)
    found = {}
    for key in sorted(keys, key=_place):
        lines = [Series(run.name, points, i) for i, run in enumerate(runs) if (points := _points(run, key))]
        if lines:
            found[key] = lines
    return found


def _points(run: RunData, key: str) -> list[tuple[float, float]]:
    points = [(record["step"], record.get(key)) for record in run.metrics]
    return [(float(x), float(y)) for x, y in points if isinstance(y, (int, float)) and not isinstance(y, bool) and isfinite(y)]


def _place(key: str) -> int:
    group = key.partition("/")[0] + ("/" if "/" in key else "")
    return FIRST.index(group) if group in FIRST else len(FIRST)


def _curves(runs: Sequence[RunData]) -> str:
    charts = [line_chart(chart_name(key), lines) for key, lines in curves(runs).items()]
    if not charts:
        return ""
    legend = "".join(f'<span class="key" style="--line: var(--line-{i % COLOURS})">{escape(run.name)}</span>' for i, run in enumerate(runs))
    note = '<p class="note">by step; where two lines are drawn, the thin one is the values and the strong one their running mean</p>'
    return f'<section><h2>Curves</h2><p class="note">{legend}</p>{note}<div class="charts">{"".join(charts)}</div></section>'


def chart_name(key: str) -> str:
    """The heading of a metric's chart: a name in words, or the key made readable."""
    words = key.replace("_", " ").replace("/", ": ")
    return CHART_NAMES.get(key, words[:1].upper() + words[1:])


def _samples(runs: Sequence[RunData]) -> str:
    rows = [{**sample, "run": run.name} for run in runs for sample in run.samples]
    if not rows:
        return ""
    kept = spread(rows, MOST_SAMPLES)
    note = f'<p class="note">{len(kept):,} of {len(rows):,}, evenly spread; all are in samples.jsonl</p>' if len(kept) < len(rows) else ""
    # "<" is the one character that could end the script element or open a comment in it
    data = json.dumps(kept, ensure_ascii=False).replace("<", "\\u003c")
    options = [f"<option>{escape(run.name)}</option>" for run in runs if run.samples]
    chooser = f'<label>run<select name="run"><option value="">all</option>{"".join(options)}</select></label>' if len(options) > 1 else ""
    return f"""<section><h2>Samples</h2>{note}
<form class="filters">{chooser}
<label>from step<input type="number" name="from"></label><label>to step<input type="number" name="to"></label>
<label>least reward<input type="number" name="low" step="any"></label><label>most reward<input type="number" name="high" step="any"></label>
<label>words<input type="search" name="words"></label><span class="count"></span></form>
<div class="browser"><div class="list"></div><div class="sample"></div></div>
<script type="application/json" id="samples">{data}</script></section>"""


def spread(rows: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the rows, evenly spread over them, the first and the last included."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


def _settings(runs: Sequence[RunData]) -> str:
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    if not names:
        return ""
    chosen = [name for name in names if any(run.settings.get(name, (None, "default"))[1] not in ("default", "") for run in runs)]
    differ = {name for name in names if len({json.dumps(run.settings.get(name, ("",))[0], default=str) for run in runs}) > 1}
    header = ["setting", *(run.name for run in runs)]

    def table(shown: Sequence[str]) -> str:
        cells = [[name, *(_value(run.settings[name][0]) if name in run.settings else "" for run in runs)] for name in shown]
        return _table(header, cells, len(header), ["differs" if name in differ else "" for name in shown])

    first = [name for name in names if name in chosen or name in differ]
    marked = ", those that differ marked" if len(runs) > 1 else ""
    return (
        f'<section><h2>Settings</h2><p class="note">what was set by hand{marked}</p>{table(first) if first else ""}'
        f"<details><summary>all {len(names)} settings</summary>{table(names)}</details></section>"
    )


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
