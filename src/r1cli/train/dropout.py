"""No dropout, whatever a model's configuration says: what reinforcement learning updates must be the policy that was sampled.

Modules that are not in training mode have none. Layers whose activations are recomputed must be in it (transformers asks them), so their
rates are set to 0 as well.
"""

import copy
from typing import Any

from torch import nn


def remove_dropout(model: nn.Module) -> None:
    """Set every dropout rate of the modules to 0. What `model.config` says, and what is saved with the model, stays."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name in _rates(vars(module)):
            setattr(module, name, 0.0)
        config = getattr(module, "config", None)  # some layers read their rate there in every pass
        if module is not model and config is not None and (names := _rates(vars(config))):
            module.config = copy.copy(config)
            for name in names:
                setattr(module.config, name, 0.0)


def train_without_dropout(model: nn.Module) -> None:
    """Training mode for the modules that recompute activations in it, and evaluation mode for all others."""
    for module in model.modules():
        module.training = bool(getattr(module, "gradient_checkpointing", False))


def _rates(values: dict[str, Any]) -> list[str]:
    return [name for name, value in values.items() if "drop" in name and isinstance(value, float) and value > 0]
