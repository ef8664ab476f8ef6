"""The reference follows the policy: a copy, or an average."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from r1cli.train.model import frozen
from r1cli.train.reference import due, renew_reference
from tests.train.toy import largest_difference, weights


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


@pytest.mark.parametrize(
    ("every", "before", "after", "expected"),
    [(400, 384, 400, True), (400, 400, 416, False), (400, 390, 410, True), (0, 0, 16, False), (1, 4, 5, True), (5, 0, 4, False)],
)
def test_what_happens_every_so_many_steps_happens_when_they_are_passed(every: int, before: int, after: int, expected: bool) -> None:
    assert due(every, before, after) is expected
