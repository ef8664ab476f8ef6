"""The objectives against numbers worked out by hand.

The example of the divisors: two completions of 1 and 3 tokens, all counted, of a step with 4 completions, 10 tokens and a limit of 8.
"""

import math

import pytest
import torch

from r1cli.train.losses import StepCounts, clipped_loss, kl_estimate, log_ratio, sequence_mean, token_weights

COUNTS = StepCounts(sequences=4, tokens=10, max_completion_length=8)
SEQUENCE = torch.tensor([0, 1, 1, 1])
LENGTHS = torch.tensor([1, 3])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("grpo", [1 / 4, 1 / 12, 1 / 12, 1 / 12]),  # 1 / (its length x 4 completions)
        ("gspo", [1 / 4, 1 / 12, 1 / 12, 1 / 12]),
        ("dr_grpo", [1 / 32] * 4),  # 1 / (4 completions x limit 8)
        ("dapo", [1 / 10] * 4),
        ("cispo", [1 / 10] * 4),
        ("bnpo", [1 / 4] * 4),  # of the four tokens here
    ],
)
def test_divisors(kind: str, expected: list[float]) -> None:
    assert token_weights(kind, COUNTS, LENGTHS, SEQUENCE, torch.ones(4)).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["grpo", "gspo", "dr_grpo", "dapo", "cispo", "bnpo"])
def test_masked_tokens_weigh_nothing(kind: str) -> None:
    weights = token_weights(kind, COUNTS, LENGTHS, SEQUENCE, torch.tensor([1, 0, 1, 0]))
    assert (weights[[1, 3]] == 0).all() and (weights[[0, 2]] > 0).all()


def test_bnpo_averages_over_its_micro_batches() -> None:
    assert token_weights("bnpo", COUNTS, LENGTHS, SEQUENCE, torch.ones(4), microbatches=5).tolist() == pytest.approx([1 / 20] * 4)


def test_an_unknown_loss_or_estimate_is_refused() -> None:
    with pytest.raises(ValueError, match="known: grpo"):
        token_weights("ppo", COUNTS, LENGTHS, SEQUENCE, torch.ones(4))
    with pytest.raises(ValueError, match="known: k1"):
        kl_estimate(torch.zeros(1), torch.zeros(1), "k4")


@pytest.mark.parametrize(("kind", "expected"), [("k1", 0.1), ("k2", 0.005), ("k3", 0.004837)])
def test_kl_estimates_at_a_tenth(kind: str, expected: float) -> None:
    assert kl_estimate(torch.tensor([-1.0]), torch.tensor([-1.1]), kind).item() == pytest.approx(expected, abs=5e-7)


def test_k3_is_never_negative_and_its_gradient_vanishes_at_the_reference() -> None:
    reference = torch.tensor([-3.0, -1.0, -0.2])
    assert (kl_estimate(reference + torch.tensor([-1e-4, 1e-4, 2.0]), reference) >= 0).all()
    policy = reference.clone().requires_grad_()
    kl_estimate(policy, reference).sum().backward()
    assert policy.grad is not None and policy.grad.tolist() == [0.0, 0.0, 0.0]


def clipped(kind: str, ratio: float, advantage: float, low: float, high: float) -> tuple[float, float, bool]:
    """(loss, its gradient with respect to the log-probability, silenced?) of one token whose old log-probability is -2."""
    policy = torch.tensor([-2.0 + math.log(ratio)], requires_grad=True)
    advantages = torch.tensor([advantage])
    loss, silenced = clipped_loss(kind, policy - torch.tensor([-2.0]), policy, advantages, clip_low=low, clip_high=high)
    loss.sum().backward()
    assert policy.grad is not None
    return loss.item(), policy.grad.item(), bool(silenced.item())


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.1, 2.0, -2.2, -2.2),  # inside
        (1.5, 2.0, -2.4, 0.0),  # above, good: held at 1.2
        (1.5, -2.0, 3.0, 3.0),  # above, bad: not held
        (0.5, 2.0, -1.0, -1.0),  # below, good: not held
        (0.5, -2.0, 1.6, 0.0),  # below, bad: held at 0.8
    ],
)
def test_the_clip(ratio: float, advantage: float, loss: float, gradient: float) -> None:
    found = clipped("grpo", ratio, advantage, 0.2, 0.2)
    assert found[:2] == pytest.approx((loss, gradient), rel=1e-5)
    assert found[2] is (gradient == 0.0)


def test_with_eps_10_only_the_cap_of_11_binds_and_only_for_good_tokens() -> None:
    assert clipped("grpo", 1e-6, -1.0, 10.0, 10.0) == (pytest.approx(1e-6), pytest.approx(1e-6), False)
    assert clipped("grpo", 12.0, 1.0, 10.0, 10.0) == (pytest.approx(-11.0), 0.0, True)
    assert clipped("grpo", 12.0, -1.0, 10.0, 10.0) == (pytest.approx(12.0, rel=1e-5), pytest.approx(12.0, rel=1e-5), False)


@pytest.mark.parametrize(
    ("ratio", "advantage", "low", "high", "silenced"),
    [(0.8, -1.0, 0.1, 0.5, True), (0.8, -1.0, 0.5, 0.1, False), (1.2, 1.0, 0.1, 0.5, False), (1.2, 1.0, 0.5, 0.1, True)],
)
def test_each_side_of_the_clip_has_its_own_bound(ratio: float, advantage: float, low: float, high: float, silenced: bool) -> None:
    loss, gradient, found = clipped("grpo", ratio, advantage, low, high)
    held = {0.8: 0.9, 1.2: 1.1}[ratio] if silenced else ratio
    assert (loss, gradient) == pytest.approx((-held * advantage, 0.0 if silenced else -ratio * advantage)) and found is silenced


def test_cispo_caps_the_weight_and_keeps_the_gradient() -> None:
    assert clipped("cispo", 1.1, 2.0, 0.2, 0.2)[1] == pytest.approx(-2.2, rel=1e-5)
    loss, gradient, silenced = clipped("cispo", 3.0, 2.0, 0.2, 0.5)
    assert gradient == pytest.approx(-1.5 * 2.0) and silenced
    assert loss == pytest.approx(-1.5 * 2.0 * (-2.0 + math.log(3.0)), rel=1e-5)


def test_the_ratio_of_gspo_is_the_geometric_mean_of_its_sequence() -> None:
    policy = torch.tensor([-1.0, -1.0, -2.0, -3.0], requires_grad=True)
    old = torch.tensor([-1.5, -1.3, -2.0, -3.6])
    found = log_ratio("gspo", policy, old, SEQUENCE, torch.ones(4), 2)
    assert found.tolist() == pytest.approx([0.5, 0.3, 0.3, 0.3])  # (0.3 + 0 + 0.6) / 3
    found[1].backward()
    assert policy.grad is not None and policy.grad.tolist() == pytest.approx([0.0, 1 / 3, 1 / 3, 1 / 3])
    assert log_ratio("grpo", policy, old, SEQUENCE, torch.ones(4), 2).tolist() == pytest.approx([0.5, 0.3, 0.0, 0.6])


def test_sequence_mean_leaves_out_masked_tokens() -> None:
    values = torch.tensor([5.0, 1.0, 2.0, 9.0])
    assert sequence_mean(values, SEQUENCE, torch.tensor([0.0, 1.0, 1.0, 0.0]), 2).tolist() == [0.0, 1.5]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (2.5, -2.0, 5.0, 5.0),  # above the clip, bad, below the cap: not held
        (4.0, -2.0, 6.0, 0.0),  # above the cap of 3: held at it
        (4.0, 2.0, -2.4, 0.0),  # good: the clip of 1.2 holds first
        (0.5, -2.0, 1.6, 0.0),
    ],
)
def test_the_cap_holds_bad_tokens_too(ratio: float, advantage: float, loss: float, gradient: float) -> None:
    policy = torch.tensor([math.log(ratio)], requires_grad=True)
    value, silenced = clipped_loss("grpo", policy * 1, policy, torch.tensor([advantage]), clip_low=0.2, clip_high=0.2, clip_cap=3.0)
    value.sum().backward()
    assert policy.grad is not None
    assert (value.item(), policy.grad.item()) == pytest.approx((loss, gradient), rel=1e-5)
    assert bool(silenced.item()) is (gradient == 0.0)


def test_the_corrected_kl_has_the_gradient_of_the_reverse_kl() -> None:
    """Over a whole vocabulary the expected gradient of k3 times the ratio is that of KL(policy || reference), worked out by autograd.

    Without the ratio it is that of the forward KL, and of k1 it is zero: what `--kl-correction` is for.
    """
    torch.manual_seed(0)
    logits_V, reference_V = torch.randn(7, requires_grad=True), torch.randn(7).log_softmax(0)
    logprobs_V = logits_V.log_softmax(0)
    (exact,) = torch.autograd.grad((logprobs_V.exp() * (logprobs_V - reference_V)).sum(), logits_V, retain_graph=True)
    old_V = logprobs_V.detach()
    ratio_V = (logprobs_V - old_V).exp()

    def expected(kind: str, weight_V: torch.Tensor) -> torch.Tensor:
        estimate_V = kl_estimate(logprobs_V, reference_V, kind) * weight_V
        return torch.autograd.grad((old_V.exp() * estimate_V).sum(), logits_V, retain_graph=True)[0]

    ones_V = torch.ones(7)
    assert torch.allclose(expected("k3", ratio_V), exact, atol=1e-6) and torch.allclose(expected("k1", ratio_V), exact, atol=1e-6)
    assert expected("k1", ones_V).abs().max() < 1e-6
    assert torch.allclose(expected("k2", ones_V), exact, atol=1e-6)
    forward = logprobs_V.exp().detach() - reference_V.exp()
    assert torch.allclose(expected("k3", ones_V), forward, atol=1e-6) and not torch.allclose(forward, exact, atol=1e-2)
