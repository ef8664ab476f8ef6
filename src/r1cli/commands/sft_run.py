"""The part of `r1 sft` that needs torch, and that `r1 distill` shares: rows and a model -> a checkpoint in a run directory."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from r1cli.commands import finish
from r1cli.commands.before_run import without_effect
from r1cli.commands.held_out import held_out_facts
from r1cli.commands.lora_flags import following
from r1cli.commands.resuming import digest, going_past, say_done, warn_of_stops
from r1cli.commands.save_time import first_save
from r1cli.commands.sft_lessons import checked
from r1cli.commands.stopping import Stopper, raised_alarm, say_unfinished, seconds_of
from r1cli.commands.training import Training, optimiser_config, spent
from r1cli.errors import R1Error
from r1cli.guard import Context
from r1cli.io.run_dir import RunDir
from r1cli.io.stream import RowReader
from r1cli.report.console import Progress as Bar
from r1cli.row import Row
from r1cli.settings import SftSettings
from r1cli.train.alarms import MEMORY, SFT_SIGNS, Memory, look
from r1cli.train.batches import Sample
from r1cli.train.sft import PACK_LENGTH, SftConfig, SftHooks, train_sft
from r1cli.train.state_files import read_object

ALARM_STEPS = 10  # of commands without --alarm-steps


def train(
    settings: Any,
    context: Context,
    folder: str,
    rows: Sequence[Row],
    reader: RowReader,
    started: float,
    directory: RunDir | None = None,
    held_out: Sequence[Row] = (),
    held_out_reader: RowReader | None = None,
) -> bool:
    """Tokenise, train and save; whether the run is done: not where the time limit came first. `settings` is those of sft or distill,
    `directory` the run's when it is open already, `held_out_reader` that of the file with the held-out rows."""
    console, before = context.console, reader.bad
    lessons = checked(rows, settings, context, folder, reader)
    measured = checked(held_out, settings, context, folder, held_out_reader, held_out=True) if held_out else []
    too_long = len(rows) - len(lessons) - (reader.bad - before)
    total = sft_config(settings, 0).steps(len(lessons))
    for said in without_effect(settings, context.sources, total):
        console.warn(said)
    data, held = digest(_learnt(lessons)), digest(_learnt(measured)) if measured else None
    training = Training(settings, context, folder=folder, directory=directory, total=total, data=data, held_out=held)

    def facts() -> dict[str, Any]:
        counts = {"rows": len(rows), "trained_on": len(lessons), "too_long": too_long, "bad": reader.bad, "steps": total}
        inputs, held_counts = held_out_facts([reader], held_out_reader, len(measured))
        return {"inputs": inputs, "counts": counts | held_counts}

    if training.done:
        say_done(training, facts)
        return True
    config = sft_config(settings, training.pad_id, training.own_policy)
    with (
        console.progress(total, "steps", context.command) as bar,
        Stopper(seconds_of(getattr(settings, "time_limit", None)), started, first_save(training)) as stopper,
        training.naming_the_checkpoint(),
    ):
        bar.advance(training.start_step)
        bar.restart()
        wiring = Wiring(training, stopper, bar, total)
        training.restore_random()
        done = train_sft(
            training.accelerator,
            training.policy,
            training.optimizer,
            config,
            rows=lessons,
            hooks=wiring.hooks(),
            held_out=[sample for row in measured for sample in row],
            start_step=training.start_step,
        )
    if done < total:
        say_unfinished(stopper, context, done, total, spent(started), before=training.start_step)
        return False
    training.finish(started=started, **facts())
    steps = max(total, training.start_step)
    console.summary(_summary(training, len(lessons), steps, wiring.figures(), started, reader))
    return True


def _summary(training: Training, lessons: int, steps: int, figures: str, started: float, reader: RowReader) -> list[str]:
    settings = training.settings
    return [
        f"{training.context.command}: {lessons} rows, {steps} steps{figures}, {spent(started)}",
        f"written: {settings.out}/final",
        *finish.bad_lines(reader),
        following(settings),
    ]


def _learnt(lessons: Sequence[Sequence[Sample]]) -> Iterator[Any]:
    for row in lessons:
        yield len(row)
        for sample in row:
            yield from (sample.prompt_ids, sample.completion_ids, sample.trained)


class Wiring:
    """What `train_sft` calls, made of a run directory, a progress bar and what alarms remember. last: the newest metrics."""

    def __init__(self, training: Training, stopper: Stopper, bar: Bar, total: int) -> None:
        self.training, self.stopper, self.bar, self.total = training, stopper, bar, total
        self.last: dict[str, Any] = {}
        self.memory: Memory = _remembered(training.checkpoint)
        warn_of_stops(self.memory, getattr(training.settings, "stop_on", None), training.context)

    def hooks(self) -> SftHooks:
        training, stopper = self.training, self.stopper
        return SftHooks(self.log, self.save, training.context.console.warn, lambda seconds: stopper.agreed(training.accelerator, seconds))

    def log(self, record: dict[str, Any]) -> R1Error | None:
        settings, warn = self.training.settings, self.training.context.console.warn
        record = self.training.log(record)
        self.last.update(record)
        held = f" (held out {self.last['held_out_loss']:.4f})" if "held_out_loss" in self.last else ""
        self.bar.set(f"loss {record['loss']:.4f}{held}, {record['tokens_per_second']:,.0f} tok/s")
        self.bar.advance()
        alarms = look(record, self.memory, getattr(settings, "alarm_steps", ALARM_STEPS), SFT_SIGNS, getattr(settings, "stop_on", None))
        return going_past(raised_alarm(alarms, getattr(settings, "stop_on", None), record["step"], warn))

    def save(self, step: int) -> None:
        with self.stopper.saving():
            self.training.save(step, self.total, lambda folder: _remember(self.training.accelerator, folder, self.memory))

    def figures(self) -> str:
        """The last losses, for the summary."""
        held = f", held out {self.last['held_out_loss']:.4f}" if "held_out_loss" in self.last else ""
        return (f", last loss {self.last['loss']:.4f}" if self.last else "") + held


def _remember(accelerator: Any, folder: Path, memory: Memory) -> None:
    """Into a checkpoint. All processes remember the same, and one file that several write at once may be none's."""
    if accelerator.is_main_process:
        (folder / MEMORY).write_text(json.dumps(memory), encoding="utf-8")


def _remembered(checkpoint: Path | None) -> Memory:
    path = checkpoint / MEMORY if checkpoint else None
    return read_object(path) if path is not None and path.is_file() else {}


def sft_config(settings: Any, pad_id: int, policy: Any = None) -> SftConfig:
    """The algorithm's part of the settings; `policy` says what may share a row and a micro-batch."""
    return SftConfig(
        epochs=settings.epochs,
        batch_rows=settings.batch_rows,
        microbatch_tokens=settings.microbatch_tokens,
        seed=settings.seed,
        pad_id=pad_id,
        optimiser=optimiser_config(settings),
        save_every=settings.save_every,
        pack_length=PACK_LENGTH if policy is None else policy.row_length(PACK_LENGTH),
        alone_beyond=None if policy is None else policy.alone_beyond,
        held_out_every=getattr(settings, "held_out_every", 0),
    )


def plan(settings: SftSettings, context: Context, folder: str, rows: Sequence[Row], held_out: Sequence[Row] = ()) -> None:
    """What a run would do, without loading weights."""
    lessons = checked(rows, settings, context, folder)
    measured = checked(held_out, settings, context, folder, held_out=True) if held_out else []
    tokens = sum(len(s.prompt_ids) + len(s.completion_ids) for row in lessons for s in row)
    steps = sft_config(settings, 0).steps(len(lessons))
    for said in without_effect(settings, context.sources, steps):
        context.console.warn(said)
    context.console.summary(
        [
            f"would train `{folder}` on {len(lessons)} rows, {tokens:,} tokens an epoch, "
            f"{steps} steps of {min(settings.batch_rows, len(lessons))} rows",
            *([f"would measure the loss of {len(measured)} held-out rows"] if measured else []),
            f"would write {settings.out}",
        ]
    )
