"""The part of `r1 grpo` that needs torch: it wires sampler, scorer and trainer together; the algorithm is `train/grpo.py`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r1cli.commands import finish
from r1cli.commands.sampling import Sampler, open_sampler
from r1cli.commands.staged_scoring import StagedScorer
from r1cli.commands.stopping import TIME, Stopper, seconds_of
from r1cli.commands.training import Training, end_of_turn, optimiser_config, peak_memory_gib, spent
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context, again
from r1cli.io.stream import RowReader
from r1cli.report.console import Progress as Bar
from r1cli.rewards.registry import parse_specs
from r1cli.row import Row, require, seed_of
from r1cli.settings import GrpoSettings
from r1cli.shared_settings import Changing
from r1cli.text.prompts import PromptRenderer
from r1cli.train.agreement import of_all
from r1cli.train.alarms import Memory, look
from r1cli.train.batches import PACK_LENGTH
from r1cli.train.grpo import train_grpo
from r1cli.train.grpo_config import GrpoConfig, Prompts
from r1cli.train.model import give_back_freed_memory, load_tokenizer
from r1cli.train.progress import Progress, Rollout
from r1cli.train.reference import due
from r1cli.train.rollout import Draw, Hooks

Stages = Sequence[tuple[int, list[Row]]]


def usable_prompts(stages: Stages, settings: GrpoSettings, context: Context, folder: str) -> tuple[Stages, int]:
    """(the stages with the prompt rows that fit `max_prompt_length`, tokens of the longest). Those that do not are counted and named."""
    tokenizer = load_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
    end_of_turn(folder, tokenizer)
    renderer = PromptRenderer(tokenizer, template=settings.template, system=settings.system, think_prefix=settings.think_prefix)
    fitting, longest, left_out = [], 0, 0
    for start, rows in stages:
        lengths = [len(renderer.ids(require(row, "prompt", str, list))) for row in rows]
        kept = [(row, length) for row, length in zip(rows, lengths, strict=True) if length <= settings.max_prompt_length]
        if not kept:
            place = f" at step {start}" if start else ""
            why = f"{len(rows)} read, all longer than --max-prompt-length {settings.max_prompt_length}" if rows else "the input is empty"
            raise R1Error(f"no prompts to train on{place}: {why}", hint='give prompt rows: {"prompt": ..., "answer": ...}', code=Exit.USAGE)
        fitting.append((start, [row for row, _ in kept]))
        longest = max(longest, *(length for _, length in kept))
        left_out += len(rows) - len(kept)
    if left_out:
        context.console.warn(f"{left_out} prompts left out: longer than --max-prompt-length {settings.max_prompt_length} tokens")
    return fitting, longest


def train(settings: GrpoSettings, context: Context, folder: str, stages: Stages, readers: Sequence[RowReader], started: float) -> None:
    """Load policy, sampler and scorer, and run the loop."""
    console = context.console
    training = Training(settings, context, folder=folder, temperature=settings.temperature, reference=settings.beta > 0)
    config = grpo_config(settings, training.pad_id, training.row_length(PACK_LENGTH))
    limit = dataclasses.replace(settings, max_completion_length=config.max_completion_length[0][1], num_processes=1)  # each its own engine
    with (
        open_sampler(limit, context, model=folder, logprobs=True) as sampler,
        StagedScorer(
            parse_specs(settings.rewards, level=settings.sandbox_level, unsafe=settings.unsafe),
            workers=settings.reward_workers,
            timeout=settings.reward_timeout,
        ) as scorer,
        console.progress(settings.steps, "steps", "grpo") as bar,
        Stopper(seconds_of(settings.time_limit), started) as stopper,
    ):
        bar.advance(training.start_step)
        bar.restart()
        wiring = Wiring(training, sampler, scorer, stopper, bar)
        with training.naming_the_checkpoint():
            progress = train_grpo(
                training.accelerator,
                training.policy,
                training.reference,
                training.optimizer,
                config,
                prompts=Prompts(stages),
                hooks=wiring.hooks(),
                progress=resumed(training, config),
            )
        for warning in of_all(training.accelerator, scorer.warnings()):  # the other processes are silent
            console.warn(warning)
        timeouts = sum(of_all(training.accelerator, [scorer.timeouts]))
    if progress.step < config.steps:
        stopper.leave()
        _say_unfinished(context, stopper, progress, config, started)
        return
    counts = {"prompts": sum(len(rows) for _, rows in stages), "bad": sum(reader.bad for reader in readers), "steps": settings.steps}
    inputs = [finish.describe_source(source) for reader in readers for source in reader.sources]
    memory = round(peak_memory_gib(), 2)
    training.finish(started=started, inputs=inputs, counts={**counts, "reward_timeouts": timeouts}, peak_memory_gib=memory)
    last = wiring.last
    reward = f", last reward {last['reward']:.3f}, {spent(started)}" if last else " were done"
    written, following = f"written: {settings.out}/final", f"next: r1 eval --model {settings.out} problems.jsonl"
    console.summary([f"grpo: {settings.steps} steps{reward}", written, following])


def _say_unfinished(context: Context, stopper: Stopper, progress: Progress, config: GrpoConfig, started: float) -> None:
    """The time limit has ended the run."""
    assert stopper.reason == TIME
    context.console.summary(
        [
            f"grpo: time limit reached after {progress.step} of {config.steps} steps, {spent(started)}",
            f"next: {again('--resume', without=('--force',))}",
        ]
    )


class Wiring:
    """What `train_grpo` calls, made of a sampler, a scorer, a run directory and a progress bar. last: the newest metrics."""

    def __init__(self, training: Training, sampler: Sampler, scorer: StagedScorer, stopper: Stopper, bar: Bar) -> None:
        self.training, self.sampler, self.scorer, self.stopper, self.bar = training, sampler, scorer, stopper, bar
        self.settings: GrpoSettings = training.settings
        self.last: dict[str, Any] = {}
        self._done = training.start_step

    def _sync(self) -> None:
        """The trainer's scratch memory goes back before the sampler asks for its own; a machine must have what both hold at once."""
        give_back_freed_memory()
        self.sampler.engine.load_weights(self.training.weights())

    def hooks(self) -> Hooks:
        training, stopper = self.training, self.stopper
        return Hooks(
            sample=self.sample,
            score=self.scorer.score,
            sync=self._sync,
            log=self.log,
            save=self.save,
            warn=training.context.console.warn,
            stopping=lambda seconds: stopper.agreed(training.accelerator, seconds),
            rest=self.sampler.engine.rest,
            abandon=stopper.abandon,
        )

    def sample(self, rows: list[Row], draw: Draw) -> list[Rollout]:
        """The completions of these rows, in order; fewer when the run is asked to end."""
        settings, sampler = self.settings, self.sampler
        sampler.params = dataclasses.replace(sampler.params, max_tokens=draw.limit)
        seed = seed_of(settings.seed, "step" if draw.refill == 0 else f"refill {draw.refill} of step", draw.step)
        drawn = []
        completions = sampler.draw(rows, samples=settings.group_size, seed=seed)
        for completion in completions:
            drawn.append(completion)
            if self.stopper.wanted():
                completions.close()
                break
        if len(drawn) < len(rows) * settings.group_size and not self.stopper.wanted():
            said = sampler.warnings() or [f"the engine gave {len(drawn)} of {len(rows) * settings.group_size} completions"]
            raise R1Error(f"step {draw.step + 1}: a group is not whole: {said[0]}", hint="--resume goes on from the last checkpoint")
        drawn.sort(key=lambda d: (d.number, d.row["sample"]))
        return [Rollout(d.row, d.prompt_ids, d.token_ids, d.logprobs or []) for d in drawn]

    def log(self, record: dict[str, Any], rows: list[Row], memory: Memory) -> R1Error | None:
        """Metrics, samples, the bar and alarms; the error to end with when --stop-on names an alarm that was raised."""
        settings, console, step = self.settings, self.training.context.console, record["step"]
        self.training.log(record)
        shown = rows[: settings.group_size]
        if self.training.run is not None and (self._done == 0 or due(settings.samples_every, self._done, step)):
            self.training.run.samples(shown, step=step)
            for row in shown[:2]:
                console.detail(readable(row, step))
        self.last.update(record)
        names = [name for name in record if name.startswith("reward/")]
        parts = [f"reward {record['reward']:.3f}", *(f"{name.removeprefix('reward/')} {record[name]:.2f}" for name in names)]
        self.bar.set(", ".join([*parts, f"{record['completion_length']:.0f} tokens"]))
        self.bar.advance(step - self._done)
        self._done = step
        halt = None
        for alarm in look(record, memory, settings.alarm_steps):
            console.warn(f"{alarm.name}: {alarm.text}; {alarm.fix}")
            if alarm.name in (settings.stop_on or "").split(",") and halt is None:
                halt = R1Error(f"stopped at step {step} by --stop-on {alarm.name}: {alarm.text}", hint=alarm.fix)
        return halt

    def save(self, progress: Progress) -> None:
        training = self.training
        process = training.accelerator.process_index
        training.save(progress.step, self.settings.steps, lambda folder: progress.save(folder, process, training.accelerator.num_processes))


def readable(row: Row, step: int) -> str:
    """A completion for people: prompt, text, rewards and advantage."""
    prompt = row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][-1].get("content", "")
    rewards = ", ".join(f"{name} {value:g}" for name, value in row["rewards"].items() if value is not None)
    total = f"reward {row['reward']:g} ({rewards}), advantage {row['advantage']:+.3f}"
    return f"step {step}, `{row['id']}`\n  prompt: {prompt}\n  completion ({row['finish_reason']}): {row['completion']}\n  {total}"


def resumed(training: Training, config: GrpoConfig) -> Progress:
    """Where the run is: at its beginning, or where its checkpoint says."""
    if training.checkpoint is None:
        return Progress()
    accelerator, folder = training.accelerator, Path(training.checkpoint)
    progress = Progress.load(folder, accelerator.process_index, accelerator.num_processes)
    return progress or Progress(training.start_step, {0: training.start_step * config.prompts_per_step // config.epochs_per_rollout})


def grpo_config(settings: GrpoSettings, pad_id: int, pack_length: int) -> GrpoConfig:
    """The algorithm's part of the settings."""
    own = {"pad_id", "pack_length", "optimiser", "clip_high", "max_completion_length"}
    names = [name for name in GrpoConfig.__dataclass_fields__ if name not in own]
    return GrpoConfig(
        **{name: getattr(settings, name) for name in names},
        pad_id=pad_id,
        pack_length=pack_length,
        optimiser=optimiser_config(settings),
        clip_high=settings.clip_low if settings.clip_high is None else settings.clip_high,
        max_completion_length=Changing(settings.max_completion_length).switches(),
    )
