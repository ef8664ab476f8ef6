"""Layers of the computation copy on an NVIDIA GPU, against the same model computed as transformers does."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from r1cli.layers import gpu
from r1cli.layers.adopt import Lookup
from tests.train.test_compute_copy import distance

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@needs_gpu
@pytest.mark.parametrize("adds", [True, False])
def test_products_are_summed_in_float32(adds: bool) -> None:
    torch.manual_seed(1)
    left, right = (torch.randn(700, size, device="cuda").bfloat16() for size in (24, 40))
    total = torch.randn(24, 40, device="cuda")
    expected = left.double().T @ right.double() + (total if adds else 0)
    gpu.add_product(total, left, right, adds=adds)
    assert distance(total, expected) < 1e-5


@needs_gpu
def test_an_embedding_on_a_gpu() -> None:
    weight, ids = torch.nn.Parameter(torch.randn(9, 8, device="cuda")), torch.tensor([1, 2, 2], device="cuda")
    Lookup.apply(ids, torch.nn.Parameter(weight.detach().bfloat16()), weight, None).sum().backward()
    assert weight.grad is not None and weight.grad.sum(1).tolist() == [0, 8, 16, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("frozen", [True, False])
def test_a_gated_layer_in_tiles_is_the_gated_layer(monkeypatch: pytest.MonkeyPatch, frozen: bool) -> None:
    """Without a GPU the kernels are stood in for by torch."""
    if not torch.cuda.is_available():
        monkeypatch.setitem(sys.modules, "r1cli.layers.kernels", SimpleNamespace(gated=lambda g, u: silu(g) * u, gated_gradients=gradients))
    torch.manual_seed(4)
    place: Any = {"device": "cuda" if torch.cuda.is_available() else "cpu"}
    module = Gated(24, 40).to(**place)
    weights = {} if frozen else {id(part.weight): torch.nn.Parameter(part.weight.detach().clone()) for part in module.children()}
    tiled, whole = gpu.gated_of(module, weights, lean=True), module
    hidden = torch.randn(2, 5, 24, **place).requires_grad_()
    slope = torch.randn(2, 5, 24, **place)
    expected = torch.autograd.grad(whole(hidden), [hidden, *module.parameters()], slope)
    monkeypatch.setattr(gpu, "TILE", 3)
    names = [type(gpu.gated_of(module, weights, lean=lean)(hidden).grad_fn).__name__ for lean in (True, False)]
    assert "Tiled" in names[0] and "Tiled" not in names[1]
    for times in (1, 2):  # gradients add up
        found = tiled(hidden)
        (d_hidden,) = torch.autograd.grad(found, hidden, slope)
        assert distance(found, whole(hidden)) < 1e-5 and distance(d_hidden, expected[0]) < 1e-5
        for weight, gradient in zip(weights.values(), expected[1:], strict=False):
            assert weight.grad is not None and distance(weight.grad, times * gradient) < 1e-5


class Gated(torch.nn.Module):
    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (torch.nn.Linear(size, inner, bias=False) for _ in range(2))
        self.down_proj = torch.nn.Linear(inner, size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        found: Tensor = self.down_proj(silu(self.gate_proj(hidden)) * self.up_proj(hidden))
        return found


def gradients(d_inner: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        parts = [gate.detach().requires_grad_(), up.detach().requires_grad_()]
        inner = silu(parts[0]) * parts[1]
        return *torch.autograd.grad(inner, parts, d_inner), inner.detach()


def test_without_a_gpu_there_is_nothing_to_adopt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not gpu.usable.__wrapped__()


def test_kernels_that_do_not_run_are_left_out_with_a_word(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def gated(*_: Any) -> Any:
        raise RuntimeError("Failed to find C compiler.\nPlease specify one")

    monkeypatch.setitem(sys.modules, "r1cli.layers.kernels", SimpleNamespace(gated=gated))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(gpu, "find_spec", lambda _: True)
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *size, **more: ones(*size, **{**more, "device": "cpu"}))
    assert not gpu.usable.__wrapped__()
    assert "layers stay transformers' own: Failed to find C compiler. (is a C compiler there?)" in caplog.text
