"""Layers of the computation copy that compute what transformers' do in fewer passes over memory: which of a model's can be replaced.

By what is said in `cpu.py` and `gpu.py`. Whether a layer computes what its name promises is asked of the layer itself, which
is surer than a list of models: some norms add 1 to their weight.

Shapes: _N tokens, _H hidden size, _V vocabulary.
"""

from collections.abc import Mapping
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, rms_norm, silu

from r1cli.layers import cpu, gpu


def adopt(model: nn.Module, weights: Mapping[int, Tensor], device: str) -> None:
    """Let the layers of a model that computes on `device` ("cpu", "cuda") do so as written for it. Anything else stays as it is.

    weights: the float32 weight that the optimizer moves, by the `id` of its cast in the model.
    """
    ways: Any = {"cpu": cpu, "cuda": gpu}.get(device)
    if ways is None or not ways.usable():
        return
    rotation, lean = ways.rotation(), bool(getattr(model, "is_gradient_checkpointing", False))
    for module in model.modules():
        found = None
        if type(module) is nn.Linear:
            found = ways.linear_of(module, weights.get(id(module.weight)))
        elif type(module).__name__.endswith("RMSNorm") and _is_plain_norm(module):
            found = ways.norm_of(module)
        elif type(module).__name__.endswith("MLP") and _is_plain_gated(module):
            found = ways.gated_of(module, weights, lean=lean)
        elif type(module) is nn.Embedding and id(module.weight) in weights and _is_plain_embedding(module):
            found = _lookup_of(module, weights[id(module.weight)])
        elif rotation is not None and type(module).__name__.endswith("Attention") and _turns_halves(module):
            found = _with_rotation(module, rotation)
        if found is not None:
            module.forward = found


def _is_plain_embedding(module: nn.Embedding) -> bool:
    return module.weight.requires_grad and not (module.max_norm is not None or module.scale_grad_by_freq or module.sparse)


@torch.no_grad()
def _is_plain_gated(module: Any) -> bool:
    """Does the module compute down(silu(gate(x)) * up(x))?"""
    if not all(type(getattr(module, name, None)) is nn.Linear for name in ("gate_proj", "up_proj", "down_proj")):
        return False
    probe = _probe(module.gate_proj.weight, module.gate_proj.in_features)
    inner = silu(module.gate_proj(probe)) * module.up_proj(probe)
    return _close(module(probe), linear(inner, module.down_proj.weight, module.down_proj.bias))


@torch.no_grad()
def _is_plain_norm(module: Any) -> bool:
    """Does the module compute weight * x / sqrt(mean(x^2) + epsilon)?"""
    weight = getattr(module, "weight", None)
    if weight is None or not hasattr(module, "variance_epsilon"):
        return False
    probe = _probe(weight, weight.numel())
    return _close(module(probe), rms_norm(probe, weight.shape, weight, module.variance_epsilon))


def _probe(weight: Tensor, size: int) -> Tensor:
    return torch.linspace(-2.0, 3.0, 3 * size, dtype=weight.dtype, device=weight.device).view(3, -1)


def _close(found: Tensor, expected: Tensor) -> bool:
    return found.dtype == expected.dtype and torch.allclose(found.float(), expected.float(), rtol=1e-2, atol=1e-2)


ROTATION = "apply_rotary_pos_emb"  # the name of the function that attention modules of transformers call


def _turns_halves(module: Any) -> bool:
    """Does the module call a function by that name, and does that turn the halves of whole heads?"""
    forward = type(module).forward
    function = getattr(forward, "__globals__", {}).get(ROTATION)
    if function is None or ROTATION not in forward.__code__.co_names or forward.__closure__ is not None:
        return False
    query, key, cos, sin = (torch.linspace(-1.0, size, 8 * size).view(1, size, 2, 4) for size in (3, 1, 2, 4))
    cos, sin = cos[:, 0], sin[:, 0]

    def turned(part: Tensor) -> Tensor:
        return part * cos[:, None] + torch.cat((-part[..., 2:], part[..., :2]), -1) * sin[:, None]

    try:
        found = function(query, key, cos, sin)
    except Exception:  # another function, with other arguments
        return False
    return isinstance(found, tuple) and len(found) == 2 and _close(found[0], turned(query)) and _close(found[1], turned(key))


def _with_rotation(module: Any, rotation: Any) -> Any:
    """The module's forward pass with another function by that name; those of other models go on with their own."""
    forward, own = type(module).forward, type(module).forward.__globals__[ROTATION]

    def rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *others: Any, **more: Any) -> tuple[Tensor, Tensor]:
        plain = not others and not more and cos.shape[-1] == query.shape[-1] and cos.dtype == query.dtype
        return rotation(query, key, cos, sin) if plain else own(query, key, cos, sin, *others, **more)

    names = {**forward.__globals__, ROTATION: rotate}
    changed = FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__)
    changed.__kwdefaults__ = forward.__kwdefaults__
    return MethodType(changed, module)


def _lookup_of(module: nn.Embedding, weight_VH: Tensor) -> Any:
    return lambda ids: Lookup.apply(ids, module.weight, weight_VH, module.padding_idx)


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
