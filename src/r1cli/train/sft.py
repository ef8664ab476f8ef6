"""Supervised fine-tuning: the mean negative log-likelihood of completion tokens, over all tokens of a step.

Every token of a step weighs the same, whichever row, micro-batch or process it is in (global normalisation). Rows are packed several to a
line without seeing each other (`batches.packed_rows`). Only completion tokens count; prompts give no loss.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from r1cli.errors import R1Error
from r1cli.train.batches import MicroBatch, Sample, micro_batches, packed_rows
from r1cli.train.optimiser import OptimiserConfig, learning_rate
from r1cli.train.order import rows_a_step, step_rows, steps_of
from r1cli.train.steps import Log, Save, Stopping, never, train_steps
from r1cli.train.update import TokenBudget, measure, update

PACK_LENGTH = 1024  # positions


@dataclass(slots=True)
class SftHooks:
    """What the loop needs from outside; see `steps.train_steps`. warn: (text) something the user must know."""

    log: Log
    save: Save
    warn: Callable[[str], None] = field(default=lambda text: None)
    stopping: Stopping = never


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """epochs: passes over the rows. batch_rows: rows a step, over all processes (all rows where there are fewer).
    pack_length: positions of a packed line. alone_beyond: see `Policy`.
    microbatch_tokens: most tokens of a forward pass; 0 is automatic (`update.TokenBudget`).

    held_out_every: steps between measurements of the held-out loss; 0 is only after the last.
    """

    epochs: float
    batch_rows: int
    microbatch_tokens: int
    seed: int
    pad_id: int
    optimiser: OptimiserConfig
    save_every: int = 0
    held_out_every: int = 0
    pack_length: int = PACK_LENGTH
    alone_beyond: int | None = None

    def steps(self, rows: int) -> int:
        return steps_of(rows, self.epochs, self.batch_rows)


def train_sft(
    accelerator: Any,
    policy: Any,
    optimizer: torch.optim.Optimizer,
    config: SftConfig,
    *,
    rows: Sequence[Sequence[Sample]],
    hooks: SftHooks,
    held_out: Sequence[Sample] = (),
    start_step: int = 0,
) -> int:
    """Train on rows of samples (a chat of several assistant turns is one row of several samples); returns the steps done.

    held_out: samples that are never trained on; their loss is in the records as `held_out_loss`.
    """
    if not rows:
        raise R1Error("no rows to train on", hint="give SFT rows (messages, or prompt and completion)", code=2)
    total = config.steps(len(rows))
    batch_rows = rows_a_step(len(rows), config.batch_rows)
    budget = TokenBudget(accelerator, config.microbatch_tokens, hooks.warn)

    def one(step: int) -> dict[str, Any]:
        started = time.perf_counter()
        taken = [rows[i] for i in step_rows(len(rows), step, batch_rows, config.seed, config.epochs)]
        figures = _one_step(accelerator, policy, optimizer, taken, budget, config, learning_rate(step, total, config.optimiser), step + 1)
        seconds = time.perf_counter() - started
        positions = sum(len(sample.prompt_ids) + len(sample.completion_ids) for row in taken for sample in row)
        if held_out and (step + 1 == total or (config.held_out_every and (step + 1) % config.held_out_every == 0)):
            figures["held_out_loss"] = mean_loss(accelerator, policy, held_out, config, budget)
        clock = {"seconds": seconds, "tokens_per_second": positions / seconds}
        return {"step": step + 1, "steps": total, "epoch": min(config.epochs, (step + 1) * batch_rows / len(rows)), **figures, **clock}

    return train_steps(
        one,
        start_step=start_step,
        total=total,
        save_every=config.save_every,
        log=hooks.log,
        save=hooks.save,
        stopping=hooks.stopping,
    )


def _one_step(
    accelerator: Any,
    policy: Any,
    optimizer: torch.optim.Optimizer,
    taken: Sequence[Sequence[Sample]],
    budget: TokenBudget,
    config: SftConfig,
    rate: float,
    number: int,
) -> dict[str, Any]:
    """The optimizer step on these rows (of all processes), in as many micro-batches as memory wants; what it measured."""
    tokens = sum(sample.trained_tokens for row in taken for sample in row)
    mine = [sample for row in taken[accelerator.process_index :: accelerator.num_processes] for sample in row]
    weight = 1.0 / tokens
    if not mine:  # more processes than rows: take part in the collectives with a sample that weighs nothing
        mine, weight = list(taken[0]), 0.0

    def loss_of(batch: MicroBatch, logprobs_N: Tensor, entropies_N: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return -(logprobs_N * weight).sum(), {"entropy": (entropies_N * weight).sum()}

    def attempt(most: int) -> dict[str, float]:
        batches = micro_batches(packed_rows(mine, min(config.pack_length, most)), most, config.pad_id, config.alone_beyond)
        return update(accelerator, policy, optimizer, batches, loss_of, lr=rate, config=config.optimiser, where=f"step {number}")

    return {**budget.within(attempt), "tokens": tokens}


def mean_loss(accelerator: Any, policy: Any, samples: Sequence[Sample], config: SftConfig, budget: TokenBudget | None = None) -> float:
    """Mean negative log-likelihood in nats over all tokens that count; every process computes a share of the samples."""
    budget = budget or TokenBudget(accelerator, config.microbatch_tokens)
    numbered = [replace(sample, index=number) for number, sample in enumerate(samples)]
    mine = numbered[accelerator.process_index :: accelerator.num_processes]

    def attempt(most: int) -> dict[int, Tensor]:
        rows = packed_rows(mine or numbered[:1], min(config.pack_length, most))
        return measure(accelerator, policy, micro_batches(rows, most, config.pad_id, config.alone_beyond))

    found = budget.within(attempt)
    total = -sum(float(found[sample.index].double().sum()) for sample in mine)
    summed = accelerator.reduce(torch.tensor(total, dtype=torch.float64, device=accelerator.device), "sum").item()
    return summed / sum(sample.trained_tokens for sample in samples)
