"""One update is the same update however it is cut: into micro-batches, into rows, or over processes (`test_processes.py`)."""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from r1cli.errors import R1Error
from r1cli.train import grpo
from r1cli.train.batches import PADDING, Sample
from r1cli.train.grpo import train_on
from r1cli.train.grpo_config import GrpoConfig, Prompts
from r1cli.train.optimiser import OptimiserConfig
from r1cli.train.sft import SftConfig, SftHooks, train_sft
from tests.train.toy import PAD, group_samples, grpo_config, largest_difference, plain_logprobs, rollout_batch, weights

INVARIANT = ["grpo", "dr_grpo", "dapo", "gspo", "cispo"]


def one_step(accelerator: Any, new_policy: Callable[..., Any], config: GrpoConfig, samples: list[Sample]) -> dict[str, torch.Tensor]:
    """Weights after one step of plain gradient descent with rate 1: the start minus the gradient."""
    policy, reference = new_policy(), new_policy()
    with torch.no_grad():  # a reference that is somewhere else, so that the KL has a gradient
        for parameter in reference.parameters():
            parameter.mul_(1.05)
    train_on(accelerator, policy, reference, torch.optim.SGD(policy.parameters(), lr=1.0), rollout_batch(samples, config), config)
    return weights(policy)


OPTIONS: list[dict[str, Any]] = [
    *({"loss": loss} for loss in INVARIANT),
    {"importance": "geometric", "importance_rule": "mask", "importance_floor": 0.01, "importance_cap": 50.0},
    {"importance": "sequence", "importance_cap": 2.0},
    {"entropy_coef": 0.5, "loss": "dapo"},
    {"kl": "k1", "kl_correction": True},
    {"kl": "k2"},
    {"clip_cap": 3.0, "mask_truncated": False},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(f"{name}={value}" for name, value in options.items()))
def test_micro_batches_and_rows_do_not_change_the_gradient(
    accelerator: Any, new_policy: Callable[..., Any], options: dict[str, Any]
) -> None:
    samples = group_samples(groups=3, size=4)
    assert len(grpo.cut(samples, 4096, grpo_config(**options))) == 1
    whole = one_step(accelerator, new_policy, grpo_config(**options), samples)
    moved = largest_difference(whole, weights(new_policy()))
    assert moved > 1e-3  # something was learnt at all
    for tokens, pack_length, rows in ((30, 10_000, None), (1, 10_000, 12), (4096, 1, 12), (60, 30, None)):
        config = grpo_config(microbatch_tokens=tokens, pack_length=pack_length, **options)
        batches = grpo.cut(samples, tokens, config)
        made = sum(len(batch.input_ids_BT) for batch in batches)
        assert made == rows if rows else 3 < made < 12  # some completions share a row, not all of a prompt
        assert len(batches) > 1 or tokens == 4096
        cut = one_step(accelerator, new_policy, config, samples)
        assert largest_difference(whole, cut) < 2e-6 * max(1.0, moved), (tokens, pack_length)


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo"])
def test_the_gradient_is_the_formula(accelerator: Any, new_policy: Callable[..., Any], loss: str) -> None:
    """The objective written down once more, completion by completion, over plain logits."""
    samples = group_samples(groups=2, size=3)
    config = grpo_config(loss=loss, importance_cap=2.0)
    found = one_step(accelerator, new_policy, config, samples)

    policy, reference = new_policy(), new_policy()
    active = [s for s in samples if not s.truncated]
    tokens = sum(len(s.completion_ids) for s in active)
    total = torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.mul_(1.05)
    for sample in active:
        logprobs, _ = plain_logprobs(policy.model, sample)
        with torch.no_grad():
            reference_logprobs, _ = plain_logprobs(reference.model, sample)
            trust = (logprobs - torch.tensor(sample.sampler_logprobs)).exp().clamp(max=2.0)
        ratio = (logprobs - logprobs.detach()).exp()
        d = logprobs - reference_logprobs
        per_token = -trust * ratio * sample.advantage + config.beta * (torch.exp(-d) - 1 + d)
        divisor = {"grpo": len(per_token) * len(samples), "dr_grpo": len(samples) * 16, "dapo": tokens}[loss]
        total = total + per_token.sum() / divisor
    total.backward()
    expected = {name: value.detach() - value.grad for name, value in policy.named_parameters()}
    assert largest_difference(found, expected) < 5e-6


def test_silent_and_truncated_completions_count_in_the_divisor_only(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    samples = group_samples(groups=2, size=4)
    config = grpo_config(beta=0.0)
    found = one_step(accelerator, new_policy, config, samples)
    loud = [s for s in samples if s.advantage and not s.truncated]
    assert 0 < len(loud) < len(samples)
    alone = one_step(accelerator, new_policy, config, loud)
    start = weights(new_policy())
    share = len(loud) / len(samples)  # "grpo" divides by the number of completions
    for name in start:
        assert torch.allclose(found[name] - start[name], (alone[name] - start[name]) * share, atol=2e-6)


def test_nothing_to_learn_moves_nothing(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    samples = [dataclasses.replace(s, advantage=0.0) for s in group_samples(groups=2, size=2)]
    policy = new_policy()
    before = weights(policy)
    config = grpo_config(beta=0.0)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=0.1, weight_decay=0.1)
    figures = train_on(accelerator, policy, None, optimizer, rollout_batch(samples, config), config)
    assert figures == {"updates": 0.0} and largest_difference(before, weights(policy)) == 0.0


def test_what_gives_no_gradient_takes_no_training_pass(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    """Groups with equal rewards, and truncated completions, are left out of the passes; with a KL the former are needed."""
    silent = [dataclasses.replace(s, advantage=0.0) for s in group_samples(groups=3, size=4)]
    loud = [dataclasses.replace(s, advantage=1.0, truncated=s.index == 1) for s in silent[:4]]
    samples, positions = [*loud, *silent[4:]], []
    for beta in (0.0, 0.1):
        policy, config = new_policy(), grpo_config(beta=beta)
        policy.register_forward_pre_hook(lambda module, given: positions.append(int((given[2] != PADDING).sum())))
        rule = torch.optim.SGD(policy.parameters(), lr=0.1)
        train_on(accelerator, policy, new_policy() if beta else None, rule, rollout_batch(samples, config), config)
    assert len(positions) == 2
    assert positions[0] == len(samples[0].prompt_ids) + sum(len(s.completion_ids) for s in (samples[0], *samples[2:4]))
    assert positions[1] > 2 * positions[0]


@pytest.mark.parametrize("updates", [1, 3])
def test_the_first_ratio_is_one_and_later_ones_are_not(accelerator: Any, new_policy: Callable[..., Any], updates: int) -> None:
    samples = group_samples(groups=3, size=4)
    policy = new_policy()
    rate = OptimiserConfig(lr=1e-3, max_grad_norm=0.0)
    config = grpo_config(steps=updates, epochs_per_rollout=updates, clip_low=1e-4, clip_high=1e-4, importance_cap=0.0, optimiser=rate)
    rule = torch.optim.SGD(policy.parameters(), lr=1.0)
    figures = train_on(accelerator, policy, new_policy(), rule, rollout_batch(samples, config), config)
    assert figures["updates"] == updates and figures["importance_weight"] == pytest.approx(1.0)
    assert (figures["clip_fraction"] > 0) is (updates > 1)


def test_an_sft_row_weighs_the_same_packed_and_alone(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    rows = [[sample] for sample in group_samples(groups=4, size=2)]
    plain = new_policy().model
    tokens = sum(len(row[0].completion_ids) for row in rows)
    expected = -sum(plain_logprobs(plain, row[0])[0].sum().item() for row in rows) / tokens
    ends = []
    for pack_length, microbatch_tokens in ((1, 4096), (1, 1), (10_000, 4096), (40, 80)):
        policy, log = new_policy(), []  # type: ignore[var-annotated]
        config = SftConfig(
            epochs=1,
            batch_rows=len(rows),
            microbatch_tokens=microbatch_tokens,
            seed=0,
            pad_id=PAD,
            pack_length=pack_length,
            optimiser=OptimiserConfig(lr=1.0, max_grad_norm=0.0),
        )
        rule = torch.optim.SGD(policy.parameters(), lr=1.0)
        train_sft(accelerator, policy, rule, config, rows=rows, hooks=SftHooks(log.append, lambda step: None))
        assert log[0]["loss"] == pytest.approx(expected, abs=1e-5) and log[0]["tokens"] == tokens
        ends.append(weights(policy))
    assert all(largest_difference(ends[0], end) < 2e-6 for end in ends[1:])


def test_bnpo_is_the_mean_over_its_micro_batches(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    """Four copies of one completion: the mean of four equal means is the mean."""
    loud = next(s for s in group_samples(groups=1, size=4) if s.advantage and not s.truncated)
    copies = [dataclasses.replace(loud, index=index) for index in range(4)]
    whole = one_step(accelerator, new_policy, grpo_config(loss="bnpo", pack_length=1), copies)
    cut = one_step(accelerator, new_policy, grpo_config(loss="bnpo", pack_length=1, microbatch_tokens=1), copies)
    assert largest_difference(whole, cut) < 2e-6


def test_more_processes_than_prompts_are_refused() -> None:
    hooks = grpo.Hooks(lambda rows, draw: [], lambda rows, step: rows, lambda: None, lambda *_: None, lambda progress: None)
    crowd = SimpleNamespace(num_processes=4)
    with pytest.raises(R1Error, match="4 processes cannot share 3 prompts"):
        grpo.train_grpo(crowd, None, None, None, grpo_config(prompts_per_step=3), prompts=Prompts([(0, [])]), hooks=hooks)
