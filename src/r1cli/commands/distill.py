"""`r1 distill`: prompts and a teacher, or traces that exist -> a student.

    r1 distill --teacher runs/r1 --student small -k 4 prompts.jsonl -o runs/student --eval test.jsonl
    r1 distill --traces completions.jsonl --student small -o runs/student
    r1 distill --teacher runs/r1 --student small --on-policy prompts.jsonl -o runs/student

By supervised fine-tuning, as in the paper, with a file in the run directory for each step; --resume reuses those that are whole:

    prompts.jsonl  what the teacher is asked (a pipe is read once)
    traces.jsonl   what it wrote (`r1 sample`), one row a completion, as it ends
    kept.jsonl     the traces that pass the rewards and filters (`r1 reject`), without the prompts of --eval
    train.jsonl    those and the --general rows as SFT messages (`r1 mix`), what the student learns (`r1 sft`)
    scores.json    what the student makes of --eval (`r1 eval`), with eval.jsonl, its completions

With --on-policy the student samples and the teacher scores its tokens (`train/on_policy.py`): there is nothing to keep but the student.

--time-limit ends it wherever it is: training between two steps (`stopping.py`), all else in the middle (`distill_time.py`).
"""

import dataclasses
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext
from itertools import chain
from pathlib import Path

from r1cli.commands import tracking
from r1cli.commands.artefacts import Artefacts, hashes
from r1cli.commands.before_run import check_adapter, check_limit, check_rewards
from r1cli.commands.distill_asked import Asked
from r1cli.commands.distill_eval import evaluate, held_out, question_hash
from r1cli.commands.distill_preflight import check_keeping, check_problems, check_prompts, check_student, rewards_of
from r1cli.commands.distill_rows import asked_for, asked_rows, listed, prompts_there, reader_of, traced, usable
from r1cli.commands.distill_time import OutOfTime, ending_in_time, made_so_far, say_out_of_time
from r1cli.commands.distill_traces import passing, plan_of_traces, sample_traces
from r1cli.commands.lora_flags import check_lora
from r1cli.commands.piped import pipes_of, refuse_rereading, refuse_sharing
from r1cli.commands.processes import check_unused, is_first, of_process
from r1cli.commands.sampling import at_address, resolve_model, uses_server
from r1cli.commands.stopping import NoTimeForAStep, seconds_of
from r1cli.commands.useless_flags import refuse_useless
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io import manifest
from r1cli.io.hub import model_folder
from r1cli.io.lock import WAIT_SECONDS, Lock
from r1cli.io.run_config import done_by
from r1cli.io.run_dir import RunDir
from r1cli.io.stream import RowReader, read_rows
from r1cli.io.whole_folder import naming
from r1cli.row import Row
from r1cli.settings import DistillSettings
from r1cli.steps import condition, readability
from r1cli.steps.mix import Part, part_of
from r1cli.steps.pick import in_stable_order, some_of
from r1cli.steps.sft_rows import to_sft
from r1cli.text.conversation import answers

MADE = ("prompts.jsonl", "traces.jsonl", "kept.jsonl", "train.jsonl", "eval.jsonl", "scores.json")


def run(settings: DistillSettings, context: Context) -> None:
    """Run the command. Models, rewards and settings are checked before anything is sampled."""
    started = time.time()
    context = of_process(context)
    _check(settings, context)
    folder = model_folder(settings.student, settings.trust_remote_code, say=context.console.info)
    check_unused(settings, context.command)
    if not settings.on_policy or settings.eval:
        check_rewards(rewards_of(settings), settings.reward_timeout)
    if not settings.on_policy:  # which keeps nothing, and looks at its student itself
        check_keeping(rewards_of(settings))
        check_adapter(settings, folder, context)
        check_student(settings, context, folder)
    if settings.eval:
        held_out(settings.eval)  # a file that cannot be read is better known now
        check_problems(settings, context, list(read_rows([settings.eval])))
    if settings.dry_run and not settings.on_policy:
        reader = reader_of(settings, context)
        count, rows = traced(reader) if settings.traces else listed(usable(reader, context))
        check_prompts(settings, context, rows, drawn=bool(settings.traces))
        plan_of_traces(settings, context, folder, count)
        return
    before = made_so_far(settings.out)
    try:
        done = (_on_policy if settings.on_policy else _from_traces)(settings, context, folder, started)
        if done and settings.eval and is_first():
            with ending_in_time(settings, started):
                evaluate(settings, context)
    except OutOfTime:
        say_out_of_time(settings, context, before, started)


def _check(settings: DistillSettings, context: Context) -> None:
    """Refuse what contradicts itself. Raises `R1Error` (exit 2)."""
    check_limit(settings)
    rewards_of(settings)
    readability.parse(settings.filters or "")
    check_lora(settings, context)
    seconds_of(settings.time_limit)
    refuse_useless(settings, context.sources)
    tracking.names(settings)
    refuse_rereading("--general", [part_of(text).name for text in settings.general])
    refuse_rereading("--eval", [settings.eval] if settings.eval else [])
    if settings.on_policy and settings.lora_dropout:
        raise R1Error(
            "--lora-dropout would train another student than the one that samples",
            hint="leave it out: --on-policy trains without dropout",
            code=Exit.USAGE,
        )
    if settings.eval and settings.lora is not None and settings.lora_export == "adapter":
        raise R1Error("--eval needs a student it can load", hint="--lora-export merged, or leave --eval out", code=Exit.USAGE)
    if settings.plain is not None:
        condition.parse(settings.plain)
    if settings.traces and settings.teacher:
        raise R1Error(
            "--teacher and --traces exclude each other", code=Exit.USAGE, hint="--traces takes completions that exist, --teacher draws them"
        )
    if not settings.traces and not settings.teacher:
        raise R1Error("no teacher", hint="--teacher MODEL, or --traces FILE with completions that exist", code=Exit.USAGE)
    if settings.teacher:
        asked, teacher = at_address(settings, settings.teacher)
        if settings.on_policy and uses_server(asked):
            raise R1Error(
                "--on-policy needs the teacher's weights here: a server does not score given tokens",
                code=Exit.USAGE,
                hint="--teacher FOLDER, without --url",
            )
        resolve_model(teacher, asked, lambda _: None)
    of_traces = [name for name in ("traces", "general", "filters", "plain", "per_prompt", "epochs", "batch_rows") if _asked(context, name)]
    of_policy = [name for name in ("steps", "prompts_per_step", "importance_cap") if _asked(context, name)]
    wrong = of_traces if settings.on_policy else of_policy
    if wrong:
        flag = f"--{wrong[0].replace('_', '-')}"
        raise R1Error(
            f"{flag} does nothing {'with' if settings.on_policy else 'without'} --on-policy",
            hint="leave one of them out" if settings.on_policy else "--on-policy, or leave it out",
            code=Exit.USAGE,
        )
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and settings.on_policy:
        refuse_sharing(pipes_of(settings))
    if several and not settings.on_policy:
        raise R1Error(
            "the rows of a distillation are made by one process",
            code=Exit.USAGE,
            hint="r1 sample and r1 reject make them; then: accelerate launch -m r1cli sft ... kept.jsonl",
        )


def _asked(context: Context, name: str) -> bool:
    return context.sources.get(name) in ("flag", "env")


def _from_traces(settings: DistillSettings, context: Context, folder: str, started: float) -> bool:
    """Make the rows and learn them; whether the student is done: not where the time limit came first."""
    path = Path(settings.out)
    made = Artefacts(path, settings, context.console.warn)
    prompts = None if settings.traces else prompts_there(settings, made)
    reader = None if prompts is not None else reader_of(settings, context)
    rows = asked_rows(settings, context, prompts, reader)
    parts = _general(settings, context)
    if settings.force:  # not before all that is refused is
        for name in MADE:
            (path / name).unlink(missing_ok=True)
            manifest.path_for(path / name).unlink(missing_ok=True)
    directory, lock = None, None
    if settings.resume and made.trained:  # opened by `train` if it goes on: what is done, or refused, keeps its config.json
        with naming(f"in `{path}`", ""):
            lock = Lock(path, WAIT_SECONDS)
    else:
        directory = RunDir.open(
            settings.out, settings=settings, sources=context.sources, command=context.command, resume=settings.resume, force=settings.force
        )
    context.on_interrupt()
    with closing(lock) if lock else nullcontext(), ending_in_time(settings, started):
        lessons = _made(settings, context, made, prompts, rows, reader, parts)
    if done_by(path, context.command, settings) is not None:  # with other settings it is training that knows whether it goes on
        context.console.info(f"distill: `{path / 'final'}` is there and follows from the same rows")
        return True
    from r1cli.commands.sft_run import train  # brings torch: not before it is needed

    taught = read_rows([str(lessons)])
    try:
        return train(settings, context, folder, list(taught), taught, started, directory)
    except NoTimeForAStep as error:  # the rows may be of this start: that is an end as any other
        raise OutOfTime from error


def _made(
    settings: DistillSettings,
    context: Context,
    made: Artefacts,
    prompts: Path | None,
    rows: list[Row],
    reader: RowReader | None,
    parts: list[Part],
) -> Path:
    """The file of what the student learns, and those it follows from.

    prompts: their file, where an earlier attempt made it; else they are `rows`. reader: the input, with the traces still to be read."""
    asked_now = None
    if settings.traces:
        assert reader is not None
        source, facts = (
            reader,
            {"traces": hashes(file for each in reader.sources for file in each.files), "map": settings.map, "limit": settings.limit},
        )
    else:
        if prompts is None:
            prompts = made.rows("prompts.jsonl", asked_for(settings), lambda: rows, inputs=settings.inputs or ["stdin"])
        asked_now = Asked(prompts, settings)
        traces = sample_traces(settings, context, made, asked_now)
        source, facts = read_rows([str(traces)]), {"traces": hashes([traces])}
    kept = passing(settings, context, made, source, facts, asked_now)
    return made.rows(
        "train.jsonl",
        {
            "kept": hashes([kept])[str(kept)],
            "general": hashes(part.name for part in parts),
            "general_rows": [part.count for part in parts],
            "plain": settings.plain,
        },
        lambda: chain(_lessons(settings, kept), *(_rows_of(part, settings) for part in parts)),
        inputs=[kept, *(part.name for part in parts)],
    )


def _lessons(settings: DistillSettings, kept: Path) -> Iterator[Row]:
    """The kept traces as SFT rows, in an order that does not depend on when each was drawn."""
    plain = None if settings.plain is None else condition.parse(settings.plain)
    return to_sft(in_stable_order(read_rows([str(kept)]), settings.seed), plain)


def _general(settings: DistillSettings, context: Context) -> list[Part]:
    """The --general files, `FILE` or `FILE:N`, read once before anything is sampled. `R1Error` (exit 2) for what cannot be learnt."""
    parts = [part_of(text) for text in settings.general]
    for part in parts:
        if part.weight is not None or part.share is not None:
            raise R1Error(
                f"--general takes FILE or FILE:N, not a weight or a share: `{part.name}`",
                hint="r1 mix makes a mixture of any kind: r1 mix ... -o general.jsonl",
                code=Exit.USAGE,
            )
        count = 0
        for row in read_rows([part.name], say=context.console.info):
            answers(row)
            count += 1
        if part.count is not None and count < part.count:
            raise R1Error(
                f"`{part.name}` has {count} rows to give, {part.count} are asked for",
                hint="ask for fewer, or name a larger file",
                code=Exit.USAGE,
            )
    return parts


def _rows_of(part: Part, settings: DistillSettings) -> Iterable[Row]:
    rows = read_rows([part.name])
    return rows if part.count is None else some_of(rows, part.count, settings.seed)


def _on_policy(settings: DistillSettings, context: Context, folder: str, started: float) -> bool:
    """Teach the student on what it samples; whether it is done: not after a dry run, nor where the time limit came first.

    Temperature and nucleus are those of training unless they are asked for: the KL is that of the distribution that is sampled.
    """
    if (settings.top_p < 1 and _asked(context, "top_p")) or settings.top_k:
        raise R1Error(
            "--top-p and --top-k bias --on-policy: the student would be sampled from another distribution than it is scored by",
            hint="leave them out",
            code=Exit.USAGE,
        )
    if settings.temperature == 0:
        raise R1Error("--on-policy needs a temperature above 0", hint="leave out --temperature: it is 1 then", code=Exit.USAGE)
    temperature = settings.temperature if _asked(context, "temperature") else 1.0
    settings = dataclasses.replace(settings, top_p=1.0, temperature=temperature)
    reader = reader_of(settings, context)
    prompts = list(usable(reader, context))
    if settings.eval:
        outside = held_out(settings.eval)
        learnt = [row for row in prompts if question_hash(row) not in outside]
        if len(learnt) < len(prompts):
            context.console.warn(f"{len(prompts) - len(learnt)} prompts left out: held out for --eval")
        prompts = learnt
    done = done_by(settings.out, context.command, settings)
    if done is not None and not settings.dry_run:
        context.console.info(f"distill: `{settings.out}/final` is there, after {done['counts']['steps']} steps")
        return True
    from r1cli.commands.on_policy_run import plan, train  # brings torch: not before everything a user can get wrong is checked

    if settings.dry_run:
        plan(settings, context, folder, prompts, reader)
        return False
    return train(settings, context, folder, prompts, reader, started)
