"""AdamW and the learning rate of each step."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """See `OptimizerSettings` for the meaning of each field."""

    lr: float
    lr_schedule: str = "constant"
    lr_floor: float = 0.1
    warmup_steps: int = 0
    weight_decay: float = 0.0
    adam_beta2: float = 0.999
    max_grad_norm: float = 1.0


def build_optimiser(parameters: Iterable[nn.Parameter], config: OptimiserConfig) -> torch.optim.AdamW:
    """AdamW over the parameters that want a gradient. Vectors (norms, biases) are not decayed."""
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=(0.9, config.adam_beta2), fused=True)


def learning_rate(step: int, total: int, config: OptimiserConfig) -> float:
    """The learning rate of update `step` (from 0) of `total`.

    Rises linearly over `warmup_steps`, the last of which has the peak; then stays, or falls to lr * lr_floor at the last update: along a
    half cosine or a line. A run that is not longer than its warm-up ends in it.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return config.lr
    peak = max(0, config.warmup_steps - 1)  # falls from the step behind it, so that one step has the peak and the last one the floor
    done = min(1.0, (step - peak) / max(1, total - 1 - peak))
    left = (1 + math.cos(math.pi * done)) / 2 if config.lr_schedule == "cosine" else 1 - done
    return config.lr * (config.lr_floor + (1 - config.lr_floor) * left)
