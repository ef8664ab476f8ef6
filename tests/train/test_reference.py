"""The reference follows the policy: a copy, or an average."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from r1cli.commands.training import Training
from r1cli.settings import GrpoSettings
from r1cli.train import grpo
from r1cli.train.batches import group_rows, micro_batches
from r1cli.train.model import frozen, load_reference
from r1cli.train.optimiser import OptimiserConfig
from r1cli.train.reference import due, renew_reference, share_of_policy
from r1cli.train.update import measure
from tests.train.runs import grpo_run
from tests.train.toy import PAD, group_samples, grpo_config, largest_difference, rollout_batch, weights

GENTLE = OptimiserConfig(lr=1e-3)


@pytest.mark.parametrize("mix", [1.0, 0.25])
def test_a_copy_and_an_average(accelerator: Any, new_policy: Callable[..., Any], mix: float) -> None:
    policy, reference = new_policy(), frozen(new_policy())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(1.0)
    before = weights(reference)
    renew_reference(accelerator, reference, policy, mix)
    renewed = weights(reference)
    assert all(torch.allclose(renewed[name], before[name] + mix, atol=1e-6) for name in before)
    assert (largest_difference(renewed, weights(policy)) == 0.0) is (mix == 1.0)
    assert not any(parameter.requires_grad for parameter in reference.parameters())


def test_a_reference_in_bfloat16_is_the_float32_one_bit_by_bit(accelerator: Any, new_policy: Callable[..., Any], tiny: Path) -> None:
    """It computes what the policy's own copy in bfloat16 computes, at the start and after a renewal, and has no copy of its own."""
    policy, plain = new_policy(), frozen(new_policy())
    light = load_reference(str(tiny), dtype="bfloat16")
    batches = micro_batches(group_rows(group_samples(groups=3, size=3)), 64, PAD)

    def measured(model: Any) -> dict[int, torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return measure(accelerator, model, batches)

    for _ in range(2):
        expected, found, own = measured(plain), measured(light), measured(policy)
        assert all(torch.equal(found[index], expected[index]) and torch.equal(found[index], own[index]) for index in expected)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(0.01)
        renew_reference(accelerator, plain, policy)
        renew_reference(accelerator, light, policy)
    assert light._copy is None and plain._copy is not None
    assert {weight.dtype for weight in light.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("mix", [1.0, 0.01])
def test_an_average_moves_whatever_type_computes(accelerator: Any, new_policy: Callable[..., Any], tiny: Path, mix: float) -> None:
    """A hundredth of a small difference is less than half of bfloat16's last digit: an average held in it would stay where it is."""
    training: Any = object.__new__(Training)
    training.accelerator, training.dtype = accelerator, "bfloat16"
    training.settings = GrpoSettings(inputs=[], model="m", out="o", reference_mix=mix, dtype="bfloat16")
    reference, policy = training._load_reference(str(tiny), 1.0), new_policy()
    before = weights(policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.01)
    for _ in range(1 if mix == 1.0 else 50):
        renew_reference(accelerator, reference, policy, mix)
    wanted = sum(float((value - before[name]).abs().sum()) for name, value in weights(policy).items())
    moved = sum(float((value.float() - before[name]).abs().sum()) for name, value in weights(reference).items())
    assert moved / wanted == pytest.approx(1 - (1 - mix) ** 50, abs=0.1 if mix == 1.0 else 0.001)
    assert {weight.dtype for weight in reference.parameters()} == {torch.bfloat16 if mix == 1.0 else torch.float32}


@pytest.mark.parametrize(
    ("every", "before", "after", "expected"),
    [(400, 384, 400, True), (400, 400, 416, False), (400, 390, 410, True), (0, 0, 16, False), (1, 4, 5, True), (5, 0, 4, False)],
)
def test_what_happens_every_so_many_steps_happens_when_they_are_passed(every: int, before: int, after: int, expected: bool) -> None:
    assert due(every, before, after) is expected


@pytest.mark.parametrize(
    ("every", "before", "after", "renewals"), [(1, 0, 16, 16), (1, 5, 6, 1), (4, 3, 9, 2), (400, 384, 400, 1), (5, 0, 4, 0)]
)
def test_renewals_that_fall_together_mix_as_often_as_they_are_due(every: int, before: int, after: int, renewals: int) -> None:
    """Of the old reference stays what one mixture after the other would leave of it."""
    left = 1.0
    for _ in range(renewals):
        left *= 1 - 0.01
    assert share_of_policy(0.01, every, before, after) == pytest.approx(1 - left)
    assert share_of_policy(1.0, every, before, after) == (1.0 if renewals else 0.0)


@pytest.mark.parametrize(("updates", "mixes"), [(1, [0.25] * 4), (2, [1 - 0.75**2] * 2), (4, [1 - 0.75**4])])
def test_an_average_does_not_depend_on_the_steps_of_a_rollout(
    accelerator: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch, updates: int, mixes: list[float]
) -> None:
    seen: list[float] = []
    monkeypatch.setattr(grpo, "renew_reference", lambda accelerator, reference, policy, mix: seen.append(mix))
    grpo_run(accelerator, str(tiny), steps=4, updates_per_rollout=updates, reference_every=1, reference_mix=0.25, optimiser=GENTLE)
    assert seen == pytest.approx(mixes)


def test_a_copy_inside_of_the_loop_begins_the_divergence_anew(accelerator: Any, tiny: Path) -> None:
    _, records = grpo_run(accelerator, str(tiny), steps=4, reference_every=2, optimiser=GENTLE)
    kl = [record["kl"] for record in records]
    assert abs(kl[0]) < 1e-6 and kl[1] > 1e-4 and abs(kl[2]) < 1e-6 and kl[3] > 1e-4


def test_without_a_weight_of_the_kl_no_reference_is_measured(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    reference, asked = frozen(new_policy()), []
    reference.register_forward_pre_hook(lambda module, given: asked.append(len(given[0])))
    samples = group_samples(groups=2, size=3)
    for beta in (0.0, 0.1):
        config, policy = grpo_config(beta=beta), new_policy()
        figures = grpo.train_on(
            accelerator, policy, reference, torch.optim.SGD(policy.parameters()), rollout_batch(samples, config), config
        )
        assert bool(asked) is ("kl" in figures) is (beta > 0)
