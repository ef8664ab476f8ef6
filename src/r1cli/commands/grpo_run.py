"""The part of `r1 grpo` that needs torch: it wires sampler, scorer and trainer together; the algorithm is `train/grpo.py`."""

from collections.abc import Sequence
from typing import Any

from r1cli.commands import finish
from r1cli.commands.sampling import Sampler, open_sampler
from r1cli.commands.training import Training, end_of_turn, optimiser_config, peak_memory_gib, spent
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.stream import RowReader
from r1cli.report.console import Progress
from r1cli.rewards.registry import parse_specs
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row, require, seed_of
from r1cli.settings import GrpoSettings
from r1cli.text.prompts import PromptRenderer
from r1cli.train.grpo import GrpoConfig, Hooks, Rollout, train_grpo
from r1cli.train.model import load_tokenizer


def usable_prompts(rows: Sequence[Row], settings: GrpoSettings, context: Context, folder: str) -> tuple[list[Row], int]:
    """(prompt rows that fit `max_prompt_length`, tokens of the longest). Those that do not fit are counted and named."""
    tokenizer = load_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
    end_of_turn(folder, tokenizer)
    renderer = PromptRenderer(tokenizer, template=settings.template, system=settings.system, think_prefix=settings.think_prefix)
    lengths = [len(renderer.ids(require(row, "prompt", str, list))) for row in rows]
    fitting = [row for row, length in zip(rows, lengths, strict=True) if length <= settings.max_prompt_length]
    if not fitting:
        raise R1Error(
            f"no prompts to train on: {len(rows)} read, all longer than --max-prompt-length {settings.max_prompt_length}"
            if rows
            else "no prompts to train on: the input is empty",
            hint='give prompt rows: {"prompt": ..., "answer": ...}',
            code=Exit.USAGE,
        )
    left_out = len(rows) - len(fitting)
    if left_out:
        context.console.warn(f"{left_out} prompts left out: longer than --max-prompt-length {settings.max_prompt_length} tokens")
    return fitting, max(length for length in lengths if length <= settings.max_prompt_length)


def train(settings: GrpoSettings, context: Context, folder: str, prompts: list[Row], reader: RowReader, started: float) -> None:
    """Load policy, sampler and scorer, and run the loop."""
    training = Training(settings, context, folder=folder, temperature=settings.temperature, reference=settings.beta > 0)
    config = grpo_config(settings, training.pad_id)
    with (
        open_sampler(settings, context, model=folder, logprobs=True) as sampler,
        Scorer(
            parse_specs(settings.rewards, level=settings.sandbox_level, unsafe=settings.unsafe),
            workers=settings.reward_workers,
            timeout=settings.reward_timeout,
        ) as scorer,
        context.console.progress(settings.steps, "steps", "grpo") as progress,
    ):
        progress.advance(training.start_step)
        progress.restart()
        last: dict[str, Any] = {}
        hooks = _hooks(training, sampler, scorer, progress, last)
        train_grpo(
            training.accelerator,
            training.policy,
            training.reference,
            training.optimizer,
            config,
            prompts=prompts,
            hooks=hooks,
            start_step=training.start_step,
        )
        for warning in scorer.warnings():
            context.console.warn(warning)
        counts = {"prompts": len(prompts), "bad": reader.bad, "steps": settings.steps, "reward_timeouts": scorer.timeouts}
    training.finish(
        started=started,
        inputs=[finish.describe_source(source) for source in reader.sources],
        counts=counts,
        peak_memory_gib=round(peak_memory_gib(), 2),
    )
    context.console.summary(
        [
            f"grpo: {settings.steps} steps, last reward {last['reward']:.3f}, {spent(started)}"
            if last
            else f"grpo: {settings.steps} steps were done",
            f"written: {settings.out}/final",
            f"next: r1 eval --model {settings.out} problems.jsonl",
        ]
    )


def _hooks(training: Training, sampler: Sampler, scorer: Scorer, progress: Progress, last: dict[str, Any]) -> Hooks:
    settings = training.settings

    def sample(rows: list[Row], step: int) -> list[Rollout]:
        drawn = list(sampler.draw(rows, samples=settings.group_size, seed=seed_of(settings.seed, "step", step)))
        drawn.sort(key=lambda d: (d.number, d.row["sample"]))
        return [Rollout(d.row, d.prompt_ids, d.token_ids, d.logprobs or []) for d in drawn]

    def log(record: dict[str, Any], rows: list[Row]) -> None:
        training.log(record)
        if training.run is not None and (record["step"] - 1) % settings.samples_every == 0:
            training.run.samples(rows[: settings.group_size], step=record["step"])
        last.update(record)
        parts = [
            f"reward {record['reward']:.3f}",
            *(f"{k.removeprefix('reward/')} {v:.2f}" for k, v in record.items() if k.startswith("reward/")),
        ]
        progress.set(", ".join([*parts, f"{record['completion_length']:.0f} tokens"]))
        progress.advance()

    return Hooks(
        sample=sample,
        score=lambda rows: list(scorer.score(rows)),
        sync=lambda: sampler.engine.load_weights(training.weights()),
        log=log,
        save=lambda step: training.save(step, settings.steps),
    )


def grpo_config(settings: GrpoSettings, pad_id: int) -> GrpoConfig:
    """The algorithm's part of the settings."""
    own = {"pad_id", "optimiser", "clip_high"}
    names = [name for name in GrpoConfig.__dataclass_fields__ if name not in own]
    return GrpoConfig(
        **{name: getattr(settings, name) for name in names},
        pad_id=pad_id,
        optimiser=optimiser_config(settings),
        clip_high=settings.clip_low if settings.clip_high is None else settings.clip_high,
    )
