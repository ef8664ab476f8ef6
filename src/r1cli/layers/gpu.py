"""Layers of the computation copy on an NVIDIA GPU: fewer passes over its memory, which is what lies between the matrix products.

- The gradient of a weight is added to the float32 weight's by the product that makes it: in bfloat16 it would be written, read, cast,
  and added in passes of their own, and rounded before it is added.
- The root-mean-square norm of transformers is a dozen passes, half of them in float32, and keeps float32 activations. torch has a kernel.
- A rotation is nine passes and two layouts of memory in transformers, and one here.
- silu(gate) * up is one pass, its gradients are another, and it is computed again instead of kept: a fifth of the activations. Under
  gradient checkpointing, gate and up of many tokens are not kept either.

Shapes: _N tokens, _I inputs, _O outputs; B rows of T positions, H heads of queries and K of keys, D head size.
"""

import logging
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, rms_norm

TILE = 16384  # tokens of a gated layer that are computed together


@cache
def usable() -> bool:
    """Whether the kernels run here: on NVIDIA's GPUs from Ampere on, with Triton, which torch brings along on Linux. It runs two to see."""
    is_there = torch.cuda.is_available() and torch.version.cuda is not None and find_spec("triton") is not None
    if not is_there or torch.cuda.get_device_capability() < (8, 0):
        return False
    try:
        from r1cli.layers.kernels import gated

        ones = torch.ones(16, 16, dtype=torch.bfloat16, device="cuda")
        gated(ones, ones)
        add_product(ones.float(), ones, ones)
    except Exception as error:  # whatever Triton raises that finds no compiler, or does not know the GPU
        why = str(error).strip().partition("\n")[0]
        logging.getLogger("r1cli").warning(
            "Triton's kernels do not run here, layers stay transformers' own: %s (is a C compiler there?)", why
        )
        return False
    return True


def linear_of(module: nn.Linear, weight_OI: Tensor | None) -> Any:
    """None for a frozen layer, which has no gradient to save anything on."""
    if weight_OI is None:
        return None
    return lambda input: AccumulatingLinear.apply(input, module.weight, module.bias, weight_OI)


def rotation() -> Any:
    """What is put in the place of transformers' `apply_rotary_pos_emb`."""
    return rotate


def norm_of(module: Any) -> Any:
    return lambda hidden: rms_norm(hidden, module.weight.shape, module.weight, module.variance_epsilon)


def gated_of(module: Any, weights: Mapping[int, Tensor], *, lean: bool) -> Any:
    gate, up, down = parts = module.gate_proj, module.up_proj, module.down_proj
    own = [weights.get(id(part.weight)) for part in parts]
    in_tiles = lean and all(part.bias is None for part in parts)

    def forward(hidden: Tensor) -> Tensor:
        if in_tiles and hidden[..., 0].numel() > TILE:
            return TiledGated.apply(hidden, *(part.weight for part in parts), own)
        return GatedLinear.apply(gate(hidden), up(hidden), down.weight, down.bias, own[2])

    return forward


def rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Query [B, H, T, D] and key [B, K, T, D] turned by the angles of their positions, cos and sin [B or 1, T, D]."""
    return Rotation.apply(query, cos, sin), Rotation.apply(key, cos, sin)


class Rotation(torch.autograd.Function):
    """(part [B, H, T, D], cos, sin [B or 1, T, D]) -> [B, H, T, D]: rotary position embedding (RoFormer, arXiv 2104.09864) of halves."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        from r1cli.layers.kernels import rotated

        ctx.save_for_backward(cos, sin)
        return rotated(part, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, None, None]:
        from r1cli.layers.kernels import rotated

        return rotated(d_out, *ctx.saved_tensors, back=True), None, None


class AccumulatingLinear(torch.autograd.Function):
    """(input [..., I], cast weight [O, I], bias [O] or None, weight [O, I] float32) -> [..., O]; fills `weight.grad`."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, cast_OI: Tensor, bias_O: Tensor | None, weight_OI: Tensor) -> Tensor:
        ctx.save_for_backward(input, cast_OI)
        ctx.weight_OI = weight_OI
        return linear(input, cast_OI, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        input, cast_OI = ctx.saved_tensors
        wants_input, _, wants_bias, _ = ctx.needs_input_grad
        d_out_NO = d_out.flatten(0, -2)
        d_input = (d_out_NO @ cast_OI).view_as(input) if wants_input else None
        _to_gradient(ctx.weight_OI, d_out_NO, input.flatten(0, -2))
        return d_input, None, d_out_NO.sum(0) if wants_bias else None, None


class GatedLinear(torch.autograd.Function):
    """(gate [..., I], up [..., I], cast weight [O, I], bias [O] or None, weight [O, I] float32 or None) -> linear(silu(gate) * up);
    fills `weight.grad`."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, cast_OI: Tensor, bias_O: Tensor | None, weight_OI: Tensor | None) -> Tensor:
        from r1cli.layers.kernels import gated

        ctx.save_for_backward(gate, up, cast_OI)
        ctx.weight_OI = weight_OI
        return linear(gated(gate, up), cast_OI, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        from r1cli.layers.kernels import gated_gradients

        gate, up, cast_OI = ctx.saved_tensors
        d_out_NO = d_out.flatten(0, -2)
        d_inner = (d_out_NO @ cast_OI).view_as(gate)
        d_gate, d_up, inner = gated_gradients(d_inner, gate, up)
        if ctx.weight_OI is not None:
            _to_gradient(ctx.weight_OI, d_out_NO, inner.flatten(0, -2))
        return d_gate, d_up, None, d_out_NO.sum(0) if ctx.needs_input_grad[3] else None, None


class TiledGated(torch.autograd.Function):
    """(hidden [..., O], cast weights of gate [I, O], up [I, O] and down [O, I], float32 weights or None) -> down(silu(gate) * up).

    TILE tokens at a time, forward and backward: nothing of the inner size is kept, or there for all tokens at once. Under gradient
    checkpointing that is most of what a layer needs beside its input. It costs the products of gate and up once more.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, gate_IO: Tensor, up_IO: Tensor, down_OI: Tensor, weights: list[Tensor | None]) -> Tensor:
        from r1cli.layers.kernels import gated

        ctx.save_for_backward(hidden, gate_IO, up_IO, down_OI)
        ctx.weights = weights
        out = torch.empty_like(hidden)
        for tile_NO, out_NO in zip(*(part.flatten(0, -2).split(TILE) for part in (hidden, out)), strict=True):
            torch.mm(gated(tile_NO @ gate_IO.T, tile_NO @ up_IO.T), down_OI.T, out=out_NO)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        from r1cli.layers.kernels import gated_gradients

        hidden, gate_IO, up_IO, down_OI = ctx.saved_tensors
        d_hidden = torch.empty_like(hidden)
        for tile_NO, d_out_NO, d_tile_NO in zip(*(p.flatten(0, -2).split(TILE) for p in (hidden, d_out, d_hidden)), strict=True):
            d_gate_NI, d_up_NI, inner_NI = gated_gradients(d_out_NO @ down_OI, tile_NO @ gate_IO.T, tile_NO @ up_IO.T)
            torch.mm(d_gate_NI, gate_IO, out=d_tile_NO).addmm_(d_up_NI, up_IO)
            for weight, left, right in zip(ctx.weights, (d_gate_NI, d_up_NI, d_out_NO), (tile_NO, tile_NO, inner_NI), strict=True):
                if weight is not None:
                    _to_gradient(weight, left, right)
        return d_hidden, None, None, None, None


def add_product(total_AB: Tensor, left_NA: Tensor, right_NB: Tensor, *, adds: bool = True) -> None:
    """total += left^T right, summed and written in float32; the total is overwritten without `adds`. Another type than the factors' one
    comes out of the product itself."""
    kind = {} if total_AB.dtype == left_NA.dtype else {"out_dtype": total_AB.dtype}
    if adds:
        torch.addmm(total_AB, left_NA.T, right_NB, out=total_AB, **kind)
    else:
        torch.mm(left_NA.T, right_NB, out=total_AB, **kind)


def _to_gradient(weight_OI: Tensor, d_out_NO: Tensor, input_NI: Tensor) -> None:
    """weight.grad += d_out^T input."""
    adds = weight_OI.grad is not None
    if not adds:
        weight_OI.grad = torch.empty_like(weight_OI)
    add_product(weight_OI.grad, d_out_NO, input_NI, adds=adds)
