"""Group Relative Policy Optimization, top to bottom: sample -> score -> advantages -> batches -> update -> sync -> log.

Source: DeepSeekMath (arXiv 2402.03300) section 4.1; DeepSeek-R1 (arXiv 2501.12948) equations 1-3.

Where this differs from the paper's text:
- the ratio, the clip and the KL are per token, and the advantage stands at every token of its completion (equation 1 writes them per
  completion; every implementation, DeepSeekMath's equation 3 included, uses the token form);
- the standard deviation is the sample one plus 1e-4, and a group with equal rewards gets advantage 0;
- completions cut at the length limit give no gradient (`mask_truncated`; DAPO's overlong filtering), but stay in the group's statistics,
  and in the divisor where it counts completions (in dapo, cispo and bnpo it counts the tokens that are trained on);
- each token is weighed by min(pi_old / pi_sampler, cap), because the sampler's kernels are not the trainer's (`importance.py`);
- completions that can give no gradient (advantage 0, no KL, no entropy bonus) take no training pass. The result is the same, except for
  "bnpo", whose divisor is what a micro-batch holds;
- a length limit or a reward that starts at a step does so with the first rollout that begins there or later.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from r1cli.errors import Exit, R1Error
from r1cli.train.agreement import highest
from r1cli.train.batches import MicroBatch, Sample, group_rows, micro_batches
from r1cli.train.clock import Clock, Pace
from r1cli.train.grpo_config import GrpoConfig, Prompts
from r1cli.train.importance import mismatch_record
from r1cli.train.objective import TOKEN_FIGURES, Objective, count, gives_gradient
from r1cli.train.offload import visiting
from r1cli.train.optimiser import learning_rate
from r1cli.train.order import split
from r1cli.train.overlap import Overlap
from r1cli.train.progress import Progress, RolloutBatch
from r1cli.train.reference import due, renew_reference, share_of_policy
from r1cli.train.rollout import Hooks, Interrupted, draw_batch
from r1cli.train.saving import Saving
from r1cli.train.update import TokenBudget, measure, update


def train_grpo(
    accelerator: Any,
    policy: Any,
    reference: Any | None,
    optimizer: torch.optim.Optimizer,
    config: GrpoConfig,
    *,
    prompts: Prompts,
    hooks: Hooks,
    progress: Progress | None = None,
) -> Progress:
    """Train from where `progress` is to `config.steps`, or until the run is asked to end; returns where it is then.

    policy, reference: `Policy` modules (reference None when beta is 0). prompts: all prompt rows; each rollout takes the next ones of a
    shuffled order, and every process its share of them. Updates have no dropout: it would be another policy than the one that sampled.
    """
    _check_processes(accelerator, config)
    accelerator.unwrap_model(policy).without_dropout()
    progress = progress or Progress()
    budget = TokenBudget(accelerator, config.microbatch_tokens, hooks.warn)
    saving = Saving(hooks, progress)
    pace = Pace()
    _take_up(accelerator, policy, reference, config, progress, hooks)
    with Overlap(config, hooks, progress) as overlap:
        try:
            while progress.step < config.steps or progress.batch is not None:
                if hooks.stopping(pace.rollout + pace.update if progress.batch is None else 0.0):
                    raise Interrupted
                clock = Clock(progress.batch.seconds if progress.batch else None)
                if progress.batch is None:
                    progress.batch = draw_batch(accelerator, prompts, hooks, config, progress, clock, overlap.ready())
                    progress.ahead = None
                batch = progress.batch
                overlap.begin(accelerator, prompts, batch.start + batch.updates(config))
                hooks.rest()
                figures = train_on(
                    accelerator, policy, reference, optimizer, batch, config, budget=budget, stopping=hooks.stopping, pace=pace,
                    between=partial(_between_updates, accelerator, progress, config, overlap, saving, clock),
                )  # fmt: skip
                clock.lap("train")
                progress.step = batch.start + batch.done
                overlap.finish(accelerator)
                clock.lap("sample")
                hooks.sync()
                clock.lap("sync")
                record = {"step": progress.step, "steps": config.steps, **batch.figures, **figures, **clock.record(batch.figures["tokens"])}
                halt = hooks.log(record, batch.rows, progress.memory)
                _follow(accelerator, policy, reference, config, batch.start, progress.step)
                progress.batch = None
                pace.rolled(clock.total())
                if halt or progress.step == config.steps or saving.is_due(config.save_every):
                    saving.save()
                if halt:
                    raise halt
        except (Interrupted, R1Error) as error:
            overlap.end(accelerator, error)
            if progress.batch is not None:
                progress.step = progress.batch.start + progress.batch.done
            saving.before_the_end(error, accelerator)
    return progress


def _between_updates(accelerator: Any, progress: Progress, config: GrpoConfig, overlap: Overlap, saving: Saving, clock: Clock) -> None:
    """Save a rollout half trained on, where its last update makes that due. What is drawn ahead comes from older weights: it goes along."""
    assert progress.batch is not None
    clock.lap("train")
    progress.step = progress.batch.start + progress.batch.done
    if saving.is_due(config.save_every):
        overlap.finish(accelerator)
        saving.save()


def _take_up(accelerator: Any, policy: Any, reference: Any | None, config: GrpoConfig, progress: Progress, hooks: Hooks) -> None:
    """Go on where a resumed run is. If a rollout of its checkpoint is not there any more (`Progress.dropped`, `followed`), say so, and do
    what was due at its end."""
    if progress.dropped:
        hooks.warn(progress.dropped)
        progress.dropped = ""
    if progress.followed is not None:
        _follow(accelerator, policy, reference, config, progress.followed, progress.step)
        progress.followed = None
    if progress.step:
        hooks.sync()


def _follow(accelerator: Any, policy: Any, reference: Any | None, config: GrpoConfig, before: int, after: int) -> None:
    """Let the reference follow the policy as often as that is due between two counts of steps."""
    if reference is not None and due(config.reference_every, before, after):
        renew_reference(accelerator, reference, policy, share_of_policy(config.reference_mix, config.reference_every, before, after))


def train_on(
    accelerator: Any,
    policy: Any,
    reference: Any | None,
    optimizer: Any,
    batch: RolloutBatch,
    config: GrpoConfig,
    *,
    budget: TokenBudget | None = None,
    stopping: Callable[[float], bool] = lambda seconds: False,
    pace: Pace | None = None,
    between: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """The updates on one rollout that are still to do; returns the mean of what all of them measured.

    between: called after every update but the last. Raises `Interrupted` before an update when the run is asked to end; `batch.done` says
    where it is.
    """
    budget, pace = budget or TokenBudget(accelerator, config.microbatch_tokens), pace or Pace()
    samples = batch.samples
    some = [s for s in samples if gives_gradient(s, config)] or samples[:1] or [_filler(config)]

    def logprobs_of(model: Any) -> dict[int, Tensor]:
        return budget.within(lambda tokens: measure(accelerator, model, cut(some, tokens, config)))

    if batch.updates(config) > 1 and highest(accelerator, int(_misses(batch.old, some))):
        if batch.done:
            raise _begun_otherwise(batch)
        batch.old = logprobs_of(policy)
    if reference is not None and config.beta > 0 and highest(accelerator, int(_misses(batch.reference, some))):
        with visiting(reference):
            batch.reference = logprobs_of(reference)
    while batch.done < batch.updates(config):
        if stopping(pace.update):
            raise Interrupted
        started = time.perf_counter()
        epoch, part = divmod(batch.done, batch.parts)
        parts = split(accelerator, [s.key for s in samples], batch.parts, f"{config.seed}/{batch.start}/{epoch}", batch.sources)
        figures = one_update(accelerator, policy, optimizer, batch, [samples[i] for i in parts[part]], some, config, budget)
        if figures is not None:
            batch.records.append(token_means(figures))
        batch.done += 1
        pace.updated(time.perf_counter() - started)
        if batch.done < batch.updates(config):
            between()
    records = batch.records
    means = {name: sum(r[name] for r in records) / len(records) for name in (records[0] if records else {})}
    return {**mismatch_record(means), "updates": float(len(records))}


def _misses(found: dict[int, Tensor] | None, some: list[Sample]) -> bool:
    return found is None or any(sample.index not in found for sample in some)


def _begun_otherwise(batch: RolloutBatch) -> R1Error:
    """Of a resumed run: what the policy said before the first update cannot be asked of it any more."""
    return R1Error(
        f"the rollout of step {batch.start + 1} was begun with settings under which other completions count, and is half trained on",
        hint="--resume with the settings it was begun with: --beta, --entropy-coef, --mask-truncated, --epochs-per-rollout",
        code=Exit.USAGE,
    )


def one_update(
    accelerator: Any,
    policy: Any,
    optimizer: Any,
    batch: RolloutBatch,
    chosen: list[Sample],
    some: list[Sample],
    config: GrpoConfig,
    budget: TokenBudget,
) -> dict[str, float] | None:
    """The optimizer step on `chosen`, in as many micro-batches as memory wants; None when no process has anything to learn from.

    some: what a process computes that has nothing to train on, while the others do.
    """
    counts = count(accelerator, chosen, config, batch.limit)
    if counts is None:
        return None
    contributing = [s for s in chosen if gives_gradient(s, config)]
    place = batch.start + batch.done

    def attempt(tokens: int) -> dict[str, float]:
        batches = cut(contributing or some[:1], tokens, config)
        own = torch.tensor(len(batches) if contributing else 0, device=accelerator.device)
        everywhere = int(accelerator.reduce(own, "sum"))
        objective = Objective(config, counts, batch.old or {}, batch.reference or {}, idle=not contributing, microbatches=everywhere)
        rate = learning_rate(place, config.steps, config.optimiser)
        return update(accelerator, policy, optimizer, batches, objective, config=config.optimiser, lr=rate, where=f"step {place + 1}")

    return budget.within(attempt)


def cut(chosen: list[Sample], tokens: int, config: GrpoConfig) -> list[MicroBatch]:
    """Micro-batches of at most `tokens` positions; the completions of a prompt share its computation where they are in one row."""
    return micro_batches(group_rows(chosen, min(config.pack_length, tokens)), tokens, config.pad_id, config.alone_beyond)


def token_means(figures: dict[str, float]) -> dict[str, float]:
    """The token figures of an update as means over the tokens that took part, instead of over all that count in the divisor.

    Those of a bucket of lengths stay sums: `mismatch_record` divides them by the bucket's own share.
    """
    share = figures["trained_share"]
    return {name: value / share if name in TOKEN_FIGURES else value for name, value in figures.items()}


def _filler(config: GrpoConfig) -> Sample:
    """What a process without any sample computes to take part in collectives."""
    return Sample(-1, [config.pad_id], [config.pad_id], sampler_logprobs=[0.0])


def _check_processes(accelerator: Any, config: GrpoConfig) -> None:
    if config.prompts_per_step < accelerator.num_processes:
        raise R1Error(
            f"{accelerator.num_processes} processes cannot share {config.prompts_per_step} prompts a step",
            hint="raise --prompts-per-step, or start fewer processes",
            code=Exit.USAGE,
        )
