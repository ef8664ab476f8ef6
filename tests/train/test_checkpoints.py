"""What a run takes over from a checkpoint, and what it does not."""

import json
from pathlib import Path
from typing import Any

import torch

from r1cli.model_folder import load_tokenizer
from r1cli.train.checkpoints import load_state, save_model, save_state
from r1cli.train.model import load_policy
from r1cli.train.optimiser import OptimiserConfig, build_optimiser
from tests.tiny import tiny_model


def optimizer_of(**changes: Any) -> tuple[list[torch.nn.Parameter], torch.optim.AdamW]:
    """The optimizer of a matrix and a vector, of which only the matrix decays."""
    weights = [torch.nn.Parameter(torch.linspace(1, 2, 6).view(2, 3)), torch.nn.Parameter(torch.linspace(-1, 1, 3))]
    return weights, build_optimiser(weights, OptimiserConfig(lr=0.1, **changes))


def step(weights: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, gradient: float) -> None:
    for weight in weights:
        weight.grad = torch.full_like(weight, gradient)
    optimizer.step()


def test_settings_that_a_resumed_run_changes_are_its_own_and_the_moments_are_the_old_ones(accelerator: Any, tmp_path: Path) -> None:
    """By the rule of AdamW, written out: the second moment goes on with another beta, and the matrix decays by another part."""
    weights, optimizer = optimizer_of(weight_decay=0.5, adam_beta2=0.9)
    step(weights, optimizer, 2.0)
    save_state(accelerator, optimizer, tmp_path, 1)
    before = [weight.detach().clone() for weight in weights]
    second, resumed = optimizer_of(weight_decay=0.0, adam_beta2=0.5)
    for weight, value in zip(second, before, strict=True):
        weight.data.copy_(value)
    assert load_state(resumed, tmp_path) == 1
    assert [(group["weight_decay"], group["betas"], group["fused"]) for group in resumed.param_groups] == [(0.0, (0.9, 0.5), True)] * 2
    step(second, resumed, 1.0)
    mean = (0.9 * (0.1 * 2.0) + 0.1 * 1.0) / (1 - 0.9**2)
    spread = (0.5 * (0.1 * 2.0**2) + 0.5 * 1.0**2) / (1 - 0.5**2)
    for weight, value in zip(second, before, strict=True):
        torch.testing.assert_close(weight.detach(), value - 0.1 * mean / (spread**0.5 + 1e-8))


def test_settings_of_the_base_that_are_not_trained_are_kept(accelerator: Any, tmp_path: Path) -> None:
    """A temperature without do_sample is what transformers would refuse to write, after all of the training."""
    base = tiny_model(tmp_path / "base")
    path = base / "generation_config.json"
    settings = {**json.loads(path.read_text(encoding="utf-8")), "temperature": 0.6, "top_p": 0.9}
    path.write_text(json.dumps(settings), encoding="utf-8")
    policy = load_policy(str(base))
    kept = policy.model.generation_config
    save_model(accelerator, policy, load_tokenizer(str(base)), tmp_path / "final")
    assert json.loads((tmp_path / "final" / path.name).read_text(encoding="utf-8")) == settings
    assert policy.model.generation_config is kept
    before, after = (json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in (base, tmp_path / "final"))
    assert after == before
