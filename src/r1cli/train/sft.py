"""Supervised fine-tuning: the mean negative log-likelihood of completion tokens, over all tokens of a step.

Every token of a step weighs the same, whichever row, micro-batch or process it is in (global normalisation). Rows are packed several to a
line without seeing each other (`batches.packed_rows`). Only completion tokens count; prompts give no loss.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from r1cli.errors import R1Error
from r1cli.train.batches import MicroBatch, Sample, micro_batches, packed_rows
from r1cli.train.optimiser import OptimiserConfig, learning_rate
from r1cli.train.order import step_rows
from r1cli.train.steps import Log, Save, Stopping, never, train_steps
from r1cli.train.update import measure, update

PACK_LENGTH = 1024  # positions


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """epochs: passes over the rows. batch_rows: rows a step, over all processes. pack_length: positions of a packed line.

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

    def steps(self, rows: int) -> int:
        return max(1, math.ceil(rows * self.epochs / self.batch_rows))


def train_sft(
    accelerator: Any,
    policy: Any,
    optimizer: torch.optim.Optimizer,
    config: SftConfig,
    *,
    rows: Sequence[Sequence[Sample]],
    log: Log,
    save: Save,
    held_out: Sequence[Sample] = (),
    start_step: int = 0,
    stopping: Stopping = never,
) -> int:
    """Train on rows of samples (a chat of several assistant turns is one row of several samples); returns the steps done.

    held_out: samples that are never trained on; their loss is in the records as `held_out_loss`.

    log(record) gets one record a step, on every process with the same figures; save(step) is called after `step` steps when a checkpoint
    is due, and after the last one.
    """
    if not rows:
        raise R1Error("no rows to train on", hint="give SFT rows (messages, or prompt and completion)", code=2)
    total = config.steps(len(rows))
    batch_rows = min(config.batch_rows, len(rows))

    def one(step: int) -> dict[str, Any]:
        started = time.perf_counter()
        taken = step_rows(len(rows), step, batch_rows, config.seed)
        tokens = sum(sample.trained_tokens for i in taken for sample in rows[i])
        mine = [sample for i in taken[accelerator.process_index :: accelerator.num_processes] for sample in rows[i]]
        weight = 1.0 / tokens
        if not mine:  # more processes than rows: take part in the collectives with a sample that weighs nothing
            mine, weight = list(rows[taken[0]]), 0.0
        batches = micro_batches(packed_rows(mine, config.pack_length), config.microbatch_tokens, config.pad_id)

        def loss_of(batch: MicroBatch, logprobs_N: Tensor, entropies_N: Tensor, weight: float = weight) -> tuple[Tensor, dict[str, Tensor]]:
            return -(logprobs_N * weight).sum(), {"entropy": (entropies_N * weight).sum()}

        lr = learning_rate(step, total, config.optimiser)
        figures = update(accelerator, policy, optimizer, batches, loss_of, lr=lr, config=config.optimiser, where=f"step {step + 1}")
        seconds = time.perf_counter() - started
        positions = sum(len(s.prompt_ids) + len(s.completion_ids) for i in taken for s in rows[i])
        if held_out and (step + 1 == total or (config.held_out_every and (step + 1) % config.held_out_every == 0)):
            figures["held_out_loss"] = mean_loss(accelerator, policy, held_out, config)
        return {
            "step": step + 1,
            "steps": total,
            "epoch": (step + 1) * batch_rows / len(rows),
            **figures,
            "tokens": tokens,
            "seconds": seconds,
            "tokens_per_second": positions / seconds,
        }

    return train_steps(one, start_step=start_step, total=total, save_every=config.save_every, log=log, save=save, stopping=stopping)


def mean_loss(accelerator: Any, policy: Any, samples: Sequence[Sample], config: SftConfig) -> float:
    """Mean negative log-likelihood in nats over all tokens that count; every process computes a share of the samples."""
    numbered = [replace(sample, index=number) for number, sample in enumerate(samples)]
    mine = numbered[accelerator.process_index :: accelerator.num_processes]
    batches = micro_batches(packed_rows(mine or numbered[:1], config.pack_length), config.microbatch_tokens, config.pad_id)
    found = measure(accelerator, policy, batches)
    total = -sum(float(found[sample.index].double().sum()) for sample in mine)
    summed = accelerator.reduce(torch.tensor(total, dtype=torch.float64, device=accelerator.device), "sum").item()
    return summed / sum(sample.trained_tokens for sample in samples)
