"""The loss of rows that are not trained on, against the long way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from r1cli.train.optimiser import OptimiserConfig
from r1cli.train.sft import SftConfig, mean_loss
from tests.train.runs import sft_run
from tests.train.toy import PAD, group_samples, plain_logprobs


@pytest.mark.parametrize("pack_length", [0, 64])
def test_it_is_the_mean_over_the_tokens_that_count(accelerator: Any, new_policy: Callable[..., Any], pack_length: int) -> None:
    policy, samples = new_policy(), group_samples(groups=3, size=2)
    for place, sample in enumerate(samples):
        sample.index = 0  # the turns of a chat share the number of their row
        sample.trained = [bool((place + token) % 3) for token in range(len(sample.completion_ids))]
    config = SftConfig(
        epochs=1, batch_rows=1, microbatch_tokens=100, seed=0, pad_id=PAD, optimiser=OptimiserConfig(lr=0.0), pack_length=pack_length
    )
    chosen = torch.cat([plain_logprobs(policy.model, s)[0][torch.tensor(s.trained)] for s in samples])
    assert mean_loss(accelerator, policy, samples, config) == pytest.approx(-float(chosen.detach().mean()), rel=1e-5)


@pytest.mark.parametrize(("every", "steps"), [(0, [3]), (2, [2, 3]), (3, [3])])
def test_it_is_measured_as_often_as_asked_and_after_the_last_step(accelerator: Any, tiny: Path, every: int, steps: list[int]) -> None:
    _, records = sft_run(accelerator, str(tiny), held_out=2, held_out_every=every)
    assert len(records) == 3 and [record["step"] for record in records if "held_out_loss" in record] == steps
