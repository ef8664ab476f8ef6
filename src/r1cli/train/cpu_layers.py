"""Layers of the computation copy on a CPU, with backward passes written for its caches.

- The weight gradient of a linear layer is a product over all tokens. Past about 512 of them the matrix library falls from 1,000 to 300
  GFLOP/s (576 x 1,536, bfloat16, AMX); taken in pieces it does not.
- The root-mean-square norm of transformers is a dozen operations in its backward pass, in float32; here it is one kernel and a product.
- The inner activation silu(gate) * up of a gated layer is computed again instead of kept: with silu(gate), a quarter of the activations.
- The gradient of an embedding goes to the rows that were looked up.

Shapes: _N tokens, _I inputs, _O outputs, _H hidden size, _V vocabulary.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, silu

PIECE = 512  # tokens


def adopt(model: nn.Module, weights: Mapping[int, Tensor]) -> None:
    """Let the layers of a model on a CPU compute as written here. Anything else stays as it is.

    weights: the float32 weight that the optimizer moves, by the `id` of its cast in the model.
    """
    for module in model.modules():
        if type(module) is nn.Linear:
            module.forward = _linear_of(module)
        elif type(module).__name__.endswith("RMSNorm") and _is_plain_norm(module):
            module.forward = _norm_of(module)
        elif type(module).__name__.endswith("MLP") and _is_plain_gated(module):
            module.forward = _gated_of(module)
        elif type(module) is nn.Embedding and id(module.weight) in weights and _is_plain_embedding(module):
            module.forward = _lookup_of(module, weights[id(module.weight)])


def _linear_of(module: nn.Linear) -> Any:
    return lambda input: PiecewiseLinear.apply(input, module.weight, module.bias)


def _norm_of(module: Any) -> Any:
    return lambda hidden: RootMeanSquareNorm.apply(hidden, module.weight, module.variance_epsilon)


def _gated_of(module: Any) -> Any:
    down = module.down_proj
    return lambda hidden: GatedLinear.apply(module.gate_proj(hidden), module.up_proj(hidden), down.weight, down.bias)


def _lookup_of(module: nn.Embedding, weight_VH: Tensor) -> Any:
    return lambda ids: Lookup.apply(ids, module.weight, weight_VH, module.padding_idx)


def _is_plain_embedding(module: nn.Embedding) -> bool:
    return module.weight.requires_grad and not (module.max_norm is not None or module.scale_grad_by_freq or module.sparse)


@torch.no_grad()
def _is_plain_gated(module: Any) -> bool:
    """Does the module compute down(silu(gate(x)) * up(x))?"""
    if not all(type(getattr(module, name, None)) is nn.Linear for name in ("gate_proj", "up_proj", "down_proj")):
        return False
    probe = torch.linspace(-2.0, 3.0, 3 * module.gate_proj.in_features, dtype=module.gate_proj.weight.dtype).view(3, -1)
    return torch.allclose(module(probe).float(), _gated_of(module)(probe).float(), rtol=1e-2, atol=1e-2)


@torch.no_grad()
def _is_plain_norm(module: Any) -> bool:
    """Does the module compute what `RootMeanSquareNorm` does? Some models add 1 to the weight; asking it is surer than a list of names."""
    weight = getattr(module, "weight", None)
    if weight is None or not hasattr(module, "variance_epsilon"):
        return False
    probe = torch.linspace(-2.0, 3.0, 3 * weight.numel(), dtype=weight.dtype).view(3, -1)
    expected, found = module(probe), RootMeanSquareNorm.apply(probe, weight, module.variance_epsilon)
    return expected.dtype == found.dtype and torch.allclose(expected.float(), found.float(), rtol=1e-2, atol=1e-2)


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


class Lookup(torch.autograd.Function):
    """(ids [...], cast weight [V, H], weight [V, H] float32, padding id or None) -> [..., H].

    The gradient is added to the rows of the float32 weight that were used; gradients of all V rows, zero for most, would be made, filled
    and added up in every micro-batch. As in torch, the padding id has none.
    """

    @staticmethod
    def forward(ctx: Any, ids: Tensor, cast_VH: Tensor, weight_VH: Tensor, padding_id: int | None) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.weight_VH, ctx.padding_id = weight_VH, padding_id
        return cast_VH[ids]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[None, None, None, None]:
        ids_N, d_out_NH = ctx.saved_tensors[0].flatten(), d_out.flatten(0, -2)
        weight_VH = ctx.weight_VH
        if ctx.padding_id is not None:
            used = ids_N != ctx.padding_id
            ids_N, d_out_NH = ids_N[used], d_out_NH[used]
        if weight_VH.grad is None:
            weight_VH.grad = torch.zeros_like(weight_VH)
        weight_VH.grad.index_add_(0, ids_N, d_out_NH.to(weight_VH.dtype))
        return None, None, None, None
