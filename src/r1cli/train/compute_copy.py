"""The model in the type it computes in, beside the float32 weights that the optimizer moves.

Autocast casts every weight again in every micro-batch, and keeps what lies between the products (norms, residuals, rotations) in float32,
cast at every product. Here the whole pass is in the computation type, as it is in the sampler; a weight is cast once an optimizer step.
Gradients go to the float32 weights as soon as they are known, so micro-batches add up in float32.
"""

import copy
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from r1cli.layers.adopt import adopt


class ComputeCopy:
    """`fresh()` is the model in `dtype`, with the weights that the float32 model has now."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        self.source = model
        moving = [p for p in model.parameters() if p.requires_grad or p.dtype != dtype]  # what LoRA froze in this type is shared
        pairs = {id(p): (p, nn.Parameter(p.detach().to(dtype), requires_grad=p.requires_grad)) for p in moving}
        self.pairs = list(pairs.values())
        shared = {id(p): p for p in model.parameters()}
        self.model = copy.deepcopy(model, {**shared, **{name: cast for name, (_, cast) in pairs.items()}})
        _cast_buffers(self.model, dtype)
        moved = {id(cast): weight for weight, cast in self.pairs if cast.requires_grad}
        adopt(self.model, moved, next(model.parameters()).device.type)
        for weight, cast in self.pairs:
            if cast.requires_grad:
                cast.register_post_accumulate_grad_hook(_hand_over(weight))
        self.seen = self._versions()
        self.stale = False
        hook = register_optimizer_step_post_hook(_marking(weakref.ref(self)))
        weakref.finalize(self, hook.remove)

    def fresh(self) -> Any:
        now = self._versions()
        if self.stale or now != self.seen:
            with torch.no_grad():
                for weight, cast in self.pairs:
                    cast.copy_(weight)
            self.seen, self.stale = now, False
        for copied, own in zip(self.model.modules(), self.source.modules(), strict=True):
            copied.training = own.training
        return self.model

    def _versions(self) -> list[tuple[int, int]]:
        """Changes with every in-place write to a weight but those of fused optimizers, which autograd does not hear of."""
        return [(weight.data_ptr(), weight._version) for weight, _ in self.pairs]


def _cast_buffers(model: Any, dtype: torch.dtype) -> None:
    """Give buffers the type that they have in a model made in `dtype`: the decays of MiniMax's linear attention are multiplied with
    activations and must have theirs. Asked of the model's class, without memory. Angles of rotations, and what transformers keeps in
    float32 (the biases of routers), stay there."""
    exact = ("inv_freq", *(getattr(model, "_keep_in_fp32_modules_strict", None) or ()))
    buffers = ((name, value) for name, value in model.named_buffers() if not any(part in name for part in exact))
    named = {name: value for name, value in buffers if value.is_floating_point()}
    if not named:
        return
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            made = dict(type(model)(copy.deepcopy(model.config)).named_buffers())
    finally:
        torch.set_default_dtype(before)
    for name, value in named.items():
        if name in made:
            value.data = value.to(made[name].dtype)


def all_in(model: Any, dtype: torch.dtype) -> bool:
    """Whether the model has all its weights in this type: then it needs no copy."""
    return all(weight.dtype == dtype for weight in model.parameters())


def _marking(reference: "weakref.ref[ComputeCopy]") -> Callable[..., None]:
    """Called after each step of any optimizer: marks the copy when its weights were among those that moved."""

    def mark(optimizer: Optimizer, *_: Any) -> None:
        copied = reference()
        if copied is not None:
            moved = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
            copied.stale = copied.stale or any(id(weight) in moved for weight, _ in copied.pairs)

    return mark


def _hand_over(weight: Tensor) -> Callable[[Tensor], None]:
    """Moves the gradient of a cast weight to the float32 one."""

    def move(cast: Tensor) -> None:
        if cast.grad is None:  # the layer gave it to the weight itself
            return
        gradient = cast.grad.to(weight.dtype)  # adding two types is four times slower than casting first
        weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
        cast.grad = None

    return move
