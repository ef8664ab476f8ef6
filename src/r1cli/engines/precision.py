"""The computation type and the kernels a machine is fast in."""

import torch

from r1cli.errors import R1Error

AUTO = "auto"


def resolve_dtype(name: str) -> str:
    """`auto` as bfloat16 where the hardware multiplies in it, float32 elsewhere; any other name as it is.

    A CPU without AVX512-BF16, AMX or Arm's BF16 instructions emulates bfloat16, seven times slower than it computes float32 (measured on
    a CPU with AVX2 only: 15 against 110 GFLOP/s).
    """
    if name != AUTO:
        if name == "float16" and not torch.cuda.is_available():
            raise R1Error("float16 needs a GPU", hint="--dtype auto", code=3)
        return name
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if _cpu_multiplies_bfloat16() else "float32"


def leave_out_cudnn_attention() -> None:
    """Tell torch's attention not to take cuDNN's kernel, which makes a plan (half a second) for each new length; here most are new."""
    torch.backends.cuda.enable_cudnn_sdp(False)


def _cpu_multiplies_bfloat16() -> bool:
    if not hasattr(torch.cpu, "get_capabilities"):  # before torch 2.12
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16", "arm_bf16"))
