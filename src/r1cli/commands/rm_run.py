"""The part of `r1 rm` that needs torch: rows and a model -> a reward model in a run directory, and what it is worth on held-out rows."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from r1cli.commands import finish
from r1cli.commands.before_run import without_effect
from r1cli.commands.held_out import held_out_facts
from r1cli.commands.resuming import digest, say_done
from r1cli.commands.rm_rows import Prepared, prepared, say_left_out, scoring_tokenizer
from r1cli.commands.save_time import first_save
from r1cli.commands.stopping import Stopper, say_unfinished, seconds_of
from r1cli.commands.training import Training, optimiser_config, spent
from r1cli.guard import Context
from r1cli.io.manifest import write_json
from r1cli.io.stream import RowReader
from r1cli.metrics.reward_quality import Measured, learn_rule, quality
from r1cli.model_folder import load_tokenizer
from r1cli.report.tables import quality_table
from r1cli.rm_settings import RmSettings
from r1cli.row import seed_of
from r1cli.text.preferences import Judged
from r1cli.train.batches import PACK_LENGTH
from r1cli.train.preference import Example
from r1cli.train.reward_model import load_reward_model
from r1cli.train.rm import RmConfig, Scores, score, train_rm
from r1cli.train.steps import Save

QUALITY = "held_out.json"


def train(
    settings: RmSettings,
    context: Context,
    folder: str,
    rows: Sequence[Judged],
    reader: RowReader,
    started: float,
    held_out: Sequence[Judged] = (),
    held_out_reader: RowReader | None = None,
) -> None:
    """Tokenise, train, measure and save. held_out_reader: of the file that the held-out rows are from, if they are."""
    tokenizer = scoring_tokenizer(load_tokenizer(folder, trust_remote_code=settings.trust_remote_code), settings.template, folder)
    learnt, measured = _both(settings, context, tokenizer, folder, rows, held_out)
    load = partial(load_reward_model, pad_id=tokenizer.pad_token_id, seed=seed_of(settings.seed, "head", 0))
    total = rm_config(settings, tokenizer.pad_token_id).steps(len(learnt.examples))
    data, held = _digest(learnt), _digest(measured) if measured.examples else None
    for said in without_effect(settings, context.sources, total):
        context.console.warn(said)
    training = Training(settings, context, folder=folder, load=load, tokenizer=tokenizer, total=total, data=data, held_out=held)

    def facts() -> dict[str, Any]:
        left_out, bad = dict(learnt.left_out), reader.bad
        counts = {"rows": len(rows), "trained_on": len(learnt.examples), "left_out": left_out, "bad": bad, "steps": total}
        inputs, held = held_out_facts([reader], held_out_reader, len(measured.examples))
        return {"inputs": inputs, "counts": counts | held}

    if training.done:
        say_done(training, facts)
        return
    config = rm_config(settings, tokenizer.pad_token_id, training.own_policy)
    last: dict[str, Any] = {}
    scores: list[Scores] = []
    found: dict[str, Any] = {}

    def save(step: int) -> None:
        if step >= total and measured.examples:  # before `final/` is whole: what is whole then was measured
            final = scores[-1] if scores else score(training.accelerator, training.policy, measured.examples, config)
            found.update(_quality(training, final, learnt, measured))
        with stopper.saving():
            training.save(step, total)

    with Stopper(seconds_of(settings.time_limit), started, first_save(training)) as stopper:
        done = _steps(training, config, learnt.examples, measured.examples, stopper, last, scores, save)
    if done < total:
        say_unfinished(stopper, context, done, total, spent(started), before=training.start_step)
        return
    training.finish(started=started, **facts())
    if found:
        context.console.info(quality_table(found))
    figures = f", last loss {last['loss']:.4f}" if last else ""
    context.console.summary(
        [
            f"rm: {len(learnt.examples)} {_kind(rows)}, {max(total, training.start_step)} steps{figures}, {spent(started)}",
            f"written: {settings.out}/final" + (f", {settings.out}/{QUALITY}" if found else ""),
            *finish.bad_lines(reader),
            _following(settings),
        ]
    )


def _digest(rows: Prepared) -> str:
    return digest(value for example in rows.examples for value in (*example.sides, example.target))


def _both(
    settings: RmSettings, context: Context, tokenizer: Any, folder: str, rows: Sequence[Judged], held_out: Sequence[Judged]
) -> tuple[Prepared, Prepared]:
    """The rows to learn and the held-out ones; what is left out of them is said."""
    learnt = prepared(rows, settings, tokenizer, folder, balance=settings.balance_lengths)
    say_left_out(learnt, context)
    measured = prepared(held_out, settings, tokenizer, folder, held_out=True) if held_out else Prepared()
    say_left_out(measured, context, "held-out ")
    return learnt, measured


def _following(settings: RmSettings) -> str:
    """What a user may do with the model."""
    if settings.lora_export == "adapter":
        return f"next: merge `{settings.out}/final` into its base; --lora-export merged saves a plain model"
    return f"next: r1 grpo --reward-model mine={settings.out}:view={settings.view} ..."


def _steps(
    training: Training,
    config: RmConfig,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    stopper: Stopper,
    last: dict[str, Any],
    scores: list[Scores],
    save: Save,
) -> int:
    """Train; returns the steps done. last: gets the newest metrics; scores: those of the held-out examples, each time."""
    total = config.steps(len(examples))
    with training.context.console.progress(total, "steps", "rm") as progress, training.naming_the_checkpoint():
        progress.advance(training.start_step)
        progress.restart()

        def log(record: dict[str, Any]) -> None:
            record = training.log(record)
            last.update(record)
            held = f" (held out {last['held_out_accuracy']:.1%})" if "held_out_accuracy" in last else ""
            progress.set(f"loss {record['loss']:.4f}, right {record['accuracy']:.0%}{held}, {record['tokens_per_second']:,.0f} tok/s")
            progress.advance()

        training.restore_random()
        return train_rm(
            training.accelerator,
            training.policy,
            training.optimizer,
            config,
            examples=examples,
            log=log,
            save=save,
            held_out=held_out,
            measured=scores.append,
            start_step=training.start_step,
            stopping=lambda seconds: stopper.agreed(training.accelerator, seconds),
            warn=training.context.console.warn,
        )


def _quality(training: Training, scores: Scores, learnt: Prepared, measured: Prepared) -> dict[str, Any]:
    """What the model is worth on held-out rows, beside a rule about lengths learnt from the training rows, also as a file."""
    rule = learn_rule(_rows(learnt, [(0.0,) * len(lengths) for lengths in learnt.lengths]))  # scores play no part in it
    found = quality(_rows(measured, scores), rule)
    if training.run is not None:
        write_json(training.run.path / QUALITY, found)
    return found


def rm_config(settings: RmSettings, pad_id: int, policy: Any = None) -> RmConfig:
    """The algorithm's part of the settings."""
    names = ("epochs", "batch_rows", "microbatch_tokens", "seed", "center", "save_every", "held_out_every")
    own = {name: getattr(settings, name) for name in names}
    alone_beyond = None if policy is None else policy.alone_beyond
    shared = policy is None or (policy.row_length(PACK_LENGTH) > 0 and alone_beyond is None)  # a row of two is longer than either
    return RmConfig(**own, pad_id=pad_id, shared=shared, alone_beyond=alone_beyond, optimiser=optimiser_config(settings))


def _rows(measured: Prepared, scores: Scores) -> list[Measured]:
    """Held-out rows with their scores."""
    found = []
    for row, lengths, given in zip(measured.rows, measured.lengths, scores, strict=True):
        found.append(Measured(given, lengths, row.prompt_key(), None if row.is_pair else row.target))
    return found


def _kind(rows: Sequence[Judged]) -> str:
    return "pairs" if rows[0].is_pair else "labelled completions"


def plan(settings: RmSettings, context: Context, folder: str, rows: Sequence[Judged], held_out: Sequence[Judged] = ()) -> None:
    """What a run would do, without loading weights."""
    tokenizer = scoring_tokenizer(load_tokenizer(folder, trust_remote_code=settings.trust_remote_code), settings.template, folder)
    learnt, _ = _both(settings, context, tokenizer, folder, rows, held_out)
    count = len(learnt.examples)
    for said in without_effect(settings, context.sources, rm_config(settings, 0).steps(count)):
        context.console.warn(said)
    tokens = sum(example.tokens for example in learnt.examples)
    context.console.summary(
        [
            f"would train a reward model from `{folder}` on {count} {_kind(rows)}, "
            f"{tokens:,} tokens an epoch, {rm_config(settings, 0).steps(count)} steps of {min(settings.batch_rows, count)}",
            f"would write {settings.out}",
        ]
    )
