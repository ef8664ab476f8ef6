"""`r1 grpo`: prompt rows, a model and rewards -> a checkpoint.

    r1 grpo --model ckpt --rewards accuracy,format -o runs/rl < problems.jsonl

The checks are here, the wiring is `grpo_run.py`, the algorithm `train/grpo.py`.
"""

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence

from r1cli.commands import tracking
from r1cli.commands.preflight import check_golds, stop_or_warn, wants_golds
from r1cli.commands.processes import check_unused, of_process, starts_others
from r1cli.commands.staged_scoring import check_stages
from r1cli.commands.stopping import seconds_of
from r1cli.errors import Exit, R1Error, nearest
from r1cli.grpo_settings import ALARMS, GrpoSettings
from r1cli.guard import Context
from r1cli.io.hub import model_folder
from r1cli.io.stream import RowReader, read_rows
from r1cli.rewards.registry import parse_specs
from r1cli.row import Row, require
from r1cli.shared_settings import Changing


def run(settings: GrpoSettings, context: Context) -> None:
    """Run the command. Flags, rewards, rows and model folder are checked before anything is loaded."""
    started = time.time()
    context = of_process(context)
    console = context.console
    check_flags(settings, context.sources)
    tracking.names(settings)
    if starts_others(settings, context):
        return
    if settings.beta and settings.kl == "k1" and not settings.kl_correction:
        console.warn("--kl k1 alone holds nothing back: its gradient is zero on average; add --kl-correction, or take k2 or k3")
    folder = model_folder(settings.model, settings.trust_remote_code, say=console.info)
    stages, readers = _read(settings, context)
    if wants_golds(settings.rewards):
        stop_or_warn(check_golds([row for _, rows in stages for row in rows], settings.reward_timeout), context)
    check_unused(settings.out, resume=settings.resume, force=settings.force)
    from r1cli.commands.grpo_run import train, usable_prompts  # brings torch: not before everything a user can get wrong is checked

    prompts, longest = usable_prompts(stages, settings, context, folder)
    largest = max(value for _, value in Changing(settings.max_completion_length).switches())
    settings = dataclasses.replace(settings, max_model_len=settings.max_model_len or longest + largest)
    if settings.dry_run:
        console.summary([*plan(settings, folder, prompts, longest), f"would write {settings.out}"])
        return
    train(settings, context, folder, prompts, readers, started)


def check_flags(settings: GrpoSettings, sources: Mapping[str, str]) -> None:
    """Refuse (`R1Error`, exit 2) words and numbers that contradict each other, before anything is read."""
    specs = parse_specs(settings.rewards, level=settings.sandbox_level, unsafe=settings.unsafe)
    check_stages(specs)
    seconds_of(settings.time_limit)
    for text in settings.add:
        _file_at(text)
    for name in filter(None, (settings.stop_on or "").split(",")):
        if name not in ALARMS:
            raise R1Error(f"`--stop-on` knows no alarm `{name}`", hint=nearest(name, ALARMS), code=Exit.USAGE)
    judge, begun = settings.dynamic_sampling, [spec.name for spec in specs if not spec.start]
    if judge is not None and judge not in begun:
        raise R1Error(
            f"--dynamic-sampling {judge} is none of the rewards that count from the beginning ({', '.join(begun)})",
            hint=f"add it: --rewards {judge},{settings.rewards}, or name one of them",
            code=Exit.USAGE,
        )
    high = settings.clip_low if settings.clip_high is None else settings.clip_high
    if settings.clip_cap is not None and settings.clip_cap <= 1 + high:
        raise R1Error(
            f"--clip-cap {settings.clip_cap:g} is not above 1 + --clip-high {high:g}: it would undo the clip",
            hint=f"--clip-cap {max(3.0, 2 + high):g}, or leave it out",
            code=Exit.USAGE,
        )
    if settings.importance_cap and settings.importance_floor >= settings.importance_cap:
        raise R1Error(
            f"--importance-floor {settings.importance_floor:g} is not below --importance-cap {settings.importance_cap:g}",
            hint="lower the floor",
            code=Exit.USAGE,
        )
    _refuse_useless(settings, sources)


def _refuse_useless(settings: GrpoSettings, sources: Mapping[str, str]) -> None:
    """Flags that were given and would do nothing."""
    needs = [
        ("clip_cap", settings.loss == "cispo", "--loss cispo caps its weight already"),
        ("server_weights", not settings.url, "it belongs to --url"),
        ("engine_sleep", settings.rollout_lag > 0, "--rollout-lag 1 samples during the update"),
        ("engine_sleep", bool(settings.url), "--url samples elsewhere"),
        ("max_refills", settings.dynamic_sampling is None, "it belongs to --dynamic-sampling"),
        *((name, not settings.beta, "--beta is 0: there is no KL") for name in ("kl", "kl_correction", "reference_every", "reference_mix")),
        *(
            (name, not (settings.importance_cap or settings.importance_floor), "--importance-cap 0 turns it off")
            for name in ("importance", "importance_rule")
        ),
    ]
    for name, useless, why in needs:
        if useless and sources.get(name) == "flag":
            raise R1Error(f"--{name.replace('_', '-')} does nothing: {why}", hint="leave one of them out", code=Exit.USAGE)


def plan(settings: GrpoSettings, folder: str, stages: Sequence[tuple[int, Sequence[Row]]], longest: int) -> list[str]:
    """What a run would do."""
    rollout = settings.prompts_per_step * settings.updates_per_rollout
    joined = "".join(f", {len(rows)} more from step {start}" for start, rows in stages[1:])
    return [
        f"would train `{folder}` for {settings.steps} steps of {settings.prompts_per_step} prompts x {settings.group_size} completions",
        f"a rollout: {rollout} prompts, {rollout * settings.group_size} completions of at most {settings.max_completion_length} tokens, "
        f"for {settings.updates_per_rollout * settings.epochs_per_rollout} steps",
        f"prompts: {len(stages[0][1])}{joined}, the longest of {longest} tokens",
    ]


def _read(settings: GrpoSettings, context: Context) -> tuple[list[tuple[int, list[Row]]], list[RowReader]]:
    """The prompt rows by the step from which on they take part, and their readers."""
    say = context.console.info
    added = sorted((_file_at(text) for text in settings.add), key=lambda pair: pair[0])
    stages, readers = [], []
    for start, inputs, limit in [(0, settings.inputs, settings.limit), *((start, [file], None) for start, file in added)]:
        reader = read_rows(inputs, field_map=settings.map, limit=limit, skip_bad=settings.skip_bad, say=say)
        stages.append((start, list(_with_prompts(reader))))
        readers.append(reader)
    return stages, readers


def _file_at(text: str) -> tuple[int, str]:
    file, _, step = text.rpartition("@")
    if not file or not step.isdecimal() or int(step) < 1:
        raise R1Error(f"`--add` must be FILE@STEP, found `{text}`", hint="--add general.jsonl@1300", code=Exit.USAGE)
    return int(step), file


def _with_prompts(reader: RowReader) -> Iterator[Row]:
    for row in reader:
        try:
            require(row, "prompt", str, list)
        except R1Error as error:
            reader.leave_out(error)
            continue
        yield row
