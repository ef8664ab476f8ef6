"""The GRPO objective of a micro-batch by hand: what it measures, and which completions can move the weights."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from r1cli.train.batches import Sample, collate, group_rows
from r1cli.train.grpo import train_on
from r1cli.train.losses import StepCounts
from r1cli.train.objective import Objective, gives_gradient
from tests.train.toy import PAD, group_samples, grpo_config, largest_difference, rollout_batch, weights

SAMPLER = [-1.0, -2.0, -3.0, -4.0]
TOKENS = 8  # completion tokens of the step; the other four are in another micro-batch


def measured(policy: list[float], *, advantage: float = 1.0, old: list[float] | None = None, **changes: Any) -> dict[str, float]:
    """What the objective measures on a completion of four tokens, by the log-probabilities that policy and old policy give them."""
    sample = Sample(0, [5, 6], [7, 8, 9, 10], sampler_logprobs=SAMPLER, advantage=advantage)
    before: dict[int, Tensor] = {} if old is None else {0: torch.tensor(old)}
    reference = {0: torch.tensor(policy) + 0.1}
    objective = Objective(grpo_config(**changes), StepCounts(2, TOKENS, 16), before, reference, idle=False, microbatches=1)
    _, figures = objective(collate(group_rows([sample]), PAD), torch.tensor(policy), torch.tensor([0.5, 1.0, 1.5, 3.0]))
    return {name: float(value) for name, value in figures.items()}


def test_the_mismatch_is_between_the_sampler_and_the_policy_that_it_sampled_for() -> None:
    """After an update the policy is another one; that is not the sampler's doing."""
    found = measured([value + 0.3 for value in SAMPLER], old=SAMPLER)
    assert found["sampler_mismatch"] == 0.0 and found["importance_weight"] == pytest.approx(4 / TOKENS)
    found = measured(SAMPLER, old=[value + 0.1 for value in SAMPLER])
    assert found["sampler_mismatch"] == pytest.approx(4 / TOKENS * 0.005171, rel=1e-3)  # exp(0.1) - 1 - 0.1
    assert found["importance_weight"] == pytest.approx(4 / TOKENS * 1.105171)


def test_figures_are_shares_of_all_tokens_of_the_step() -> None:
    """Two of the four ratios leave [0.9, 1.2]; below it only a bad token is silenced, above it only a good one."""
    ratios = torch.tensor([0.85, 1.0, 1.1, 1.3]).log()
    policy = (torch.tensor(SAMPLER) + ratios).tolist()
    good, bad = (measured(policy, advantage=sign, old=SAMPLER, clip_low=0.1) for sign in (1.0, -1.0))
    assert good["clip_fraction"] == bad["clip_fraction"] == 1 / TOKENS
    assert measured([value + 0.3 for value in SAMPLER], old=SAMPLER)["clip_fraction"] == 4 / TOKENS
    assert good["entropy"] == 6.0 / TOKENS and good["trained_share"] == 4 / TOKENS
    assert good["kl"] == pytest.approx(4 / TOKENS * 0.005171, rel=1e-3)  # the reference finds every token 0.1 nats likelier


@pytest.mark.parametrize(
    ("advantage", "truncated", "changes", "moves"),
    [
        (1.0, False, {}, True),
        (0.0, False, {}, False),
        (0.0, False, {"beta": 0.1}, True),
        (0.0, False, {"entropy_coef": 0.1}, True),
        (0.0, False, {"entropy_coef": -0.1}, True),
        (1.0, True, {"beta": 0.1, "entropy_coef": 0.1}, False),
        (1.0, True, {"mask_truncated": False}, True),
    ],
)
def test_what_can_move_the_weights(advantage: float, truncated: bool, changes: dict[str, Any], moves: bool) -> None:
    sample = Sample(0, [5], [6], advantage=advantage, truncated=truncated)
    assert gives_gradient(sample, grpo_config(**{"beta": 0.0, **changes})) is moves


def test_an_entropy_bonus_alone_moves_the_weights(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    samples = [dataclasses.replace(sample, advantage=0.0) for sample in group_samples(groups=1, size=2)]
    policy, config = new_policy(), grpo_config(beta=0.0, entropy_coef=0.1)
    figures = train_on(accelerator, policy, None, torch.optim.SGD(policy.parameters()), rollout_batch(samples, config), config)
    assert figures["updates"] == 1.0 and largest_difference(weights(policy), weights(new_policy())) > 1e-4


def test_dr_grpo_divides_by_the_limit_that_its_rollout_was_drawn_under(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    """`--max-completion-length 16,32@4`: from step 5 on a token weighs half of what it did."""
    config, moves = grpo_config(loss="dr_grpo", beta=0.0, max_completion_length=((0, 16), (4, 32))), []
    for limit in (16, 32):
        policy = new_policy()
        before = weights(policy)
        batch = dataclasses.replace(rollout_batch(group_samples(groups=3, size=4), config), limit=limit)
        train_on(accelerator, policy, None, torch.optim.SGD(policy.parameters()), batch, config)
        moves.append({name: value - before[name] for name, value in weights(policy).items()})
    halved = {name: value / 2 for name, value in moves[0].items()}
    assert largest_difference(halved, moves[1]) < 1e-5 < 1e-3 < largest_difference(*moves)
