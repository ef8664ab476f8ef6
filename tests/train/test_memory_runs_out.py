"""A machine without memory for a row of usual length: training goes on with shorter rows, and ends with the same weights."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from r1cli.train import update
from r1cli.train.batches import MicroBatch, Sample
from r1cli.train.grpo import cut, train_on
from r1cli.train.on_policy import OnPolicyConfig, OnPolicyHooks, train_on_policy
from r1cli.train.optimiser import OptimiserConfig
from r1cli.train.sft import SftConfig, SftHooks, train_sft
from tests.train.runs import PROMPTS
from tests.train.toy import PAD, grpo_config, largest_difference, rollout_batch, tokens, weights

PLAIN = OptimiserConfig(lr=1.0, max_grad_norm=0.0)
BIG: dict[str, Any] = {"microbatch_tokens": 4096, "seed": 1, "pad_id": PAD, "optimiser": PLAIN}


def long_samples() -> list[Sample]:
    """Two prompts of 20 tokens with four completions of 50 each: rows of 220 positions."""
    rng = random.Random(7)
    prompts = [tokens(rng, 20, 20) for _ in range(2)]
    return [
        Sample(n, prompts[n // 4], tokens(rng, 50, 50), sampler_logprobs=[-6.0] * 50, advantage=(-1.0) ** n, key=(n // 4, n % 4))
        for n in range(8)
    ]


def grpo(accelerator: Any, policy: Any, other: Any, rule: Any) -> None:
    config = grpo_config(updates_per_rollout=2, steps=2, prompts_per_step=1, max_completion_length=((0, 50),))
    train_on(accelerator, policy, other, rule, rollout_batch(long_samples(), config), config)


def sft(accelerator: Any, policy: Any, other: Any, rule: Any) -> None:
    hooks = SftHooks(lambda record: None, lambda step: None)
    rows = [[sample] for sample in long_samples()]
    train_sft(accelerator, policy, rule, SftConfig(epochs=1, batch_rows=8, **BIG), rows=rows, hooks=hooks, held_out=long_samples())


def on_policy(accelerator: Any, policy: Any, other: Any, rule: Any) -> None:
    hooks = OnPolicyHooks(lambda rows, step: long_samples(), lambda: None, lambda record: None, lambda step: None)
    train_on_policy(accelerator, policy, other, rule, OnPolicyConfig(steps=1, prompts_per_step=2, **BIG), prompts=PROMPTS, hooks=hooks)


@pytest.mark.parametrize("train", [grpo, sft, on_policy], ids=["grpo", "sft", "on_policy"])
def test_rows_become_as_short_as_memory_wants(
    accelerator: Any, new_policy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, train: Callable[..., None]
) -> None:
    made: list[int] = []
    forward, room = update.forward, [10**6]

    def small(policy: Any, batch: MicroBatch) -> tuple[Tensor, ...]:
        if batch.input_ids_BT.numel() > room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.30 GiB")
        made.append(batch.input_ids_BT.numel())
        return forward(policy, batch)

    monkeypatch.setattr(update, "forward", small)
    ends = []
    for room[0] in (10**6, 150):
        policy, other = new_policy(), new_policy()
        with torch.no_grad():
            for weight in other.parameters():
                weight.mul_(1.05)
        made.clear()
        train(accelerator, policy, other, torch.optim.SGD(policy.parameters(), lr=1.0))
        assert (max(made) > 150) is (room[0] > 150)
        ends.append(weights(policy))
    assert largest_difference(*ends) < 1e-5 and largest_difference(ends[0], weights(new_policy())) > 1e-3


@pytest.mark.parametrize("size", [8192, 1024, 256])
def test_a_group_is_split_when_it_is_longer_than_a_micro_batch(size: int) -> None:
    group = [Sample(number, list(range(4, 44)), [7] * 110, key=(0, number)) for number in range(16)]
    made = [batch.input_ids_BT.numel() for batch in cut(group, size, grpo_config())]
    assert max(made) <= size and sum(made) <= 16 * 150
    assert len(made) == {8192: 1, 1024: 2, 256: 16}[size]
