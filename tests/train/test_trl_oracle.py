"""TRL 1.16's advantages, loss and gradient, recorded by tests/oracles/record_trl_grpo.py, and ours for the same weights and batch."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from r1cli.row import Row
from r1cli.train.batches import group_rows, micro_batches
from r1cli.train.grpo_config import GrpoConfig
from r1cli.train.logprobs import Policy
from r1cli.train.objective import Objective, count, gives_gradient
from r1cli.train.optimiser import OptimiserConfig
from r1cli.train.progress import Rollout
from r1cli.train.rollout import groups_of, with_advantages
from r1cli.train.update import forward, measure
from tests.oracles.problem import (
    CASES,
    COMPLETIONS,
    END,
    GROUP_SIZE,
    LIMIT,
    PAD,
    PROMPTS,
    REWARDS,
    TEMPERATURE,
    Case,
    fingerprint,
    move,
    question,
    small_model,
    statement,
)

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "trl_grpo.json").read_text("utf-8"))
TOLERANCE = 1e-4


def config_of(case: Case) -> GrpoConfig:
    values: dict[str, Any] = {
        "steps": 1,
        "prompts_per_step": len(PROMPTS),
        "group_size": GROUP_SIZE,
        "max_completion_length": ((0, LIMIT),),
        "microbatch_tokens": 4096,
        "seed": 0,
        "pad_id": PAD,
        "optimiser": OptimiserConfig(lr=1.0),
        "beta": 0.0,
        "importance_cap": 0.0,
    }
    return GrpoConfig(**{**values, **case.ours})


def rollouts(sampler: list[list[float]]) -> tuple[list[Rollout], list[Row]]:
    made = []
    for number, completion in enumerate(COMPLETIONS):
        finish = "stop" if completion[-1] == END else "length"
        row = Row({"id": number // GROUP_SIZE, "finish_reason": finish, "reward": REWARDS[number]})
        made.append(Rollout(row, PROMPTS[number // GROUP_SIZE], completion, sampler[number]))
    return made, [rollout.row for rollout in made]


def loss_and_gradient(accelerator: Any, case: Case, recorded: dict[str, Any], tokens: int) -> tuple[float, dict[str, Any], list[float]]:
    """Our loss (the sum over micro-batches of at most `tokens`), gradient and advantages."""
    config = config_of(case)
    policy = Policy(small_model(), temperature=TEMPERATURE)
    sampler = recorded.get("sampler_logprobs", [[0.0] * len(ids) for ids in COMPLETIONS])
    samples, _ = with_advantages(accelerator, groups_of(*rollouts(sampler), GROUP_SIZE), config)
    useful = [sample for sample in samples if gives_gradient(sample, config)]
    batches = micro_batches(group_rows(useful), tokens, PAD)
    old = {} if case.same_policy else measure(accelerator, policy, batches)
    reference = measure(accelerator, policy, batches) if config.beta else {}
    if not case.same_policy:
        move(policy.model)
    counts = count(accelerator, samples, config, LIMIT)
    assert counts is not None
    objective = Objective(config, counts, old, reference, idle=False, microbatches=len(batches))
    total = 0.0
    for batch in batches:
        loss, _ = objective(batch, *forward(policy, batch))
        loss.backward()
        total += loss.item()
    gradients = {name: parameter.grad for name, parameter in policy.model.named_parameters()}
    return total, fingerprint(gradients), [sample.advantage for sample in samples]


def agree(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> float:
    """Largest difference of a projection or a norm, relative to the norm of the parameter's gradient."""
    assert ours.keys() == theirs.keys()
    return max(abs(a - b) / max(theirs[name][0], 1e-9) for name in theirs for a, b in zip(ours[name], theirs[name], strict=True))


@pytest.mark.parametrize("tokens", [4096, 1], ids=["one micro-batch", "one row each"])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_loss_and_the_gradient_are_trls(accelerator: Any, case: Case, tokens: int) -> None:
    if case.trl["loss_type"] == "bnpo" and tokens == 1:
        pytest.skip("bnpo changes with the micro-batches by definition")
    recorded = RECORDED["cases"][case.name]
    loss, gradient, advantages = loss_and_gradient(accelerator, case, recorded, tokens)
    assert advantages == pytest.approx(recorded["advantages"], rel=1e-5, abs=1e-6)
    assert loss == pytest.approx(recorded["loss"], rel=TOLERANCE, abs=1e-6)
    assert agree(gradient, recorded["gradient"]) < TOLERANCE


@pytest.mark.parametrize("change", [{"clip_high": 3.0}, {"loss": "dapo"}, {"mask_truncated": False}, {"beta": 0.01}])
def test_a_different_objective_is_not_trls(accelerator: Any, change: dict[str, Any]) -> None:
    """The comparison can fail: each of these moves the gradient by far more than the tolerance."""
    case = CASES[0]
    other = dataclasses.replace(case, ours={**case.ours, **change})
    recorded = RECORDED["cases"][case.name]
    assert agree(loss_and_gradient(accelerator, other, recorded, 4096)[1], recorded["gradient"]) > 100 * TOLERANCE


def same_problem(recorded: dict[str, Any]) -> None:
    """What was recorded was recorded for the problem as it is: rows and numbers to the digit, weights (a formula) to rounding."""
    own = statement()
    assert {**recorded, "weights": None} == {**own, "weights": None}
    assert agree(own["weights"], recorded["weights"]) < 1e-6


def test_what_was_recorded_is_what_the_script_would_record() -> None:
    """The script itself needs TRL; that nothing it asks was changed since can be said without."""
    assert RECORDED["made_with"]["trl"] == "1.16.0"
    same_problem(RECORDED["problem"])
    assert {name: found["asked"] for name, found in RECORDED["cases"].items()} == {case.name: question(case) for case in CASES}
    assert torch.tensor(RECORDED["cases"]["grpo"]["advantages"]).abs().min() > 0.01  # no completion is silent
    losses = [found["loss"] for found in RECORDED["cases"].values()]
    assert len(set(losses)) > 0.9 * len(losses)  # and the cases differ
