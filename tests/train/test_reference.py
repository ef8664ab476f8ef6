"""The reference follows the policy: a copy, or an average."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from r1cli.train.batches import group_rows, micro_batches
from r1cli.train.model import frozen, load_reference
from r1cli.train.reference import due, renew_reference
from r1cli.train.update import measure
from tests.train.toy import PAD, group_samples, largest_difference, weights


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


@pytest.mark.parametrize(
    ("every", "before", "after", "expected"),
    [(400, 384, 400, True), (400, 400, 416, False), (400, 390, 410, True), (0, 0, 16, False), (1, 4, 5, True), (5, 0, 4, False)],
)
def test_what_happens_every_so_many_steps_happens_when_they_are_passed(every: int, before: int, after: int, expected: bool) -> None:
    assert due(every, before, after) is expected
