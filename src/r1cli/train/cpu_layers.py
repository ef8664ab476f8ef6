"""Layers of the computation copy on a CPU, with backward passes written for its caches.

- The weight gradient of a linear layer is a product over all tokens. Past about 512 of them the matrix library falls from 1,000 to 300
  GFLOP/s (576 x 1,536, bfloat16, AMX); taken in pieces it does not.
- The root-mean-square norm of transformers is a dozen operations in its backward pass, in float32; here it is six.

Shapes: _N tokens, _I inputs, _O outputs, _H hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

PIECE = 512  # tokens


def adopt(model: nn.Module) -> None:
    """Let the linear layers and norms of a model on a CPU compute as written here. Anything else stays as it is."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.forward = _linear_of(module)
        elif type(module).__name__.endswith("RMSNorm") and _is_plain_norm(module):
            module.forward = _norm_of(module)


def _linear_of(module: nn.Linear) -> Any:
    return lambda input: PiecewiseLinear.apply(input, module.weight, module.bias)


def _norm_of(module: Any) -> Any:
    return lambda hidden: RootMeanSquareNorm.apply(hidden, module.weight, module.variance_epsilon)


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
        d_weight_OI = None
        if wants_weight:
            d_weight_OI = d_out_NO[:PIECE].T @ input_NI[:PIECE]
            for start in range(PIECE, len(input_NI), PIECE):
                piece = slice(start, start + PIECE)
                d_weight_OI.addmm_(d_out_NO[piece].T, input_NI[piece])
        return d_input, d_weight_OI, d_out_NO.sum(0) if wants_bias else None


class RootMeanSquareNorm(torch.autograd.Function):
    """(hidden [..., H], weight [H], epsilon) -> weight * hidden / sqrt(mean(hidden^2) + epsilon); statistics in float32."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight_H: Tensor, epsilon: float) -> Tensor:
        size = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True, dtype=torch.float32)
        inverse = (size.square_() / hidden.shape[-1] + epsilon).rsqrt_()
        normal = (hidden.float() * inverse).to(hidden.dtype)
        ctx.save_for_backward(normal, weight_H, inverse)
        return normal * weight_H

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        normal, weight_H, inverse = ctx.saved_tensors
        products = d_out * normal
        along = (products @ weight_H).float().div_(normal.shape[-1])[..., None]  # mean of d_normal * normal
        d_hidden = torch.addcmul((d_out * weight_H).float(), normal.float(), along, value=-1).mul_(inverse).to(normal.dtype)
        d_weight_H = products.flatten(0, -2).sum(0, dtype=torch.float32).to(weight_H.dtype) if ctx.needs_input_grad[1] else None
        return d_hidden if ctx.needs_input_grad[0] else None, d_weight_H, None
