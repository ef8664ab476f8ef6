"""The part of `r1 grpo` that needs torch: it wires sampler, scorer and trainer together; the algorithm is `train/grpo.py`."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from r1cli.commands.grpo_end import counted, end
from r1cli.commands.grpo_preflight import keep_fitting, longest_completion
from r1cli.commands.grpo_resume import resumed
from r1cli.commands.held_out_accuracy import ACCURACY, BEFORE, PROBLEMS, HeldOutAccuracy
from r1cli.commands.preference import model_specs, open_models, rule_rewards
from r1cli.commands.resuming import digest, going_past
from r1cli.commands.sampling import Sampler, open_sampler
from r1cli.commands.save_time import first_save
from r1cli.commands.staged_scoring import StagedScorer
from r1cli.commands.stopping import Stopper, raised_alarm, say_unfinished, seconds_of
from r1cli.commands.training import Training, optimiser_config, spent
from r1cli.engines.model_files import check_handing_over
from r1cli.errors import R1Error
from r1cli.guard import Context
from r1cli.io.stream import RowReader
from r1cli.report.console import Progress as Bar
from r1cli.row import Row, seed_of
from r1cli.settings import GrpoSettings
from r1cli.shared_settings import Changing
from r1cli.text.prompts import PromptRenderer
from r1cli.train.agreement import of_all
from r1cli.train.alarms import Memory, look
from r1cli.train.batches import PACK_LENGTH
from r1cli.train.checkpoints import named_weights
from r1cli.train.grpo import train_grpo
from r1cli.train.grpo_config import GrpoConfig, Prompts
from r1cli.train.model import give_back_freed_memory
from r1cli.train.progress import Progress, Rollout
from r1cli.train.reference import due
from r1cli.train.rollout import Draw, Hooks, Interrupted


def train(
    settings: GrpoSettings,
    context: Context,
    folder: str,
    prompts: Prompts,
    problems: Sequence[Row],
    readers: Sequence[RowReader],
    started: float,
    measured: RowReader | None = None,
    needed: int | None = None,
) -> None:
    """Load policy, sampler and scorer, and run the loop.

    problems: those of --held-out, measured: their reader. needed: tokens of the longest prompt with a completion, for the engine.
    """
    console = context.console
    data = digest(value for start, rows in prompts.stages for value in (start, *rows))
    training = Training(
        settings, context, folder=folder, total=settings.steps, temperature=settings.temperature, reference=settings.beta > 0, data=data
    )
    if training.done:
        return end(training, readers, measured, counted(prompts), {}, started)
    config = grpo_config(settings, training.pad_id, training.own_policy)
    fitted = dataclasses.replace(settings, max_model_len=settings.max_model_len or needed)
    limit = dataclasses.replace(fitted, max_completion_length=config.max_completion_length[0][1], num_processes=1)  # each its own engine
    with (
        open_models(settings, context, device=training.accelerator.device) as models,
        open_sampler(limit, context, model=folder, logprobs=True) as sampler,
        _scorer(training, models) as scorer,
        console.progress(settings.steps, "steps", "grpo") as bar,
        Stopper(seconds_of(settings.time_limit), started, first_save(training)) as stopper,
    ):
        sampler.engine.stopping = stopper.wanted
        prompts, problems = _fitting(prompts, problems, sampler, fitted, console.warn)
        held_out = HeldOutAccuracy(settings, problems, sampler, training.accelerator, stopper.wanted)
        progress = resumed(training, config)
        scorer.remember(progress.memory)
        wiring = Wiring(training, sampler, scorer, stopper, bar, held_out, progress)
        wiring.begin(progress)
        training.restore_random()
        if progress.step >= config.steps and progress.batch is None:  # its checkpoint has them behind it: only `final/` is left to write
            wiring.save(progress)
        with training.naming_the_checkpoint():
            progress = train_grpo(
                training.accelerator,
                training.policy,
                training.reference,
                training.optimizer,
                config,
                prompts=prompts,
                hooks=wiring.hooks(),
                progress=progress,
            )
        for warning in of_all(training.accelerator, scorer.warnings()):  # the other processes are silent
            console.warn(warning)
        timeouts = sum(of_all(training.accelerator, [scorer.timeouts]))
    if progress.step < config.steps or progress.batch is not None:
        return say_unfinished(stopper, context, progress.step, config.steps, spent(started), before=wiring.before(progress))
    end(training, readers, measured, {**counted(prompts), "reward_timeouts": timeouts}, wiring.last, started, wiring.updates)


def _scorer(training: Training, models: Any) -> StagedScorer:
    settings, gather = training.settings, partial(of_all, training.accelerator)
    return StagedScorer(rule_rewards(settings), models, workers=settings.reward_workers, timeout=settings.reward_timeout, gather=gather)


def _fitting(
    prompts: Prompts, problems: Sequence[Row], sampler: Sampler, settings: GrpoSettings, warn: Callable[[str], None]
) -> tuple[Prompts, Sequence[Row]]:
    """The prompts, and problems of --held-out, that fit the engine as well: a server may have been started with a shorter context."""
    room = sampler.engine.max_model_len - longest_completion(settings)
    if settings.max_model_len is not None and room >= settings.max_model_len - longest_completion(settings):
        return prompts, problems  # all were measured already
    because = f"what the engine's {sampler.engine.max_model_len} leave beside --max-completion-length: {room}"
    assert isinstance(sampler.renderer, PromptRenderer)  # the trainer needs the tokens that the engine sees
    stages, _ = keep_fitting(prompts.stages, sampler.renderer, room, because, warn)
    if problems:
        [(_, problems)], _ = keep_fitting([(0, problems)], sampler.renderer, room, because, warn)
    return Prompts(stages, prompts.shares), problems


class Wiring:
    """What `train_grpo` calls, made of a sampler, a scorer, a run directory and a progress bar.

    last: the newest metrics. updates: those that moved weights, in this start.
    """

    def __init__(
        self,
        training: Training,
        sampler: Sampler,
        scorer: StagedScorer,
        stopper: Stopper,
        bar: Bar,
        held_out: HeldOutAccuracy,
        progress: Progress,
    ) -> None:
        self.training, self.sampler, self.scorer, self.stopper, self.bar = training, sampler, scorer, stopper, bar
        self.held_out = held_out
        self.settings: GrpoSettings = training.settings
        self.last: dict[str, Any] = {}
        self.updates = 0.0
        self._at_start: dict[str, float] = {}  # for the first line: one of step 0 would have no reward, and no line of a rollout lacks it
        self._done = progress.step if progress.batch is None else progress.batch.start  # what was logged so far
        self._held = progress.batch is not None
        self._settled = scorer.memory()  # after the last rollout that is done with
        bar.advance(self._done)
        bar.restart()

    def before(self, progress: Progress) -> int:
        """Steps of earlier starts, for `say_unfinished`; -1 where this one gained a rollout, if no step: the next goes on from it."""
        return -1 if progress.batch is not None and not self._held else self.training.start_step

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
        for d in drawn:
            if not d.token_ids or len(d.logprobs or []) != len(d.token_ids):
                raise R1Error(
                    f"step {draw.step + 1}: the engine gave {len(d.token_ids)} tokens and {len(d.logprobs or [])} log-probabilities "
                    f"for sample {d.row['sample']} of `{d.row['id']}`: training needs one a token",
                    hint="a server of --url must know return_token_ids and logprobs, as vLLM's does",
                )
        return [Rollout(d.row, d.prompt_ids, d.token_ids, d.logprobs or []) for d in drawn]

    def begin(self, progress: Progress) -> None:
        """Before the first step: what the held-out problems say, for the alarms to compare with. Raises `R1Error` (exit 2) for an engine
        that could not take over what is trained."""
        if self.sampler.engine.name != "transformers":  # which has the names of the trainer
            check_handing_over(named_weights(self.training.accelerator, self.training.policy), self.sampler.engine.model)
        known = progress.memory.get("held-out accuracy")
        if known and self._done == 0:  # an earlier start measured it, and ended before there was a line
            self._at_start = {BEFORE: known[0]}
        if progress.step or progress.batch is not None or known is not None:
            return
        if self.sampler.engine.name == "server":  # it may hold the weights of another run
            self._sync()
        try:
            found = self.held_out.measured(0)
        except Interrupted:
            return  # the loop ends at its first question
        if found:
            progress.memory["held-out accuracy"] = [found[ACCURACY]]
            self._at_start = {BEFORE: found[ACCURACY]}
            self.training.context.console.info(f"held out: accuracy {found[ACCURACY]:.3f} on {found[PROBLEMS]:.0f} problems before step 1")

    def log(self, record: dict[str, Any], rows: list[Row], memory: Memory) -> R1Error | None:
        """Metrics, samples, the bar and alarms; the error to end with when --stop-on names an alarm that was raised."""
        settings, console, step = self.settings, self.training.context.console, record["step"]
        if self.held_out.due(self._done, step):
            record |= self.held_out.measured(step)
        record |= self._at_start
        self._at_start = {}
        self.training.log(record)
        shown = rows[: settings.group_size]
        if self.training.run is not None and (self._done == 0 or due(settings.samples_every, self._done, step)):
            self.training.run.samples(shown, step=step)
            for row in shown[:2]:
                console.detail(readable(row, step))
        self.last.update(record)
        self.updates += record["updates"]
        names = [name for name in record if name.startswith(("reward/", "held_out/accuracy"))]
        parts = [f"reward {record['reward']:.3f}", *(f"{name.removeprefix('reward/')} {record[name]:.2f}" for name in names)]
        self.bar.set(", ".join([*parts, f"{record['completion_length']:.0f} tokens"]))
        self.bar.advance(step - self._done)
        self._done, self._settled = step, self.scorer.memory()
        alarms = look(record, memory, settings.alarm_steps, stop_on=settings.stop_on)
        return going_past(raised_alarm(alarms, settings.stop_on, step, console.warn))

    def save(self, progress: Progress) -> None:
        """A rollout that is given up half drawn is drawn and scored again: what its rows taught a running normalisation is not kept."""
        training, settings = self.training, self.settings
        progress.memory.update(self._settled if progress.batch is None else self.scorer.memory())
        process = training.accelerator.process_index
        last = settings.steps if progress.batch is None else settings.steps + 1  # else its last line is still to be logged
        with self.stopper.saving():
            training.save(progress.step, last, lambda folder: progress.save(folder, process, training.accelerator.num_processes))


def readable(row: Row, step: int) -> str:
    """A completion for people: prompt, text, rewards and advantage."""
    prompt = row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][-1].get("content", "")
    rewards = ", ".join(f"{name} {value:g}" for name, value in row["rewards"].items() if value is not None)
    total = f"reward {row['reward']:g} ({rewards}), advantage {row['advantage']:+.3f}"
    return f"step {step}, `{row['id']}`\n  prompt: {prompt}\n  completion ({row['finish_reason']}): {row['completion']}\n  {total}"


def grpo_config(settings: GrpoSettings, pad_id: int, policy: Any) -> GrpoConfig:
    """The algorithm's part of the settings."""
    own = {"pad_id", "pack_length", "alone_beyond", "optimiser", "clip_high", "max_completion_length", "preferences"}
    names = [name for name in GrpoConfig.__dataclass_fields__ if name not in own]
    return GrpoConfig(
        **{name: getattr(settings, name) for name in names},
        pad_id=pad_id,
        pack_length=policy.row_length(PACK_LENGTH),
        alone_beyond=policy.alone_beyond,
        preferences=tuple(spec.name for spec in model_specs(settings)),
        optimiser=optimiser_config(settings),
        clip_high=settings.clip_low if settings.clip_high is None else settings.clip_high,
        max_completion_length=Changing(settings.max_completion_length).switches(),
    )
