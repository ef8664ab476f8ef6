"""The copy a model computes in follows the weights that the optimizer moves, whichever way they are moved."""

from pathlib import Path

import pytest
import torch

from r1cli.train.compute_copy import ComputeCopy
from r1cli.train.logprobs import Policy
from r1cli.train.model import load_policy
from r1cli.train.optimiser import OptimiserConfig, build_optimiser


@pytest.fixture
def policy(tiny: Path) -> Policy:
    return load_policy(str(tiny))


def same(copied: ComputeCopy) -> bool:
    return all(torch.equal(cast, weight.to(cast.dtype)) for weight, cast in copied.pairs)


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_of_the_optimizer_reaches_the_copy(policy: Policy, fused: bool) -> None:
    """A fused optimizer writes to the weights without telling autograd."""
    copied = ComputeCopy(policy.model, torch.bfloat16)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=0.1, fused=fused)
    for _ in range(2):
        for parameter in policy.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        assert not same(copied)
        copied.fresh()
        assert same(copied)


def test_the_optimizer_of_another_model_does_not(policy: Policy, tiny: Path) -> None:
    copied, other = ComputeCopy(policy.model, torch.bfloat16), load_policy(str(tiny))
    for parameter in other.parameters():
        parameter.grad = torch.ones_like(parameter)
    build_optimiser(other.parameters(), OptimiserConfig(lr=0.1)).step()
    assert not copied.stale


def test_loaded_weights_reach_the_copy(policy: Policy) -> None:
    copied = ComputeCopy(policy.model, torch.bfloat16)
    policy.load_state_dict({name: value + 1 for name, value in policy.state_dict().items()})
    copied.fresh()
    assert same(copied)


def test_gradients_add_up_in_the_float32_weights(policy: Policy) -> None:
    copied = ComputeCopy(policy.model, torch.bfloat16)
    ids = torch.arange(4, 20)[None]
    for _ in range(2):
        copied.fresh()(input_ids=ids).logits.float().logsumexp(-1).sum().backward()
    once = [weight.grad.clone() / 2 for weight, _ in copied.pairs if weight.grad is not None]
    policy.zero_grad()
    copied.fresh()(input_ids=ids).logits.float().logsumexp(-1).sum().backward()
    for half, weight in zip(once, [weight for weight, _ in copied.pairs if weight.grad is not None], strict=True):
        assert weight.grad is not None and weight.grad.dtype == torch.float32
        torch.testing.assert_close(half, weight.grad)
    assert all(cast.grad is None for _, cast in copied.pairs)


def test_a_process_group_of_one_changes_nothing(policy: Policy, tmp_path: Path) -> None:
    """vLLM in the process of a trainer starts torch.distributed; the trainer is alone all the same."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        assert policy._computing(torch.bfloat16) is not policy.model
    finally:
        torch.distributed.destroy_process_group()
