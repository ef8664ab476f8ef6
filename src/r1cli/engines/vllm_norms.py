"""vLLM's norms on a CPU by its own kernels.

vLLM 0.32 carries kernels for the root-mean-square norm on a CPU and does not call them: it leaves norms to torch.compile. Uncompiled they
are ten operations of torch each, 101 us instead of 12 (32 tokens of 576, bfloat16), a tenth of the time of a small model's decoding step.
Operations have several implementations in vLLM (`vllm.ir`), of which a list of priorities picks one; the kernels are entered there.
"""

import importlib.util
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

PROVIDER = "r1_cpu"
STEP = 16  # numbers a kernel takes at a time; it refuses rows that are not whole


def kernel_priorities() -> dict[str, Any]:
    """Options for `vllm.LLM` that choose the kernels; none where this vLLM has no such choice or no such kernels."""
    if importlib.util.find_spec("vllm.ir") is None:
        return {}
    from vllm import ir
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    operations = {"rms_norm": (_norm, _fits, False), "fused_add_rms_norm": (_add_and_norm, _both_fit, True)}
    can_choose = "ir_op_priority" in {field.name for field in fields(EngineArgs)}
    if not (can_choose and all(hasattr(torch.ops._C, name) and hasattr(ir.ops, name) for name in operations)):
        return {}
    for name, (function, fits, inplace) in operations.items():
        operation = getattr(ir.ops, name)
        if PROVIDER not in operation.impls:
            operation.register_impl(PROVIDER, supports_args=fits, inplace=inplace)(function)
    return {"ir_op_priority": {name: [PROVIDER] for name in operations}}


def _fits(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> bool:
    plain = weight is not None and weight.dtype == x.dtype and variance_size is None
    return plain and x.is_contiguous() and x.shape[-1] % STEP == 0


def _both_fit(x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> bool:
    return _fits(x, weight, epsilon, variance_size) and x_residual.is_contiguous() and x_residual.dtype == x.dtype


def _norm(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> Tensor:
    out = torch.empty_like(x)
    torch.ops._C.rms_norm(out, x, weight, epsilon)
    return out


def _add_and_norm(
    x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> tuple[Tensor, Tensor]:
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
    return x, x_residual
