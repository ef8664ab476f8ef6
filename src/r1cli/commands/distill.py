"""`r1 distill`: prompts and a teacher, or traces that exist -> a student, by supervised fine-tuning alone.

    r1 distill --teacher runs/r1 --student small -k 4 prompts.jsonl -o runs/student
    r1 distill --traces completions.jsonl --student small -o runs/student

Three steps, each with its file in the run directory, and each reused by --resume:

    traces.jsonl   what the teacher wrote (`r1 sample`), one row a completion, as it ends
    kept.jsonl     the traces that pass the rewards (`r1 reject`)
    train.jsonl    those and the --general rows as SFT messages (`r1 mix`), what the student learns (`r1 sft`)
"""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

from r1cli.commands.processes import check_unused, of_process
from r1cli.commands.sampling import draw
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.hub import model_folder
from r1cli.io.jsonl import finished_pairs, repair_tail
from r1cli.io.run_dir import RunDir
from r1cli.io.stream import RowReader, RowWriter, read_rows
from r1cli.rewards.registry import parse_specs
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row
from r1cli.settings import DistillSettings
from r1cli.steps.keep import Dropped, judge_of, keep_rows
from r1cli.steps.pick import pick_rows
from r1cli.steps.sft_rows import to_sft


def run(settings: DistillSettings, context: Context) -> None:
    """Run the command. Models, rewards and settings are checked before anything is sampled."""
    started = time.time()
    context = of_process(context)
    _check(settings)
    folder = model_folder(settings.student, settings.trust_remote_code, say=context.console.info)
    source = [settings.traces] if settings.traces else settings.inputs
    reader = read_rows(source, field_map=settings.map, limit=settings.limit, skip_bad=settings.skip_bad, say=context.console.info)
    general = read_rows(settings.general, say=context.console.info) if settings.general else ()
    check_unused(settings.out, resume=settings.resume, force=settings.force)
    if settings.dry_run:
        _plan(settings, context, folder, sum(1 for _ in reader))
        return
    directory = RunDir.open(
        settings.out, settings=settings, sources=context.sources, command=context.command, resume=settings.resume, force=settings.force
    )
    context.on_interrupt()
    path = directory.path
    traces = reader if settings.traces else read_rows([_sampled(settings, context, reader, path / "traces.jsonl")])
    kept = _made(path / "kept.jsonl", lambda: _passing(settings, context, traces))
    lessons = _made(path / "train.jsonl", lambda: chain(to_sft(read_rows([str(kept)])), general))
    from r1cli.commands.sft_run import train  # brings torch: not before it is needed

    taught = read_rows([str(lessons)])
    train(settings, context, folder, list(taught), taught, started, directory)


def _plan(settings: DistillSettings, context: Context, folder: str, rows: int) -> None:
    """What a run would do, without touching the run directory."""
    if settings.traces:
        first = f"would score {rows} traces of {settings.traces} with {settings.rewards}"
    else:
        first = f"would draw {rows} x {settings.samples} completions of `{settings.teacher}` and score them with {settings.rewards}"
    second = f"would train `{folder}` on those that pass, for {settings.epochs:g} epochs"
    context.console.summary([first, second, f"would write {settings.out}"])


def _check(settings: DistillSettings) -> None:
    parse_specs(settings.rewards, level=settings.sandbox_level, unsafe=settings.unsafe)
    if settings.traces and settings.teacher:
        raise R1Error(
            "--teacher and --traces exclude each other",
            hint="--traces takes completions that exist, --teacher draws them",
            code=Exit.USAGE,
        )
    if not settings.traces and not settings.teacher:
        raise R1Error("no teacher", hint="--teacher MODEL, or --traces FILE with completions that exist", code=Exit.USAGE)
    if settings.teacher:
        model_folder(settings.teacher, settings.trust_remote_code)


def _sampled(settings: DistillSettings, context: Context, reader: RowReader, path: Path) -> str:
    """Draw what is missing of the teacher's completions; whole rows of an earlier attempt stay."""
    done: frozenset = frozenset()
    if path.exists():
        repair_tail(path)
        done = frozenset(finished_pairs(path))
    with (
        RowWriter(str(path), append=True, resume=True) as writer,
        context.console.progress(None, "rows", "teacher") as progress,
    ):
        for row in draw(reader, settings, context, model=settings.teacher, skip=done, on_ready=progress.restart):
            writer.write(row)
            progress.advance()
    return str(path)


def _passing(settings: DistillSettings, context: Context, traces: RowReader) -> Iterator[Row]:
    """The traces that pass every reward, at most `per_prompt` of a prompt."""
    specs = parse_specs(settings.rewards, level=settings.sandbox_level, unsafe=settings.unsafe)
    dropped = Dropped(None)
    total = 0
    with Scorer(specs, workers=settings.reward_workers, timeout=settings.reward_timeout) as scorer:
        scored = scorer.score(traces, on_bad=traces.leave_out if settings.skip_bad else None)
        kept = keep_rows(scored, judge_of("passing", specs), dropped)
        for row in pick_rows(kept, settings.per_prompt, "random", settings.seed, dropped):
            total += 1
            yield row
        for line in scorer.warnings():
            context.console.warn(line)
    if not total:
        raise R1Error(
            f"none of the traces passes {settings.rewards}",
            hint=f"look at them: r1 reject {traces.sources[0].name} --rewards {settings.rewards}",
        )
    context.console.info(f"distill: {total} traces kept, {dropped.total()} dropped")


def _made(path: Path, make: Callable[[], Iterable[Row]]) -> Path:
    """The file, made unless an earlier attempt finished it: it gets its name when it is whole."""
    if not path.exists():
        with RowWriter(str(path)) as writer:
            writer.write_all(make())
    return path
