"""What is moved away between its uses is there when it is used, and nothing changes. A machine without a GPU has no second device: another
floating type stands for "elsewhere", which every float32 survives."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from r1cli.commands.lora_flags import PARTS as FLAG_PARTS
from r1cli.train.batches import collate, group_rows, micro_batches
from r1cli.train.grpo import train_on
from r1cli.train.model import frozen
from r1cli.train.offload import HOST, PARTS, OffloadedReference, OffloadedStates, moved, visiting
from r1cli.train.optimiser import OptimiserConfig, build_optimiser
from r1cli.train.reference import renew_reference
from r1cli.train.update import forward, measure
from tests.train.toy import PAD, group_samples, grpo_config, largest_difference, rollout_batch, weights

AWAY = torch.float64


def move(journal: list[str]) -> Callable[[Tensor, torch.device], Tensor]:
    """The first move of each pair goes away, the second comes back; both are noted."""

    def change(tensor: Tensor, device: torch.device) -> Tensor:
        coming = tensor.dtype == AWAY
        journal.append("back" if coming else "away")
        return tensor.to(torch.float32 if coming else AWAY)

    return change


def steps(policy: Any, rule: torch.optim.Optimizer, count: int = 3) -> None:
    for _ in range(count):
        rule.zero_grad()
        forward(policy, collate(group_rows(group_samples(groups=2, size=2)), PAD))[0].sum().backward()
        rule.step()


def test_states_are_away_between_steps_and_the_weights_are_the_same(new_policy: Callable[..., Any]) -> None:
    journal: list[str] = []
    ends = []
    for offloaded in (False, True):
        policy = new_policy()
        rule = build_optimiser(policy.parameters(), OptimiserConfig(lr=0.01))
        if offloaded:
            OffloadedStates(rule, move(journal))
        steps(policy, rule)
        moments = [state for states in rule.state.values() for state in states.values() if state.ndim]
        assert {state.dtype for state in moments} == ({AWAY} if offloaded else {torch.float32})
        ends.append(weights(policy))
    assert largest_difference(*ends) == 0.0
    many = len(moments)
    assert journal == ["away"] * many + (["back"] * many + ["away"] * many) * 2  # the first step makes its states where it runs


def test_states_that_were_loaded_go_away_before_the_next_step(new_policy: Callable[..., Any]) -> None:
    policy = new_policy()
    rule = build_optimiser(policy.parameters(), OptimiserConfig(lr=0.01))
    steps(policy, rule, 2)
    other = new_policy()
    other.load_state_dict(policy.state_dict())
    resumed = build_optimiser(other.parameters(), OptimiserConfig(lr=0.01))
    resumed.load_state_dict(copy.deepcopy(rule.state_dict()))
    states = OffloadedStates(resumed, move([]))
    states.rest()
    assert {state.dtype for each in resumed.state.values() for state in each.values() if state.ndim} == {AWAY}
    steps(policy, rule, 1)
    steps(other, resumed, 1)
    assert largest_difference(weights(policy), weights(other)) == 0.0


def test_a_reference_visits_for_its_measurements_only(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    journal: list[str] = []
    samples = group_samples(groups=2, size=2)
    rows = micro_batches(group_rows(samples), 4096, PAD)
    expected = measure(accelerator, frozen(new_policy()), rows)
    reference = OffloadedReference(frozen(new_policy()), torch.device("cpu"), move(journal))
    parts = len(list(reference.policy.parameters())) + len(list(reference.policy.buffers()))
    assert journal == ["away"] * parts
    with pytest.raises(ZeroDivisionError), visiting(reference):
        found = measure(accelerator, reference, rows)
        raise ZeroDivisionError
    assert all(torch.equal(found[index], expected[index]) for index in expected)
    assert journal == ["away"] * parts + ["back"] * parts + ["away"] * parts
    assert {weight.dtype for weight in reference.policy.parameters()} == {AWAY}


def test_a_step_of_grpo_is_the_same_and_a_renewal_reaches_the_reference(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    config = grpo_config(steps=2, epochs_per_rollout=2, optimiser=OptimiserConfig(lr=0.01, max_grad_norm=0.0))
    ends, figures, renewed = [], [], []
    for offloaded in (False, True):
        policy, plain = new_policy(), frozen(new_policy())
        reference: Any = OffloadedReference(plain, torch.device("cpu"), move([])) if offloaded else plain
        rule = torch.optim.SGD(policy.parameters(), lr=1.0)
        figures.append(train_on(accelerator, policy, reference, rule, rollout_batch(group_samples(groups=3, size=4), config), config))
        ends.append(weights(policy))
        renew_reference(accelerator, reference, policy)
        renewed.append({name: value.float() for name, value in weights(plain).items()})
    assert figures[0] == figures[1] and figures[0]["kl"] > 0
    assert largest_difference(*ends) == 0.0
    assert largest_difference(*renewed) == 0.0 == largest_difference(renewed[0], ends[0])


def test_the_reference_of_a_sharded_run_comes_back(new_policy: Callable[..., Any]) -> None:
    """Its state has each tensor once, a tied head under its first name only; it may be elsewhere when it is loaded."""
    policy, plain = new_policy(), frozen(new_policy())
    assert len(policy.state_dict()) > len(list(policy.named_parameters())), "the head is tied"
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.5)
    reference = OffloadedReference(plain, torch.device("cpu"), move([]))
    for state in (dict(policy.named_parameters()), policy.state_dict()):
        with torch.no_grad():
            for weight in plain.parameters():
                weight.zero_()
        reference.load_state_dict(state)
        assert {weight.dtype for weight in plain.parameters()} == {AWAY}
        assert largest_difference(weights(policy), {name: value.float() for name, value in weights(plain).items()}) == 0.0


def test_on_one_device_nothing_is_copied() -> None:
    tensor = torch.ones(3)
    assert moved(tensor, HOST) is tensor
    assert PARTS == FLAG_PARTS


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_states_lie_in_pinned_memory(new_policy: Callable[..., Any]) -> None:
    weight = torch.nn.Parameter(torch.ones(8, 8, device="cuda"))
    rule = torch.optim.AdamW([weight], fused=True)
    OffloadedStates(rule)
    for _ in range(2):
        weight.grad = torch.ones_like(weight)
        rule.step()
    moment = rule.state[weight]["exp_avg"]
    assert moment.device.type == "cpu" and moment.is_pinned() and weight.is_cuda
