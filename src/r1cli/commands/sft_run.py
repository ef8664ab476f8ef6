"""The part of `r1 sft` that needs torch, and that `r1 distill` shares: rows and a model -> a checkpoint in a run directory."""

from collections.abc import Sequence
from typing import Any

from r1cli.commands import finish
from r1cli.commands.lora_flags import following
from r1cli.commands.stopping import Stopper, say_unfinished, seconds_of
from r1cli.commands.training import Training, end_of_turn, optimiser_config, peak_memory_gib, spent
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.run_dir import RunDir
from r1cli.io.stream import RowReader
from r1cli.row import Row
from r1cli.settings import SftSettings
from r1cli.text.conversation import turns
from r1cli.text.prompts import PromptRenderer
from r1cli.train.batches import Sample
from r1cli.train.model import load_tokenizer
from r1cli.train.sft import PACK_LENGTH, SftConfig, train_sft


def train(
    settings: Any,
    context: Context,
    folder: str,
    rows: Sequence[Row],
    reader: RowReader,
    started: float,
    directory: RunDir | None = None,
    held_out: Sequence[Row] = (),
) -> None:
    """Tokenise, train and save; `settings` is those of sft or distill, `directory` the run's when it is open already."""
    console = context.console
    training = Training(settings, context, folder=folder, directory=directory)
    lessons, too_long = tokenised(rows, settings, training.tokenizer, training.end_id)
    _warn_too_long(context, too_long, settings.max_length)
    measured, too_long_held_out = tokenised(held_out, settings, training.tokenizer, training.end_id) if held_out else ([], [])
    _warn_too_long(context, too_long_held_out, settings.max_length)
    config = sft_config(settings, training.pad_id, training.row_length(PACK_LENGTH))
    total = config.steps(len(lessons))
    last: dict[str, Any] = {}
    limit = seconds_of(getattr(settings, "time_limit", None))
    with console.progress(total, "steps", context.command) as progress, Stopper(limit, started) as stopper:
        progress.advance(training.start_step)
        progress.restart()

        def log(record: dict[str, Any]) -> None:
            training.log(record)
            last.update(record)
            held = f" (held out {last['held_out_loss']:.4f})" if "held_out_loss" in last else ""
            progress.set(f"loss {record['loss']:.4f}{held}, {record['tokens_per_second']:,.0f} tok/s")
            progress.advance()

        done = train_sft(
            training.accelerator,
            training.policy,
            training.optimizer,
            config,
            rows=lessons,
            log=log,
            save=lambda step: training.save(step, total),
            held_out=[sample for row in measured for sample in row],
            start_step=training.start_step,
            stopping=lambda seconds: stopper.agreed(training.accelerator, seconds),
        )
    if done < total:
        say_unfinished(stopper, context, done, total, spent(started))
        return
    counts = {"rows": len(rows), "trained_on": len(lessons), "too_long": len(too_long), "bad": reader.bad, "steps": total}
    inputs = [finish.describe_source(source) for source in reader.sources]
    training.finish(started=started, inputs=inputs, counts=counts, peak_memory_gib=round(peak_memory_gib(), 2))
    figures = f", last loss {last['loss']:.4f}" if last else ""
    figures += f", held out {last['held_out_loss']:.4f}" if "held_out_loss" in last else ""
    console.summary(
        [
            f"{context.command}: {len(lessons)} rows, {total} steps{figures}, {spent(started)}",
            f"written: {settings.out}/final",
            following(settings),
        ]
    )


def sft_config(settings: Any, pad_id: int, pack_length: int = PACK_LENGTH) -> SftConfig:
    return SftConfig(
        epochs=settings.epochs,
        batch_rows=settings.batch_rows,
        microbatch_tokens=settings.microbatch_tokens,
        seed=settings.seed,
        pad_id=pad_id,
        optimiser=optimiser_config(settings),
        save_every=settings.save_every,
        pack_length=pack_length,
        held_out_every=getattr(settings, "held_out_every", 0),
    )


def tokenised(rows: Sequence[Row], settings: Any, tokenizer: Any, end_id: int) -> tuple[list[list[Sample]], list[Row]]:
    """(one list of samples a row, the rows with a turn longer than `max_length`: they are left out whole, never cut)."""
    renderer = PromptRenderer(tokenizer, template=settings.template)
    lessons: list[list[Sample]] = []
    too_long: list[Row] = []
    for row in rows:
        learnt = turns(row, renderer, tokenizer, end_id)
        if any(len(prompt) + len(completion) > settings.max_length for prompt, completion in learnt):
            too_long.append(row)
        else:
            lessons.append([Sample(len(lessons), prompt, completion) for prompt, completion in learnt])
    if not lessons:
        raise R1Error(
            f"no rows to train on: {len(rows)} read, {len(too_long)} longer than --max-length {settings.max_length}",
            hint="give SFT rows (messages, or prompt and completion)",
            code=Exit.USAGE,
        )
    return lessons, too_long


def _warn_too_long(context: Context, too_long: Sequence[Row], limit: int) -> None:
    if too_long:
        names = ", ".join(f"`{row['id']}`" for row in too_long[:3]) + (" ..." if len(too_long) > 3 else "")
        context.console.warn(f"{len(too_long)} rows left out: longer than --max-length {limit} tokens ({names})")


def plan(settings: SftSettings, context: Context, folder: str, rows: Sequence[Row]) -> None:
    """What a run would do, without loading weights."""
    tokenizer = load_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
    lessons, too_long = tokenised(rows, settings, tokenizer, end_of_turn(folder, tokenizer))
    _warn_too_long(context, too_long, settings.max_length)
    tokens = sum(len(s.prompt_ids) + len(s.completion_ids) for row in lessons for s in row)
    steps = sft_config(settings, 0).steps(len(lessons))
    context.console.summary(
        [
            f"would train `{folder}` on {len(lessons)} rows, {tokens:,} tokens an epoch, "
            f"{steps} steps of {min(settings.batch_rows, len(lessons))} rows",
            f"would write {settings.out}",
        ]
    )
