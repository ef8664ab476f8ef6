"""The gradient of each estimate of the KL as a loss, exactly, over a small vocabulary: the table of docs/grpo.md."""

import pytest
import torch
from torch import Tensor

from r1cli.train.losses import kl_estimate

BETA = 0.3
TOKENS = 9


def distributions(seed: int) -> tuple[Tensor, Tensor]:
    """Logits of a policy, which want a gradient, and the log-probabilities of a reference."""
    generator = torch.Generator().manual_seed(seed)
    logits_V = torch.randn(TOKENS, dtype=torch.float64, generator=generator).requires_grad_()
    return logits_V, torch.randn(TOKENS, dtype=torch.float64, generator=generator).log_softmax(0)


def gradient(kind: str, logits_V: Tensor, reference_V: Tensor, *, corrected: bool) -> Tensor:
    """Of beta x estimate, expected over tokens drawn from the policy; the draw itself has no gradient."""
    logprobs_V = logits_V.log_softmax(0)
    drawn_V = logprobs_V.detach()
    estimate_V = kl_estimate(logprobs_V, reference_V, kind)
    if corrected:
        estimate_V = estimate_V * (logprobs_V - drawn_V).exp()
    return torch.autograd.grad((drawn_V.exp() * BETA * estimate_V).sum(), logits_V)[0]


def exact(direction: str, logits_V: Tensor, reference_V: Tensor) -> Tensor:
    logprobs_V = logits_V.log_softmax(0)
    reverse = (logprobs_V.exp() * (logprobs_V - reference_V)).sum()
    forward = (reference_V.exp() * (reference_V - logprobs_V)).sum()
    return torch.autograd.grad(BETA * {"reverse": reverse, "forward": forward, "none": 0 * reverse}[direction], logits_V)[0]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("kind", "corrected", "direction"),
    [
        ("k1", False, "none"),
        ("k1", True, "reverse"),
        ("k2", False, "reverse"),
        ("k3", False, "forward"),
        ("k3", True, "reverse"),
    ],
)
def test_the_gradient_is_that_of_the_table(kind: str, corrected: bool, direction: str, seed: int) -> None:
    logits_V, reference_V = distributions(seed)
    found = gradient(kind, logits_V, reference_V, corrected=corrected)
    torch.testing.assert_close(found, exact(direction, logits_V, reference_V), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_k2_with_the_correction_is_neither_and_so_refused(seed: int) -> None:
    logits_V, reference_V = distributions(seed)
    found = gradient("k2", logits_V, reference_V, corrected=True)
    for direction in ("reverse", "forward"):
        wanted = exact(direction, logits_V, reference_V)
        assert (found - wanted).norm() > 0.1 * wanted.norm(), direction
