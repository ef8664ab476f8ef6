"""r1 eval: completions in (or drawn from a model), scores with intervals out.

The one object it computes is printed as a table for people or with --json, and goes to --out; --rows keeps every scored completion, row by
row, so that an interrupted evaluation can be scored from what there is. Rewards are those of `reject` and `grpo`, through the same scorer.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from r1cli.benchmarks import benchmark as benchmarks
from r1cli.commands import finish
from r1cli.commands.evaluation import Tally
from r1cli.commands.floors import check_floor, floor_of
from r1cli.commands.judging import REFUSAL, check_refusal_judge, open_judge
from r1cli.commands.preference import all_rewards, check_unstaged, open_models, rule_rewards
from r1cli.commands.prompt_rows import Prompts, examiner
from r1cli.commands.sampling import check_sampling
from r1cli.commands.useless_flags import refuse_useless
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io import manifest
from r1cli.io.stream import STDOUT, RowReader, RowWriter, claim_stdout, read_rows
from r1cli.io.whole import check_new
from r1cli.metrics.scores import passes_of
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
    if settings.model is not None:
        check_sampling(settings, context.sources)
    refuse_useless(settings, context.sources)
    floors = [floor_of(text, specs, settings.samples if settings.model is not None else None, decides=bool(rules)) for text in settings.min]
    out = None if settings.out is None else check_new(settings.out, force=settings.force)
    if settings.rows in STDOUT:
        raise R1Error("--rows and the scores are both stdout", hint="give --rows the name of a file", code=Exit.USAGE)
    rows = RowWriter(settings.rows or os.devnull, force=settings.force, append=True)
    if settings.rows:
        context.on_interrupt(f"r1 eval --rewards {settings.rewards} {settings.rows}")
    reader = read_rows(settings.inputs, field_map=settings.map, limit=settings.limit, skip_bad=settings.skip_bad, say=context.console.info)

    prompts = None if settings.model is None else _prompts(reader, rules, context)
    tally = Tally(specs, decides=bool(rules), passes=[k for name, _ in floors if (k := passes_of(name))])
    with (
        rows as writer,
        open_models(settings, context) as models,
        open_judge(settings, context) as judge,
        Scorer(rules, settings.reward_workers, settings.reward_timeout, models) as scorer,
    ):
        with context.console.progress(None, "completions", "eval") as progress:
            rows_drawn = _existing(reader) if prompts is None else _drawn(prompts, settings, reader, context)
            scored = scorer.score(rows_drawn, on_bad=reader.leave_out if settings.skip_bad else None)
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


def _drawn(prompts: Sequence[Row], settings: EvalSettings, reader: RowReader, context: Context) -> Iterable[Row]:
    from r1cli.commands.sampling import draw  # torch lives behind it

    return draw(iter(prompts), settings, context, on_bad=reader.leave_out if settings.skip_bad else None)


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


def _prompts(reader: RowReader, rules: Sequence[RewardSpec], context: Context) -> list[Row]:
    """All prompt rows, each once: what is wrong with one of them is said before the first completion is paid for.

    Raises `R1Error` (exit 2) when rewards could not score some of them, or leaves these out with --skip-bad.
    """
    found: list[Row] = []
    errors: list[R1Error] = []
    examine = examiner(rules)
    prompts = Prompts(reader, check=_check_prompt)
    for row in prompts:
        try:
            examine(row)
        except R1Error as error:
            errors.append(error)
        else:
            found.append(row)
    for said in prompts.said():
        context.console.warn(said)
    if errors and not reader.skip_bad:
        first = errors[0]
        what = f"{len(errors)} of {prompts.taken} rows cannot be scored: {first.message}"
        raise R1Error(what, hint=f"{first.hint}; or leave such rows out with --skip-bad", code=first.code)
    for each in errors:
        reader.leave_out(each)
    return found


def _check_prompt(row: Row) -> None:
    if "completion" in row:
        name = f"{row.where}: " if row.where else ""
        raise R1Error(
            f"{name}row `{row['id']}` has a `completion` already, and `--model` would draw another",
            code=Exit.USAGE,
            hint="leave out --model to score the rows as they are, or give prompt rows",
        )
    require(row, "prompt", str, list)


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
