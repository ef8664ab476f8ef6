"""A run that stops and goes on ends where the straight run ends, to the last digit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from r1cli.errors import R1Error
from r1cli.train.checkpoints import load_state, save_model
from r1cli.train.model import load_policy
from r1cli.train.optimiser import OptimiserConfig
from tests.train.runs import grpo_run, sft_run
from tests.train.toy import largest_difference, weights

RATE = OptimiserConfig(lr=1e-2, lr_schedule="cosine", warmup_steps=1)
RUNS: dict[str, tuple[Any, dict[str, Any]]] = {
    "grpo": (grpo_run, {"steps": 8, "save_every": 1, "updates_per_rollout": 2, "optimiser": RATE, "reference_every": 2}),
    "sft": (sft_run, {"epochs": 1.0, "batch_rows": 4, "save_every": 1, "optimiser": RATE}),
}


@pytest.mark.parametrize("kind", RUNS)
def test_stopping_half_way_changes_nothing(accelerator: Any, tiny: Path, tmp_path: Path, kind: str) -> None:
    run, settings = RUNS[kind]
    half, rest = {"grpo": (4, [6, 8]), "sft": (2, [3, 4])}[kind]
    straight, records = run(accelerator, str(tiny), checkpoint=tmp_path, checkpoint_at=half, **settings)
    resumed, later = run(accelerator, str(tiny), resume=tmp_path, **settings)
    assert len(records) == 4 and [record["step"] for record in later] == rest
    assert largest_difference(straight, resumed) == 0.0
    for one, other in zip(records[2:], later, strict=True):
        assert one.keys() == other.keys()
        assert [one[name] for name in one if "second" not in name] == [other[name] for name in one if "second" not in name]
    assert largest_difference(straight, weights(load_policy(str(tiny)))) > 1e-3


def test_a_checkpoint_is_a_plain_folder_that_loads_again(accelerator: Any, tiny: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    policy = load_policy(str(tiny))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.25)
    save_model(accelerator, policy, AutoTokenizer.from_pretrained(tiny), tmp_path)
    assert largest_difference(weights(policy), weights(load_policy(str(tmp_path)))) == 0.0
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == AutoTokenizer.from_pretrained(tiny).get_vocab()


def test_a_folder_without_a_state_is_named(tiny: Path, tmp_path: Path) -> None:
    optimizer = torch.optim.SGD(load_policy(str(tiny)).parameters(), lr=1.0)
    with pytest.raises(R1Error, match="has no `training_state"):
        load_state(optimizer, tmp_path)
