"""TRL 1.16's loss and gradient of supervised fine-tuning, recorded by tests/oracles/record_trl_sft.py, and ours for the same rows."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from r1cli.train.batches import Sample
from r1cli.train.logprobs import Policy
from r1cli.train.optimiser import OptimiserConfig
from r1cli.train.sft import SftConfig, SftHooks, train_sft
from tests.oracles.problem import COMPLETIONS, GROUP_SIZE, PAD, PROMPTS, SFT_CASES, fingerprint, small_model
from tests.train.test_trl_oracle import agree, same_problem

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "trl_sft.json").read_text("utf-8"))
TOLERANCE = 1e-4


class Still(torch.optim.SGD):
    """Leaves weights as they are. seen: the gradients of its step."""

    def step(self, closure: Any = None) -> None:
        self.seen = [weight.grad for group in self.param_groups for weight in group["params"]]


def step(accelerator: Any, pack_length: int, tokens: int, trained: bool = True) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """(record, gradient) of one step on all rows. trained: whether the end tokens are learnt too."""
    policy = Policy(small_model())
    samples = [Sample(number, PROMPTS[number // GROUP_SIZE], completion) for number, completion in enumerate(COMPLETIONS)]
    if not trained:
        for sample in samples:
            sample.trained = [True] * (len(sample.completion_ids) - 1) + [False]
    rate = OptimiserConfig(lr=1.0, max_grad_norm=0.0)
    config = SftConfig(
        epochs=1, batch_rows=len(samples), microbatch_tokens=tokens, seed=0, pad_id=PAD, optimiser=rate, pack_length=pack_length
    )
    records: list[dict[str, Any]] = []
    hooks = SftHooks(records.append, lambda done: None)
    still = Still(policy.parameters())
    train_sft(accelerator, policy, still, config, rows=[[sample] for sample in samples], hooks=hooks)
    return records[0], fingerprint({name: seen for (name, _), seen in zip(policy.model.named_parameters(), still.seen, strict=True)})


@pytest.mark.parametrize("tokens", [4096, 1], ids=["one micro-batch", "one row each"])
@pytest.mark.parametrize("pack_length", [0, 24, 1024], ids=["a row each", "some in a row", "one row"])
@pytest.mark.parametrize("case", SFT_CASES)
def test_the_loss_and_the_gradient_are_trls(accelerator: Any, case: str, pack_length: int, tokens: int) -> None:
    recorded = RECORDED["cases"][case]
    record, gradient = step(accelerator, pack_length, tokens)
    assert record["tokens"] == recorded["tokens"]
    assert record["loss"] == pytest.approx(recorded["loss"], rel=TOLERANCE)
    assert agree(gradient, recorded["gradient"]) < TOLERANCE


def test_another_set_of_tokens_is_not_trls(accelerator: Any) -> None:
    """The comparison can fail."""
    _, gradient = step(accelerator, 1024, 4096, trained=False)
    assert agree(gradient, RECORDED["cases"]["packed"]["gradient"]) > 100 * TOLERANCE


def test_what_was_recorded_is_what_the_script_would_record() -> None:
    assert RECORDED["made_with"]["trl"] == "1.16.0"
    same_problem(RECORDED["problem"])
    assert {name: found["asked"] for name, found in RECORDED["cases"].items()} == SFT_CASES
    shapes = {name: found["shape"] for name, found in RECORDED["cases"].items()}
    total = sum(len(PROMPTS[number // GROUP_SIZE]) + len(completion) for number, completion in enumerate(COMPLETIONS))
    longest = max(len(PROMPTS[number // GROUP_SIZE]) + len(completion) for number, completion in enumerate(COMPLETIONS))
    assert shapes == {"padded": [len(COMPLETIONS), longest], "padding-free": [1, total], "packed": [1, total]}
