"""The Triton kernels against double precision: on a GPU, or in Triton's interpreter where Triton is installed."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from tests.train.test_compute_copy import ROUGH, distance

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
runs = pytest.mark.skipif(DEVICE == "cpu" and not os.environ.get("TRITON_INTERPRET"), reason="test_in_the_interpreter runs it")
kernels: Any = pytest.importorskip("r1cli.layers.kernels", reason="needs Triton", exc_type=ImportError)

SHAPES = {"plain": (1.0, 0.0), "temperature": (1 / 0.7, 0.0), "soft cap": (0.5, 3.0)}
VOCABULARY = 9001  # no multiple of anything


def logprobs(products_NV: Tensor, scale: float, softcap: float) -> Tensor:
    return (scale * (softcap * torch.tanh(products_NV / softcap) if softcap else products_NV)).log_softmax(-1)


def figures(products_NV: Tensor, target_N: Tensor, shape: tuple[float, float]) -> tuple[Tensor, Tensor]:
    expected_NV = logprobs(products_NV, *shape)
    return expected_NV.gather(1, target_N[:, None])[:, 0], -(expected_NV.exp() * expected_NV).sum(-1)


@pytest.mark.skipif(DEVICE == "cuda" or "TRITON_INTERPRET" in os.environ, reason="the kernels themselves run")
def test_in_the_interpreter() -> None:
    """In a process of its own: Triton must be told before anything imports it."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", __file__], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout


@runs
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("entropy", [False, True])
def test_statistics_and_their_gradient(shape: tuple[float, float], dtype: torch.dtype, entropy: bool) -> None:
    torch.manual_seed(1)
    products_NV = (4 * torch.randn(5, VOCABULARY)).to(dtype).to(DEVICE)
    target_N = torch.randint(VOCABULARY, (5,)).to(DEVICE)
    target_N[:2] = torch.tensor([0, VOCABULARY - 1])
    logprob_N, entropy_N, normaliser_N = (torch.full((5,), torch.nan, device=DEVICE) for _ in range(3))
    kernels.logits_statistics(products_NV, target_N, *shape, (logprob_N, entropy_N, normaliser_N))
    plain_NV = products_NV.double().requires_grad_()
    chosen_N, expected_N = figures(plain_NV, target_N, shape)
    assert (logprob_N - chosen_N).abs().max() < 1e-5 and (entropy_N - expected_N).abs().max() < 1e-5
    weight_N, bonus_N = torch.randn(2, 5, device=DEVICE)
    loss = (chosen_N * weight_N).sum() + (expected_N * bonus_N).sum() * entropy
    (expected_NV,) = torch.autograd.grad(loss, plain_NV)
    for block in (slice(0, 4500), slice(4500, VOCABULARY)):
        found_Nv = products_NV[:, block].contiguous()
        bonus = (entropy_N, bonus_N) if entropy else None
        kernels.logits_gradient_(found_Nv, target_N - block.start, normaliser_N, weight_N, bonus, *shape)
        assert distance(found_Nv, expected_NV[:, block]) < max(ROUGH[dtype], 1e-5)  # tanh through exp


@runs
def test_one_gradient_for_all_tokens() -> None:
    """The gradient of a sum is one number, seen through a tensor without strides."""
    products_NV, target_N = torch.randn(3, 50, device=DEVICE), torch.tensor([1, 2, 49], device=DEVICE)
    figures_3N = [torch.empty(3, device=DEVICE) for _ in range(3)]
    kernels.logits_statistics(products_NV, target_N, 1.0, 0.0, tuple(figures_3N))
    expected_NV = torch.nn.functional.one_hot(target_N, 50) - products_NV.softmax(-1)
    kernels.logits_gradient_(products_NV, target_N, figures_3N[2], torch.ones((), device=DEVICE).expand(3), None, 1.0, 0.0)
    assert distance(products_NV, expected_NV) < 1e-5


@runs
def test_a_logit_that_is_no_number_is_seen() -> None:
    for bad in (torch.nan, torch.inf):
        products_NV = torch.randn(1, 50, device=DEVICE)
        products_NV[0, 7] = bad
        out = tuple(torch.zeros(1, device=DEVICE) for _ in range(3))
        kernels.logits_statistics(products_NV, torch.tensor([3], device=DEVICE), 1.0, 0.0, out)
        assert not out[0].isfinite()


@runs
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gated_layer(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    gate, up, slope = (torch.randn(7, 333).to(dtype).to(DEVICE) for _ in range(3))
    plain = [part.double().requires_grad_() for part in (gate, up)]
    expected = silu(plain[0]) * plain[1]
    assert distance(kernels.gated(gate, up), expected) < ROUGH[dtype]
    found = kernels.gated_gradients(slope, gate, up)
    for one, other in zip(found, (*torch.autograd.grad(expected, plain, slope.double()), expected), strict=True):
        assert distance(one, other) < ROUGH[dtype]


@runs
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [1, 3])
def test_a_rotation(dtype: torch.dtype, heads: int) -> None:
    """Of heads that lie as the product before attention leaves them; 24 is no power of two."""
    torch.manual_seed(3)
    part_BHTD = torch.randn(2, 5, heads, 24).to(dtype).to(DEVICE).transpose(1, 2)
    slope_BHTD = torch.randn(2, heads, 5, 24).to(dtype).to(DEVICE)
    cos_BTD, sin_BTD = torch.randn(2, 1, 5, 24).to(dtype).to(DEVICE)
    plain_BHTD = part_BHTD.double().requires_grad_()
    halves = torch.cat((-plain_BHTD[..., 12:], plain_BHTD[..., :12]), -1)
    expected = plain_BHTD * cos_BTD.double()[:, None] + halves * sin_BTD.double()[:, None]
    found = kernels.rotated(part_BHTD, cos_BTD, sin_BTD)
    assert distance(found, expected) < ROUGH[dtype] and found.transpose(1, 2).is_contiguous()
    (gradient,) = torch.autograd.grad(expected, plain_BHTD, slope_BHTD.double())
    assert distance(kernels.rotated(slope_BHTD, cos_BTD, sin_BTD, back=True), gradient) < ROUGH[dtype]
