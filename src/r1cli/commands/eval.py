"""r1 eval: completions in (or drawn from a model), scores with intervals out.

The one object it computes is printed as a table for people or with --json, and goes to --out; --rows keeps every scored completion, row by
row, so that an interrupted evaluation can be scored from what there is. Rewards are those of `reject` and `grpo`, through the same scorer.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

from r1cli.benchmarks import benchmark as benchmarks
from r1cli.commands import finish
from r1cli.commands.evaluation import Tally
from r1cli.commands.judging import REFUSAL, check_refusal_judge, open_judge
from r1cli.commands.preference import all_rewards, check_unstaged, open_models, rule_rewards
from r1cli.errors import Exit, R1Error, nearest
from r1cli.guard import Context
from r1cli.io import manifest
from r1cli.io.stream import RowReader, RowWriter, claim_stdout, read_rows
from r1cli.io.whole import check_new
from r1cli.report.tables import figure, percent, span, text_table
from r1cli.rewards.refusal import is_unsafe
from r1cli.rewards.reward import RewardSpec
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row, require
from r1cli.settings import EvalSettings


def run(settings: EvalSettings, context: Context) -> None:
    """Evaluate, print, and fail (exit 1) when a score that --min names is not reached."""
    if settings.list_benchmarks:
        claim_stdout().write(_benchmark_list() + "\n")
        return
    started = time.monotonic()
    if settings.benchmark:
        settings = benchmarks.apply(benchmarks.load(settings.benchmark), settings, context.sources)
    rules, specs = rule_rewards(settings), all_rewards(settings)
    check_unstaged(settings)
    check_refusal_judge(settings, context.sources)
    floors = [_floor(text, specs) for text in settings.min]
    out = None if settings.out is None else check_new(settings.out, force=settings.force)
    rows = RowWriter(settings.rows or os.devnull, force=settings.force, append=True)
    if settings.rows:
        context.on_interrupt(f"r1 eval --rewards {settings.rewards} {settings.rows}")
    reader = read_rows(settings.inputs, field_map=settings.map, limit=settings.limit, skip_bad=settings.skip_bad, say=context.console.info)

    tally = Tally(specs, decides=bool(rules))
    with (
        rows as writer,
        open_models(settings, context) as models,
        open_judge(settings, context) as judge,
        Scorer(rules, settings.reward_workers, settings.reward_timeout, models) as scorer,
    ):
        with context.console.progress(None, "completions", "eval") as progress:
            scored = scorer.score(_completions(settings, reader, context))
            for row in scored if judge is None else judge.refusals(scored, _right, REFUSAL):
                writer.write(row)
                tally.add(row)
                progress.set(f"correct {tally.correct}/{tally.judged}" if rules else "")
                progress.advance()
        for line in scorer.warnings():
            context.console.warn(line)
        scores = _described(settings, tally) | tally.scores() | {"timeouts": scorer.timeouts}
        scores["preference"] = {spec.name: scores["rewards"][spec.name] for spec, _ in models if spec.name in scores["rewards"]}
    scores["seconds"] = round(time.monotonic() - started, 3)
    if judge is not None:
        scores["judged"], scores["verdicts_unreadable"] = judge.asked, judge.unreadable
    _warn(tally, reader, context)

    text = json.dumps(scores, ensure_ascii=False, allow_nan=False)
    claim_stdout().write((text if settings.json else table(scores)) + "\n")
    if out is not None:
        manifest.write_json(out, scores)
    outputs = [name for name in (settings.out, settings.rows) if name]
    if outputs:
        counts = {"in": sum(source.rows for source in reader.sources), "out": rows.count, "bad": reader.bad}
        finish.write_manifest(outputs[0], "eval", settings, reader.sources, outputs, counts, time.time() - scores["seconds"])
    for name, value in floors:
        check_floor(scores, name, value)


def _completions(settings: EvalSettings, reader: RowReader, context: Context) -> Iterable[Row]:
    if settings.model is None:
        return _existing(reader)
    from r1cli.commands.sampling import draw  # torch lives behind it

    return draw(_prompts(reader), settings, context)


def _existing(reader: RowReader) -> Iterator[Row]:
    for row in reader:
        if "completion" not in row and "prompt" in row:
            name = f"{row.where}: " if row.where else ""
            raise R1Error(
                f"{name}row `{row['id']}` has no `completion`, and no `--model` is given",
                code=Exit.USAGE,
                hint="r1 eval --model MODEL draws completions for prompt rows",
            )
        require(row, "completion", str)
        yield row


def _prompts(reader: RowReader) -> Iterator[Row]:
    for row in reader:
        if "completion" in row:
            name = f"{row.where}: " if row.where else ""
            raise R1Error(
                f"{name}row `{row['id']}` has a `completion` already, and `--model` would draw another",
                code=Exit.USAGE,
                hint="leave out --model to score the rows as they are, or give prompt rows",
            )
        yield row


def _described(settings: EvalSettings, tally: Tally) -> dict[str, Any]:
    about: dict[str, Any] = {"model": settings.model or ", ".join(tally.models) or None}
    if settings.benchmark:
        about["benchmark"] = settings.benchmark
    return about


def _warn(tally: Tally, reader: RowReader, context: Context) -> None:
    fewest, most = tally.sizes()
    if fewest != most:
        context.console.warn(f"problems have between {fewest} and {most} completions: pass@k goes up to {fewest}")
    if tally.unscored:
        context.console.warn(f"{tally.unscored} rows have no answer to score by and count nothing")
    if reader.bad:
        context.console.warn(f"{reader.bad} bad lines left out, the first: {reader.first_bad}")
    if len(tally.models) > 1:
        context.console.warn(f"the rows are of {len(tally.models)} models: {', '.join(tally.models)}")


def _floor(text: str, specs: list[RewardSpec]) -> tuple[str, float]:
    """`pass@1=0.5` as a pair. Raises `R1Error` (exit 2), before anything is drawn, for a name that no evaluation can have."""
    name, equals, value = text.partition("=")
    try:
        floor = float(value)
    except ValueError:
        equals = ""
    known = ["pass@1", "low", "cons@k", "cons_low", *(spec.name for spec in specs)]
    if not equals:
        raise R1Error(f"`--min {text}` is not a score and a number", hint="for example --min pass@1=0.5", code=Exit.USAGE)
    if name not in known and not (name.startswith("pass@") and name[5:].isdigit()):
        raise R1Error(f"`--min {text}`: there is no score `{name}`", hint=nearest(name, known), code=Exit.USAGE)
    return name, floor


def check_floor(scores: dict[str, Any], name: str, floor: float) -> None:
    """Raise `R1Error` (exit 1) when a score is below its floor, (exit 2) when these rows do not give it."""
    value = scores.get(name, scores["rewards"].get(name))
    if value is None:
        what = f"`--min {name}={floor:g}`: with {scores['k']} completions a problem there is no `{name}`"
        raise R1Error(what, hint="draw more completions with -k", code=Exit.USAGE)
    if value < floor:
        raise R1Error(f"{name} is {value:.4f}, below {floor:g}", code=Exit.FAILED)


def table(scores: dict[str, Any]) -> str:
    """The scores for people: one a line, with its interval."""
    rows = [] if scores["pass@1"] is None else [["pass@1", percent(scores["pass@1"]), span(scores, "low", "high") or ""]]
    rows += [
        [key, percent(value), ""] for key, value in scores.items() if key.startswith("pass@") and key != "pass@1" and value is not None
    ]
    if scores.get("cons@k") is not None:
        rows.append([f"cons@{scores['k']}", percent(scores["cons@k"]), span(scores, "cons_low", "cons_high") or ""])
    for label, found in scores.get("refusals", {}).items():
        rows.append([f"refused, {label} prompts", percent(found["refused"]), span(found, "low", "high") or ""])
    if scores["truncated"] is not None:
        rows.append(["truncated", percent(scores["truncated"]), ""])
    if scores["mean_tokens"] is not None:
        rows.append(["mean tokens", figure(round(scores["mean_tokens"], 1)), ""])
    rows += [[f"reward {name}", f"{value:.3f}", _reward_span(scores, name)] for name, value in scores["rewards"].items()]
    title = f"{scores['model'] or 'completions'}: {scores['problems']} problems, {scores['samples']} completions"
    return f"{title}\n\n{text_table(['score', 'value', '95% interval'], rows)}"


def _right(row: Row, refuses: bool) -> float:
    return float(refuses == is_unsafe(row))


def _reward_span(scores: dict[str, Any], name: str) -> str:
    found = scores["reward_intervals"][name]
    return f"{found[0]:.3f} - {found[1]:.3f}" if found else ""


def _benchmark_list() -> str:
    found = [benchmarks.load(name) for name in benchmarks.names()]
    rows = [[b.name, str(b.settings["samples"]), b.settings["rewards"], b.about] for b in found]
    return text_table(["name", "k", "rewards", "about"], rows, left=4)
