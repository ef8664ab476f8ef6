"""The learning rate by hand, and which weights decay."""

import pytest
import torch
from torch import nn

from r1cli.train.optimiser import OptimiserConfig, build_optimiser, learning_rate


def rates(total: int, **config: object) -> list[float]:
    return [learning_rate(step, total, OptimiserConfig(lr=1.0, **config)) for step in range(total)]  # type: ignore[arg-type]


def test_constant_with_warmup() -> None:
    assert rates(5, warmup_steps=4) == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_cosine_ends_at_the_floor() -> None:
    found = rates(5, lr_schedule="cosine", lr_floor=0.1)
    assert found == pytest.approx([1.0, 0.1 + 0.9 * 0.853553, 0.55, 0.1 + 0.9 * 0.146447, 0.1], abs=1e-6)


def test_linear_after_warmup() -> None:
    assert rates(6, lr_schedule="linear", lr_floor=0.0, warmup_steps=2) == pytest.approx([0.5, 1.0, 0.75, 0.5, 0.25, 0.0])
    assert rates(3, lr_schedule="linear", lr_floor=0.0) == pytest.approx([1.0, 0.5, 0.0]), "without one the first step has the peak"


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("warmup", [1, 2, 5, 6])
def test_the_peak_is_taken_once_and_the_last_step_has_the_floor(schedule: str, warmup: int) -> None:
    found = rates(7, lr_schedule=schedule, warmup_steps=warmup)
    assert found[warmup - 1] == 1.0 == max(found) and found.count(1.0) == 1
    assert found[-1] == pytest.approx(0.1) and found[warmup - 1 :] == sorted(found[warmup - 1 :], reverse=True)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_short_runs_have_a_rate(schedule: str) -> None:
    assert rates(1, lr_schedule=schedule) == [1.0]
    assert all(0.0 < rate <= 1.0 for rate in rates(2, lr_schedule=schedule, warmup_steps=5))


def test_the_moments_decay_as_asked() -> None:
    optimiser = build_optimiser(nn.Linear(3, 2).parameters(), OptimiserConfig(lr=0.1, adam_beta2=0.95))
    assert [group["betas"] for group in optimiser.param_groups] == [(0.9, 0.95)] * 2


def test_vectors_do_not_decay_and_frozen_weights_are_left_out() -> None:
    layer, frozen = nn.Linear(3, 2), nn.Linear(3, 2).requires_grad_(False)
    optimiser = build_optimiser([*layer.parameters(), *frozen.parameters()], OptimiserConfig(lr=0.1, weight_decay=0.5))
    assert [(len(group["params"]), group["weight_decay"]) for group in optimiser.param_groups] == [(1, 0.5), (1, 0.0)]
    before = layer.weight.detach().clone(), layer.bias.detach().clone()
    layer.weight.grad, layer.bias.grad = torch.zeros_like(layer.weight), torch.zeros_like(layer.bias)
    optimiser.step()
    assert torch.allclose(layer.weight, before[0] * (1 - 0.1 * 0.5)) and torch.equal(layer.bias, before[1])
