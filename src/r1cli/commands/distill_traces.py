"""The first two steps of `r1 distill`: the teacher's completions, and those of them that are worth learning."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r1cli.commands.artefacts import Artefacts, Facts, hashes
from r1cli.commands.distill_asked import Asked
from r1cli.commands.distill_eval import held_out, question_hash
from r1cli.commands.distill_preflight import no_rows
from r1cli.commands.sample_file import WEIGHTS, other_weights, template_of
from r1cli.commands.sampling import at_address, draw
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io import manifest
from r1cli.io.jsonl import finished_pairs, repair_tail
from r1cli.io.stream import RowReader, RowWriter, read_rows
from r1cli.rewards.registry import parse_specs
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row
from r1cli.settings import DistillSettings
from r1cli.steps import readability
from r1cli.steps.keep import Dropped, judge_of, keep_rows
from r1cli.steps.pick import pick_rows

OF_TRACES = (
    "teacher",
    "template",
    "system",
    "think_prefix",
    "temperature",
    "top_p",
    "top_k",
    "max_completion_length",
    "stop",
    "shuffle_choices",
    "seed",
)
OF_KEPT = ("rewards", "reward_timeout", "filters", "per_prompt", "seed")


def sample_traces(settings: DistillSettings, context: Context, made: Artefacts, asked_now: Asked) -> Path:
    """The teacher's completions: whole rows of an earlier attempt stay, what is missing is drawn.

    Rows of prompts that are not asked any more stay too, and stand for none that are; `asked_now` counts them.
    Raises `R1Error` (exit 2) when the file was drawn by another teacher or with other settings: it would not be one sample. A teacher that
    has other weights now is another one where something is missing.
    """
    path, prompts = made.path / "traces.jsonl", asked_now.prompts
    facts = _facts(settings, made.facts(path.name) or {})
    changed = made.changes(path.name, facts)
    if changed:
        names = ", ".join(f"--{name.replace('_', '-')} was {then}, is {now}" for name, then, now in changed)
        raise R1Error(
            f"`{path}` was drawn otherwise: {names}",
            code=Exit.USAGE,
            hint="--force throws the run away and starts anew, or give -o another name",
        )
    if changed is None and path.is_file() and path.stat().st_size:
        raise R1Error(
            f"`{path}` holds rows and no manifest: what drew them is not known",
            code=Exit.USAGE,
            hint=f"r1 distill --traces {path} learns from them in another run directory; --force throws them away",
        )
    done: frozenset = frozenset()
    if changed is not None:  # it was begun by this very command: what is whole in it stays
        repair_tail(path)
        done = frozenset(finished_pairs(path, asked_now.holds))
    with (
        RowWriter(path, append=True, resume=changed is not None, force=True) as writer,
        context.console.progress(None, "rows", "teacher") as progress,
    ):
        if changed is None:
            made.note(path.name, facts, {"finished": False}, [prompts], teacher=settings.teacher)

        def drawn_by(weights: str) -> None:
            if facts.get(WEIGHTS, weights) != weights and path.stat().st_size:
                raise other_weights(path, settings.teacher or "")
            if facts.get(WEIGHTS) != weights:
                facts[WEIGHTS] = weights
                made.note(path.name, facts, {"finished": False}, [prompts], teacher=settings.teacher)

        asked, teacher = at_address(settings, settings.teacher or "")
        rows = read_rows([str(prompts)])
        for row in draw(rows, asked, context, model=teacher, skip=done, on_weights=drawn_by, on_ready=progress.restart):
            writer.write(row)
            progress.advance()
    if changed is None or writer.count:
        counts = {"rows": len(done) + asked_now.others + writer.count, "finished": True}
        made.note(path.name, facts, counts, [prompts], teacher=settings.teacher)
    return path


def _facts(settings: DistillSettings, before: Facts) -> dict[str, Any]:
    """What decides the traces. before: the same of those that are there, for a template that an older version knew by name alone, and for
    the weights, which are looked at when they draw."""
    facts = {name: getattr(settings, name) for name in OF_TRACES}
    if before.get("template") != settings.template:
        facts["template"] = template_of(settings)
    return facts | {name: before[name] for name in (WEIGHTS,) if name in before}


def passing(
    settings: DistillSettings, context: Context, made: Artefacts, traces: RowReader, facts: Facts, asked_now: Asked | None = None
) -> Path:
    """The traces that pass every reward and filter, at most `per_prompt` of a prompt, none of a held-out prompt.

    asked_now: only traces of these prompts.
    """
    dropped = Dropped(None)
    count = 0

    def kept() -> Iterator[Row]:
        nonlocal count
        for row in _passing(settings, context, traces, dropped, asked_now):
            count += 1
            yield row
        if not count and settings.traces and not any(source.rows for source in traces.sources):  # of a pipe it is known only now
            raise no_rows()
        if not count:
            raise R1Error(
                f"none of the traces passes {settings.rewards}",
                hint=f"look at them: r1 reject {traces.sources[0].name} --rewards {settings.rewards}",
            )
        context.console.info(
            f"distill: {count} traces kept, {dropped.total()} dropped"
            + "".join(f"; {number} {reason}" for reason, number in dropped.reasons.most_common(3))
        )

    if asked_now is not None and asked_now.others:  # else it follows from the traces alone
        facts = {**facts, "prompts": {asked_now.prompts.name: manifest.sha256(asked_now.prompts)}}
    facts = {**facts, **{name: getattr(settings, name) for name in OF_KEPT}, "eval": hashes([settings.eval] if settings.eval else [])}
    files = [file for source in traces.sources for file in source.files]
    return made.rows("kept.jsonl", facts, kept, inputs=files, counts=lambda: _counts(dropped, traces))


def _counts(dropped: Dropped, traces: RowReader) -> dict[str, Any]:
    return {"in": sum(source.rows for source in traces.sources), "dropped": dict(dropped.reasons), "bad": traces.bad}


def _passing(settings: DistillSettings, context: Context, traces: RowReader, dropped: Dropped, asked_now: Asked | None) -> Iterator[Row]:
    specs = parse_specs(settings.rewards, level=settings.sandbox_level, unsafe=settings.unsafe)
    filters = readability.parse(settings.filters or "")
    passes = judge_of("passing", specs)
    outside = held_out(settings.eval) if settings.eval else frozenset()

    def reason(row: Row) -> str | None:
        if question_hash(row) in outside:
            return "the prompt is held out for --eval"
        return passes(row) or readability.reason_of(filters, row)

    with Scorer(specs, workers=settings.reward_workers, timeout=settings.reward_timeout) as scorer:
        wanted = traces if asked_now is None else asked_now.among(traces, dropped)
        scored = scorer.score(wanted, on_bad=traces.leave_out if settings.skip_bad else None)
        yield from pick_rows(keep_rows(scored, reason, dropped), settings.per_prompt, "random", settings.seed, dropped)
        for line in scorer.warnings():
            context.console.warn(line)


def plan_of_traces(settings: DistillSettings, context: Context, folder: str, rows: int) -> None:
    """What a run would do, without touching the run directory."""
    if settings.traces:
        first = f"would score {rows} traces of {settings.traces} with {settings.rewards}"
    else:
        first = f"would draw {rows} x {settings.samples} completions of `{settings.teacher}` and score them with {settings.rewards}"
    second = f"would train `{folder}` on those that pass, for {settings.epochs:g} epochs"
    third = [f"would evaluate it on {settings.eval}, {settings.eval_samples} completions a problem"] if settings.eval else []
    context.console.summary([first, second, *third, f"would write {settings.out}"])
