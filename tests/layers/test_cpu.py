"""Layers of the computation copy on a CPU against torch's own in double precision."""

import pytest
import torch
from torch.nn.functional import linear, rms_norm, silu

from r1cli.layers import cpu
from r1cli.layers.cpu import PiecewiseLinear, RootMeanSquareNorm
from tests.train.test_compute_copy import ROUGH, distance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_equal_those_of_torch(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(cpu, "PIECE", 7)
    torch.manual_seed(2)
    hidden, weight, bias, scale = (torch.randn(*shape).to(dtype).requires_grad_() for shape in ((2, 17, 24), (40, 24), (40,), (24,)))
    plain = [part.detach().double().requires_grad_() for part in (hidden, weight, bias, scale)]
    found = PiecewiseLinear.apply(RootMeanSquareNorm.apply(hidden, scale, 1e-5), weight, bias)
    expected = linear(rms_norm(plain[0], (24,), plain[3], 1e-5), plain[1], plain[2])
    slope = torch.randn(found.shape).to(dtype)
    gradients = torch.autograd.grad(found, (hidden, weight, bias, scale), slope)
    assert distance(found, expected) < ROUGH[dtype]
    for one, other in zip(gradients, torch.autograd.grad(expected, plain, slope.double()), strict=True):
        assert distance(one, other) < ROUGH[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gated_layer_equals_that_of_torch(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(cpu, "PIECE", 7)
    torch.manual_seed(3)
    parts = [torch.randn(*shape).to(dtype).requires_grad_() for shape in ((2, 9, 24), (2, 9, 24), (16, 24), (16,))]
    plain = [part.detach().double().requires_grad_() for part in parts]
    found, expected = cpu.GatedLinear.apply(*parts), linear(silu(plain[0]) * plain[1], plain[2], plain[3])
    slope = torch.randn(found.shape).to(dtype)
    assert distance(found, expected) < ROUGH[dtype]
    gradients = torch.autograd.grad(found, parts, slope), torch.autograd.grad(expected, plain, slope.double())
    assert all(distance(one, other) < ROUGH[dtype] for one, other in zip(*gradients, strict=True))
