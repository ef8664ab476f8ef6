"""Layers of the computation copy on a CPU, with backward passes written for its caches.

- The weight gradient of a linear layer is a product over all tokens. Past about 512 of them the matrix library falls from 1,000 to 300
  GFLOP/s (576 x 1,536, bfloat16, AMX); taken in pieces it does not.
- The root-mean-square norm of transformers is a dozen operations in its backward pass, in float32; here it is one kernel and a product.
- The inner activation silu(gate) * up of a gated layer is computed again instead of kept: with silu(gate), a quarter of the activations.

Shapes: _N tokens, _I inputs, _O outputs, _H hidden size.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, silu

PIECE = 512  # tokens


def usable() -> bool:
    """On every CPU."""
    return True


def linear_of(module: nn.Linear, _weight_OI: Tensor | None) -> Any:
    return lambda input: PiecewiseLinear.apply(input, module.weight, module.bias)


def rotation() -> Any:
    """None: transformers' own."""
    return None


def norm_of(module: Any) -> Any:
    return lambda hidden: RootMeanSquareNorm.apply(hidden, module.weight, module.variance_epsilon)


def gated_of(module: Any, _weights: Mapping[int, Tensor], *, lean: bool) -> Any:
    down = module.down_proj
    return lambda hidden: GatedLinear.apply(module.gate_proj(hidden), module.up_proj(hidden), down.weight, down.bias)


class PiecewiseLinear(torch.autograd.Function):
    """(input [..., I], weight [O, I], bias [O] or None) -> [..., O]; the weight gradient is summed over pieces of PIECE tokens."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight_OI)
        return linear(input, weight_OI, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        input, weight_OI = ctx.saved_tensors
        wants_input, wants_weight, wants_bias = ctx.needs_input_grad
        d_out_NO, input_NI = d_out.flatten(0, -2), input.flatten(0, -2)
        d_input = (d_out_NO @ weight_OI).view_as(input) if wants_input else None
        return d_input, _d_weight(d_out_NO, input_NI) if wants_weight else None, d_out_NO.sum(0) if wants_bias else None


def _d_weight(d_out_NO: Tensor, input_NI: Tensor) -> Tensor:
    d_weight_OI = d_out_NO[:PIECE].T @ input_NI[:PIECE]
    for start in range(PIECE, len(input_NI), PIECE):
        piece = slice(start, start + PIECE)
        d_weight_OI.addmm_(d_out_NO[piece].T, input_NI[piece])
    return d_weight_OI


class RootMeanSquareNorm(torch.autograd.Function):
    """(hidden [..., H], weight [H], epsilon) -> weight * hidden / sqrt(mean(hidden^2) + epsilon); statistics in float32.

    With n = hidden / sqrt(...) and g = d_out * weight, d_hidden = (g - n mean(g n)) / sqrt(...). torch's kernel for layer norms, told that
    the mean is 0, gives that less mean(g) / sqrt(...), in one pass instead of seven.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight_H: Tensor, epsilon: float) -> Tensor:
        size = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True, dtype=torch.float32)
        inverse = (size.square_() / hidden.shape[-1] + epsilon).rsqrt_()
        ctx.save_for_backward(hidden, weight_H, inverse)
        normal = hidden * inverse if hidden.dtype == torch.float32 else hidden.float().mul_(inverse).to(hidden.dtype)
        return normal.mul_(weight_H)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight_H, inverse = ctx.saved_tensors
        d_hidden = d_weight_H = None
        if ctx.needs_input_grad[0]:
            mean = (d_out @ weight_H)[..., None].float().mul_(inverse).div_(hidden.shape[-1])
            kernel = torch.ops.aten.native_layer_norm_backward
            wanted = [True, False, False]
            d_hidden = kernel(d_out, hidden, weight_H.shape, torch.zeros_like(inverse), inverse, weight_H.float(), None, wanted)[0]
            d_hidden = d_hidden.add_(mean.to(d_hidden.dtype))
        if ctx.needs_input_grad[1]:
            products_NH = (d_out * hidden).flatten(0, -2).float()
            d_weight_H = (inverse.flatten() @ products_NH).to(weight_H.dtype)
        return d_hidden, d_weight_H, None


class GatedLinear(torch.autograd.Function):
    """(gate [..., I], up [..., I], weight [O, I], bias [O] or None) -> linear(silu(gate) * up), [..., O]; keeps gate and up only."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(gate, up, weight_OI)
        return linear(silu(gate).mul_(up), weight_OI, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, weight_OI = ctx.saved_tensors
        _, _, wants_weight, wants_bias = ctx.needs_input_grad
        d_out_NO = d_out.flatten(0, -2)
        swish = silu(gate)
        d_weight_OI = _d_weight(d_out_NO, (swish * up).flatten(0, -2)) if wants_weight else None
        d_inner = (d_out_NO @ weight_OI).view_as(gate)
        d_up = swish.mul_(d_inner)
        d_gate = torch.ops.aten.silu_backward(d_inner.mul_(up), gate)
        return d_gate, d_up, d_weight_OI, d_out_NO.sum(0) if wants_bias else None
