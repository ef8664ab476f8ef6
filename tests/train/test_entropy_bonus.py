"""The entropy has a gradient of its own: equal to that of all logits, alone and beside the log-probabilities'."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from r1cli.train.batches import collate, group_rows
from r1cli.train.update import forward
from tests.train.toy import PAD, group_samples


@pytest.mark.parametrize("softcap", [0.0, 4.0])
@pytest.mark.parametrize("chunk", [5, 1024])
@pytest.mark.parametrize("both", [True, False])
def test_the_gradient_equals_that_of_all_logits(new_policy: Callable[..., Any], both: bool, chunk: int, softcap: float) -> None:
    batch = collate(group_rows(group_samples(groups=1, size=3)), PAD)
    weight_N = torch.linspace(-1.0, 1.0, len(batch.target_N))
    bonus_N = torch.linspace(0.5, -0.3, len(batch.target_N))

    policy = new_policy(temperature=0.7)
    policy.shape = dataclasses.replace(policy.shape, chunk=chunk, softcap=softcap)
    logprobs_N, entropies_N = forward(policy, batch)
    ((logprobs_N * weight_N).sum() * both + (entropies_N * bonus_N).sum()).backward()

    plain = new_policy()
    logits_NV = plain.model(
        input_ids=batch.input_ids_BT, position_ids=batch.position_ids_BT, attention_mask=batch.attention_mask
    ).logits.flatten(0, 1)[batch.source_N]
    logits_NV = softcap * torch.tanh(logits_NV / softcap) if softcap else logits_NV
    all_NV = torch.log_softmax(logits_NV / 0.7, -1)
    expected_N = all_NV.gather(-1, batch.target_N[:, None]).squeeze(-1)
    ((expected_N * weight_N).sum() * both - (all_NV.exp() * all_NV).sum(-1) @ bonus_N).backward()
    for (name, one), (_, other) in zip(policy.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=2e-5, rtol=1e-4), name


def test_the_entropy_alone_has_a_gradient(new_policy: Callable[..., Any]) -> None:
    policy = new_policy()
    forward(policy, collate(group_rows(group_samples(groups=1, size=2)), PAD))[1].sum().backward()
    assert policy.model.get_output_embeddings().weight.grad.abs().max() > 0
