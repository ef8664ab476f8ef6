"""Group Relative Policy Optimization, top to bottom: sample -> score -> advantages -> batches -> update -> sync -> log.

Source: DeepSeekMath (arXiv 2402.03300) section 4.1; DeepSeek-R1 (arXiv 2501.12948) equations 1-3.

Where this differs from the paper's text:
- the ratio, the clip and the KL are per token, and the advantage stands at every token of its completion (equation 1 writes them per
  completion; every implementation, DeepSeekMath's equation 3 included, uses the token form);
- the standard deviation is the sample one plus 1e-4, and a group with equal rewards gets advantage 0;
- completions cut at the length limit give no gradient (`mask_truncated`; DAPO's overlong filtering), but stay in the divisor and in
  the group's statistics;
- each token is weighed by min(pi_old / pi_sampler, cap), because the sampler's kernels are not the trainer's;
- completions that can give no gradient (advantage 0 and no KL) take no training pass. The result is the same, except for "bnpo", whose
  divisor is what a micro-batch holds.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from r1cli.errors import Exit, R1Error
from r1cli.row import Row
from r1cli.train.advantages import group_advantages
from r1cli.train.batches import MicroBatch, Sample, group_rows, micro_batches
from r1cli.train.losses import StepCounts, clipped_loss, importance_weights, kl_estimate, log_ratio, token_weights
from r1cli.train.optimiser import OptimiserConfig, learning_rate
from r1cli.train.order import random_parts, step_rows
from r1cli.train.rollout_metrics import rollout_metrics
from r1cli.train.update import measure, update

TOKEN_FIGURES = ("entropy", "clip_fraction", "importance_weight", "sampler_mismatch", "kl")


@dataclass(frozen=True, kw_only=True)
class GrpoConfig:
    """The fields of `GrpoSettings` that the algorithm needs, under the same names."""

    steps: int
    prompts_per_step: int
    group_size: int
    max_completion_length: int
    microbatch_tokens: int
    seed: int
    pad_id: int
    optimiser: OptimiserConfig
    updates_per_rollout: int = 1
    epochs_per_rollout: int = 1
    loss: str = "grpo"
    clip_low: float = 0.2
    clip_high: float = 0.2
    beta: float = 0.001
    reference_every: int = 400
    advantage: str = "group"
    mask_truncated: bool = True
    importance_cap: float = 2.0
    save_every: int = 0

    @property
    def updates(self) -> int:
        return self.updates_per_rollout * self.epochs_per_rollout


@dataclass(slots=True)
class Rollout:
    """One completion as it was sampled: its row (with `id`, `sample`, `completion`, `finish_reason`), and the tokens behind it."""

    row: Row
    prompt_ids: list[int]
    completion_ids: list[int]
    sampler_logprobs: list[float]


@dataclass(slots=True)
class Hooks:
    """What the loop needs from outside.

    sample: (prompt rows of this process, step) -> rollouts, the completions of a prompt together and in the order of `sample`
    score:  rows -> rows with `rewards` and `reward`, same order
    sync:   give the policy's weights to the sampler
    log:    (metrics record, scored rows with their advantages) after every step, the record the same on every process
    save:   (steps done) when a checkpoint is due
    """

    sample: Callable[[list[Row], int], list[Rollout]]
    score: Callable[[list[Row]], list[Row]]
    sync: Callable[[], None]
    log: Callable[[dict[str, Any], list[Row]], None]
    save: Callable[[int], None]


def train_grpo(
    accelerator: Any,
    policy: Any,
    reference: Any | None,
    optimizer: torch.optim.Optimizer,
    config: GrpoConfig,
    *,
    prompts: Sequence[Row],
    hooks: Hooks,
    start_step: int = 0,
) -> None:
    """Run the steps `start_step` .. `config.steps`; a step is one rollout and the updates on it.

    policy, reference: `Policy` modules (reference None when beta is 0). prompts: all prompt rows; each step takes the next
    `prompts_per_step` of a shuffled order, and every process its share of them.
    """
    if config.prompts_per_step < accelerator.num_processes:
        raise R1Error(
            f"{accelerator.num_processes} processes cannot share {config.prompts_per_step} prompts a step",
            hint="raise --prompts-per-step, or start fewer processes",
            code=Exit.USAGE,
        )
    if start_step:
        hooks.sync()
    for step in range(start_step, config.steps):
        clock = Clock()
        taken = step_rows(len(prompts), step, config.prompts_per_step, config.seed)
        mine = [prompts[i] for i in taken[accelerator.process_index :: accelerator.num_processes]]
        rollouts = hooks.sample(mine, step)
        clock.lap("sample")
        rows = hooks.score([rollout.row for rollout in rollouts])
        clock.lap("score")
        samples, rows = with_advantages(accelerator, rollouts, rows, config)
        figures = train_on(accelerator, policy, reference, optimizer, samples, config, step)
        clock.lap("train")
        if reference is not None and config.reference_every and (step + 1) % config.reference_every == 0:
            reference.load_state_dict(accelerator.unwrap_model(policy).state_dict())
        hooks.sync()
        clock.lap("sync")
        metrics = rollout_metrics(accelerator, rows, [len(s.completion_ids) for s in samples], config.group_size)
        hooks.log({"step": step + 1, "steps": config.steps, **metrics, **figures, **clock.record(metrics["tokens"])}, rows)
        if step + 1 == config.steps or (config.save_every and (step + 1) % config.save_every == 0):
            hooks.save(step + 1)


def with_advantages(
    accelerator: Any, rollouts: Sequence[Rollout], rows: Sequence[Row], config: GrpoConfig
) -> tuple[list[Sample], list[Row]]:
    """Samples to train on, and the rows with their `advantage` beside the reward (never over it)."""
    size = config.group_size
    rewards = [[row["reward"] for row in rows[start : start + size]] for start in range(0, len(rows), size)]
    everyone = gather_object([row["reward"] for row in rows]) if config.advantage == "batch" and accelerator.num_processes > 1 else None
    advantages = [a for group in group_advantages(rewards, config.advantage, everyone) for a in group]
    samples = [
        Sample(
            index,
            r.prompt_ids,
            r.completion_ids,
            sampler_logprobs=r.sampler_logprobs,
            advantage=a,
            truncated=row["finish_reason"] == "length",
        )
        for index, (r, row, a) in enumerate(zip(rollouts, rows, advantages, strict=True))
    ]
    return samples, [row.with_fields(advantage=a) for row, a in zip(rows, advantages, strict=True)]


def train_on(
    accelerator: Any, policy: Any, reference: Any | None, optimizer: Any, samples: list[Sample], config: GrpoConfig, step: int
) -> dict[str, float]:
    """The updates on one rollout; returns the mean of what they measured."""

    def batches_of(chosen: list[Sample]) -> list[MicroBatch]:
        return micro_batches(group_rows(chosen), config.microbatch_tokens, config.pad_id)

    useful = [s for s in samples if gives_gradient(s, config)]
    some = useful or samples[:1]  # a process without useful samples still takes part in collectives
    old = measure(accelerator, policy, batches_of(some)) if config.updates > 1 else {}
    reference_logprobs = measure(accelerator, reference, batches_of(some)) if reference is not None and config.beta else {}
    keys = [(step, sample.index, accelerator.process_index) for sample in samples]
    records = []
    for epoch in range(config.epochs_per_rollout):
        for number, part in enumerate(random_parts(keys, config.updates_per_rollout, f"{config.seed}/{step}/{epoch}")):
            chosen = [samples[i] for i in part]
            counts = count(accelerator, chosen, config)
            if counts is None:
                continue
            contributing = [s for s in chosen if gives_gradient(s, config)]
            batches = batches_of(contributing or some[:1])
            own = torch.tensor(len(batches) if contributing else 0, device=accelerator.device)
            everywhere = int(accelerator.reduce(own, "sum"))
            objective = Objective(config, counts, old, reference_logprobs, idle=not contributing, microbatches=everywhere)
            place = step * config.updates + epoch * config.updates_per_rollout + number
            figures = update(
                accelerator,
                policy,
                optimizer,
                batches,
                objective,
                config=config.optimiser,
                lr=learning_rate(place, config.steps * config.updates, config.optimiser),
                where=f"step {step + 1}",
            )
            share = figures["trained_share"]  # the token figures are means over the tokens that took part
            records.append({name: value / share if name in TOKEN_FIGURES else value for name, value in figures.items()})
    means = {name: sum(r[name] for r in records) / len(records) for name in (records[0] if records else {})}
    return {**means, "updates": float(len(records))}


def gives_gradient(sample: Sample, config: GrpoConfig) -> bool:
    """False when nothing of the sample can move the weights."""
    if config.mask_truncated and sample.truncated:
        return False
    return sample.advantage != 0.0 or config.beta > 0


def count(accelerator: Any, chosen: Sequence[Sample], config: GrpoConfig) -> StepCounts | None:
    """The divisors of one update over all processes; None when no process has anything to train on."""
    masked = [config.mask_truncated and s.truncated for s in chosen]
    tokens = sum(len(s.completion_ids) for s, out in zip(chosen, masked, strict=True) if not out)
    useful = sum(gives_gradient(s, config) for s in chosen)
    totals = accelerator.reduce(torch.tensor([len(chosen), tokens, useful], dtype=torch.long, device=accelerator.device), "sum").tolist()
    return StepCounts(totals[0], totals[1], config.max_completion_length) if totals[2] else None


class Objective:
    """The GRPO objective of a micro-batch: (batch, log-probabilities, entropies) -> (its part of the loss, figures to sum)."""

    def __init__(
        self,
        config: GrpoConfig,
        counts: StepCounts,
        old: dict[int, Tensor],
        reference: dict[int, Tensor],
        *,
        idle: bool,
        microbatches: int,
    ) -> None:
        self.config, self.counts, self.old, self.reference = config, counts, old, reference
        self.idle, self.microbatches = idle, microbatches

    def __call__(self, batch: MicroBatch, policy_logprobs_N: Tensor, entropies_N: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        config, device = self.config, policy_logprobs_N.device
        samples, sequence_N = batch.samples, batch.sequence_N
        mask_N = torch.full_like(policy_logprobs_N, 0.0 if self.idle else 1.0)
        advantages_N = torch.tensor([s.advantage for s in samples], device=device)[sequence_N]
        lengths_S = torch.tensor([len(s.completion_ids) for s in samples], device=device)
        old_logprobs_N = _packed(self.old, samples, device) if self.old else policy_logprobs_N.detach()
        sampler_logprobs_N = torch.tensor([p for s in samples for p in s.sampler_logprobs or ()], device=device)

        ratio_N = log_ratio(config.loss, policy_logprobs_N, old_logprobs_N, sequence_N, mask_N, len(samples))
        loss_N, silenced_N = clipped_loss(
            config.loss, ratio_N, policy_logprobs_N, advantages_N, clip_low=config.clip_low, clip_high=config.clip_high
        )
        correction_N = importance_weights(old_logprobs_N, sampler_logprobs_N, config.importance_cap)
        loss_N = loss_N * correction_N
        share_N = mask_N / max(self.counts.tokens, 1)
        mismatch_N = kl_estimate(old_logprobs_N.detach(), sampler_logprobs_N, "k3")
        figures = {
            "entropy": (entropies_N * share_N).sum(),
            "clip_fraction": (silenced_N * share_N).sum(),
            "importance_weight": (correction_N * share_N).sum(),
            "sampler_mismatch": (mismatch_N * share_N).sum(),
            "trained_share": share_N.sum(),
        }
        if self.reference:
            kl_N = kl_estimate(policy_logprobs_N, _packed(self.reference, samples, device))
            loss_N = loss_N + config.beta * kl_N
            figures["kl"] = (kl_N.detach() * share_N).sum()
        weight_N = token_weights(config.loss, self.counts, lengths_S, sequence_N, mask_N, microbatches=self.microbatches)
        return (loss_N * weight_N).sum(), figures


def _packed(logprobs: dict[int, Tensor], samples: Sequence[Sample], device: torch.device) -> Tensor:
    return torch.cat([logprobs[s.index] for s in samples]).to(device)


class Clock:
    """Seconds of each phase of a step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.started = self.last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[f"seconds/{phase}"] = now - self.last
        self.last = now

    def record(self, tokens: float) -> dict[str, float]:
        total = time.perf_counter() - self.started
        return {**self.seconds, "seconds": total, "tokens_per_second": tokens / total}
