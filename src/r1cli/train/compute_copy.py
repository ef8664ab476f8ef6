"""The model in the type it computes in, beside the float32 weights that the optimizer moves.

Autocast casts every weight again in every micro-batch, and keeps what lies between the products (norms, residuals, rotations) in float32,
cast at every product. Here the whole pass is in the computation type, as it is in the sampler; a weight is cast once an optimizer step.
Gradients go to the float32 weights as soon as they are known, so micro-batches add up in float32.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from r1cli.train.cpu_layers import adopt

steps_taken = 0  # by any optimizer of this process


def _count_step(*_: Any) -> None:
    global steps_taken
    steps_taken += 1


register_optimizer_step_post_hook(_count_step)


class ComputeCopy:
    """`fresh()` is the model in `dtype`, with the weights that the float32 model has now."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        self.source = model
        pairs = {id(p): (p, nn.Parameter(p.detach().to(dtype), requires_grad=p.requires_grad)) for p in model.parameters()}
        self.pairs = list(pairs.values())
        self.model = copy.deepcopy(model, {name: cast for name, (_, cast) in pairs.items()})
        if next(model.parameters()).device.type == "cpu":
            adopt(self.model)
        for weight, cast in self.pairs:
            if cast.requires_grad:
                cast.register_post_accumulate_grad_hook(_hand_over(weight))
        self.seen = self._versions()

    def fresh(self) -> Any:
        now = self._versions()
        if now != self.seen:
            with torch.no_grad():
                for weight, cast in self.pairs:
                    cast.copy_(weight)
            self.seen = now
        if self.model.training != self.source.training:
            self.model.train(self.source.training)
        return self.model

    def _versions(self) -> tuple[int, list[tuple[int, int]]]:
        """Changes with every step of an optimizer (fused ones leave no trace on a tensor) and every other in-place write to a weight."""
        return steps_taken, [(weight.data_ptr(), weight._version) for weight, _ in self.pairs]


def _hand_over(weight: Tensor) -> Callable[[Tensor], None]:
    """Moves the gradient of a cast weight to the float32 one."""

    def move(cast: Tensor) -> None:
        assert cast.grad is not None
        if weight.grad is None:
            weight.grad = cast.grad.to(weight.dtype)
        else:
            weight.grad += cast.grad
        cast.grad = None

    return move
