"""Rotations that depend on the longest sequence of a batch: what is computed for a sequence is what the model computes for it alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM

from r1cli.train.batches import Sample, group_rows, micro_batches
from r1cli.train.logprobs import Policy
from r1cli.train.model import load_policy
from r1cli.train.preference import Example, example_batches
from r1cli.train.update import forward
from tests.train.test_architectures import LLAMA
from tests.train.toy import PAD, plain_logprobs

FIRST = 64  # positions that the model was first trained for
FACTORS = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
LONG: dict[str, Any] = {"rope_type": "longrope", "original_max_position_embeddings": FIRST, "rope_theta": 1e4, **FACTORS}
PHI: dict[str, Any] = {**LLAMA, "max_position_embeddings": 512, "original_max_position_embeddings": FIRST, "rope_parameters": LONG}
MODELS: dict[str, Any] = {
    "LongRoPE": lambda: transformers.Phi3Config(**PHI),
    "LongRoPE and a window": lambda: transformers.Phi3Config(**PHI, sliding_window=4096),
    "dynamic NTK": lambda: transformers.LlamaConfig(
        **LLAMA, max_position_embeddings=FIRST, rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    ),
    "the same at any length": lambda: transformers.LlamaConfig(**LLAMA, max_position_embeddings=FIRST),
}


def policy_of(name: str, folder: Path) -> Policy:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(MODELS[name]()).save_pretrained(folder)
    return load_policy(str(folder))


def sample(index: int, prompt: int, completion: int) -> Sample:
    ids = torch.randint(10, 300, (prompt + completion,), generator=torch.Generator().manual_seed(index // 2)).tolist()
    return Sample(index, ids[:prompt], ids[prompt : prompt + completion - index % 2])


@pytest.mark.parametrize("name", MODELS)
def test_a_long_sequence_does_not_change_what_is_beside_it(tmp_path: Path, name: str) -> None:
    """Short ones of two prompts, with the same prompt as a long one, and long ones of two lengths, the longest first."""
    policy = policy_of(name, tmp_path)
    lengths = {0: 20, 1: 20, 2: 30, 3: 90, 4: 110, 6: 56, 8: 57}
    samples = [sample(index, 8, length) for index, length in lengths.items()]
    found: dict[int, Tensor] = {}
    rows = group_rows(samples, policy.row_length(2048))
    batches = micro_batches(rows, 4096, PAD, policy.alone_beyond)
    with torch.no_grad():
        for batch in batches:
            logprobs_N, start = forward(policy, batch)[0].double(), 0
            for one in batch.samples:
                found[one.index] = logprobs_N[start : start + len(one.completion_ids)]
                start += len(one.completion_ids)
        for one in samples:
            model = AutoModelForCausalLM.from_pretrained(tmp_path)  # dynamic NTK remembers the longest it has seen
            torch.testing.assert_close(found[one.index], plain_logprobs(model, one)[0], rtol=1e-5, atol=1e-5)
    apart = [len(batch.samples) for batch in batches if any(len(one.prompt_ids) + len(one.completion_ids) > FIRST for one in batch.samples)]
    assert (apart == [1, 1, 1]) is (policy.alone_beyond == FIRST)
    assert (policy.alone_beyond is None) is (name == "the same at any length")


def test_the_sides_of_a_pair_are_scored_together_and_apart_from_others(tmp_path: Path) -> None:
    policy = policy_of("LongRoPE", tmp_path)
    pairs = [Example(([5] * length, [6] * 10), 1.0) for length in (20, 80, 90, 30)]
    batches = example_batches(pairs, range(4), 4096, PAD, shared=False, alone_beyond=policy.alone_beyond)
    assert [sorted({one.index // 2 for one in batch.samples}) for batch in batches] == [[2], [1], [0, 3]]
