"""vLLM's kernels for norms on a CPU against vLLM's own operations of torch, and which of the two an engine takes."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from r1cli.engines.load import load_engine
from r1cli.engines.vllm_norms import PROVIDER, kernel_priorities

pytestmark = [pytest.mark.vllm, pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM")]
NAMES = ("rms_norm", "fused_add_rms_norm")


@pytest.fixture(scope="module")
def implementations() -> dict[str, dict[str, Any]]:
    """{operation: {"native" or PROVIDER: its implementation}}."""
    if kernel_priorities() == {}:
        pytest.skip("this vLLM has no kernels to choose")
    from vllm import ir

    return {name: getattr(ir.ops, name).impls for name in NAMES}


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-7), (torch.float16, 2**-10)])
@pytest.mark.parametrize("tokens", [1, 33])
def test_they_compute_the_same(implementations: Any, dtype: torch.dtype, near: float, tokens: int) -> None:
    torch.manual_seed(0)
    hidden, residual = (torch.randn(tokens, 96).to(dtype) for _ in range(2))
    weight = torch.rand(96).to(dtype)
    for name, given in {"rms_norm": [hidden], "fused_add_rms_norm": [hidden, residual]}.items():
        assert implementations[name][PROVIDER].supports_args(*given, weight, 1e-5)
        expected = implementations[name]["native"].impl_fn(*given, weight, 1e-5)
        found = implementations[name][PROVIDER].impl_fn(*(part.clone() for part in given), weight, 1e-5)
        torch.testing.assert_close(found, expected, rtol=near, atol=near)


def test_what_they_cannot_compute_is_left_to_torch(implementations: Any) -> None:
    hidden, weight = torch.randn(3, 96), torch.rand(96)
    for name, given in {"rms_norm": [hidden], "fused_add_rms_norm": [hidden, hidden]}.items():
        fits = implementations[name][PROVIDER].supports_args
        assert not fits(*given, None, 1e-5)
        assert not fits(*given, weight.bfloat16(), 1e-5)
        assert not fits(*given, weight, 1e-5, 48)
        assert not fits(*(part[:, :90].contiguous() for part in given), weight[:90], 1e-5)
        assert not fits(*(part[:, :48] for part in given), weight[:48], 1e-5)


@pytest.mark.slow
def test_an_engine_takes_them(tiny: Path, implementations: Any) -> None:
    from vllm import ir

    engine = load_engine(str(tiny), engine="vllm", dtype="float32", kv_cache_gib=0.05)
    try:
        assert {name: getattr(ir.ops, name).get_priority() for name in NAMES} == {name: [PROVIDER, "native"] for name in NAMES}
    finally:
        engine.close()
