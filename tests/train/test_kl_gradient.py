"""The gradient of each estimate of the KL as a loss, exactly, over a small vocabulary: the table of docs/grpo.md."""

import pytest
import torch
from torch import Tensor

from r1cli.train.batches import Sample, collate, group_rows
from r1cli.train.losses import LOSSES, StepCounts, kl_estimate
from r1cli.train.objective import Objective
from tests.train.toy import PAD, grpo_config

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


def gradient_of_kl(loss: str, kl: str, *, old: list[float], sampler: list[float], lag: int = 0) -> list[float]:
    """Of the KL part of an objective with the correction, by each token's log-probability: with `beta` less without it."""
    found = []
    for beta in (BETA, 0.0):
        policy_N = torch.tensor([-1.0, -2.0, -3.0, -1.5], requires_grad=True)
        sample = Sample(0, [5, 6], [7, 8, 9, 10], sampler_logprobs=sampler, advantage=1.0)
        wide = {"clip_low": 9.0, "clip_high": 9.0, "importance_cap": 9.0}
        config = grpo_config(loss=loss, kl=kl, beta=beta, kl_correction=True, rollout_lag=lag, **wide)
        reference = {0: torch.tensor([-1.3, -1.5, -2.0, -2.5])} if beta else {}
        objective = Objective(config, StepCounts(1, 4, 4), {0: torch.tensor(old)}, reference, idle=False, microbatches=1)
        value, _ = objective(collate(group_rows([sample]), PAD), policy_N, torch.zeros(4))
        found.append(torch.autograd.grad(value, policy_N)[0])
    return (found[0] - found[1]).tolist()


SAME = [-1.0, -2.0, -3.0, -1.5]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kl", ["k1", "k3"])
def test_the_ratio_in_front_of_the_kl_is_each_tokens_whatever_the_loss(loss: str, kl: str) -> None:
    """Also where the objective's ratio is that of a sequence: its mean would make the KL of a long completion vanish."""
    old = [-1.2, -1.9, -3.3, -1.4]
    assert gradient_of_kl(loss, kl, old=old, sampler=old) == pytest.approx(gradient_of_kl("grpo", kl, old=old, sampler=old), abs=1e-6)


def test_with_a_rollout_drawn_ahead_the_kl_is_of_older_weights_too() -> None:
    """At policy = old the gradient of a token is weighed by pi / pi_sampler."""
    sampler = [value - shift for value, shift in zip(SAME, (0.0, 0.1, 0.5, -0.2), strict=True)]
    straight, lagging = (gradient_of_kl("grpo", "k1", old=SAME, sampler=sampler, lag=lag) for lag in (0, 1))
    wanted = [value * float(torch.tensor(shift).exp()) for value, shift in zip(straight, (0.0, 0.1, 0.5, -0.2), strict=True)]
    assert lagging == pytest.approx(wanted, rel=1e-5) and straight == pytest.approx(
        gradient_of_kl("grpo", "k1", old=SAME, sampler=SAME), abs=1e-6
    )
