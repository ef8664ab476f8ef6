"""What the tests of training share: token sequences made from a seed, and a plain full-logits computation to compare with.

Token ids stay below VOCAB, so they fit the tiny model.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from r1cli.train.batches import Sample
from r1cli.train.grpo_config import GrpoConfig
from r1cli.train.optimiser import OptimiserConfig
from r1cli.train.progress import RolloutBatch

VOCAB = 384
PAD = 0


def tokens(rng: random.Random, low: int, high: int) -> list[int]:
    """Between `low` and `high` random token ids."""
    return [rng.randrange(4, VOCAB) for _ in range(rng.randint(low, high))]


def group_samples(groups: int, size: int, seed: int = 0) -> list[Sample]:
    """`groups` prompts with `size` completions each, of different lengths, with advantages and log-probabilities; one is truncated."""
    rng = random.Random(seed)
    samples: list[Sample] = []
    for _ in range(groups):
        prompt = tokens(rng, 3, 9)
        for _ in range(size):
            completion = tokens(rng, 1, 12)
            sampler = [rng.uniform(-9.0, -4.0) for _ in completion]
            advantage = rng.choice([-1.2, -0.4, 0.0, 0.7, 1.5])
            number = len(samples)
            sample = Sample(number, prompt, completion, sampler_logprobs=sampler, advantage=advantage, key=(number // size, number % size))
            samples.append(sample)
    samples[1].truncated = True
    return samples


def plain_logprobs(model: Any, sample: Sample, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """(log-probability, entropy) of each completion token, the long way: one sequence, all logits, log_softmax."""
    ids = torch.tensor([sample.prompt_ids + sample.completion_ids])
    logits_TV = model(input_ids=ids).logits[0, len(sample.prompt_ids) - 1 : -1] / temperature
    all_logprobs_TV = torch.log_softmax(logits_TV.double(), dim=-1)
    chosen_T = all_logprobs_TV.gather(-1, torch.tensor(sample.completion_ids)[:, None]).squeeze(-1)
    return chosen_T, -(all_logprobs_TV.exp() * all_logprobs_TV).sum(-1)


def grpo_config(**changes: Any) -> GrpoConfig:
    """Small numbers, plain gradient descent friendly: no clipping of gradients, constant learning rate 1."""
    values: dict[str, Any] = {
        "steps": 1,
        "prompts_per_step": 3,
        "group_size": 4,
        "max_completion_length": ((0, 16),),
        "microbatch_tokens": 4096,
        "seed": 5,
        "pad_id": PAD,
        "optimiser": OptimiserConfig(lr=1.0, max_grad_norm=0.0),
        "beta": 0.05,
    }
    return GrpoConfig(**{**values, **changes})


def rollout_batch(samples: list[Sample], config: GrpoConfig) -> RolloutBatch:
    """The samples as the first rollout of a run."""
    return RolloutBatch(0, config.parts(0), config.max_completion_length[0][1], samples)


@contextmanager
def layer_passes() -> Iterator[list[int]]:
    """Gets an entry whenever a decoder layer of a Llama computes: twice as many in training with gradient checkpointing."""
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    passes: list[int] = []
    plain = LlamaDecoderLayer.forward

    def counting(layer: Any, hidden_states: Tensor, **options: Any) -> Any:
        passes.append(hidden_states.numel())
        return plain(layer, hidden_states, **options)

    LlamaDecoderLayer.forward = counting
    try:
        yield passes
    finally:
        LlamaDecoderLayer.forward = plain


def weights(policy: Any) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in policy.named_parameters()}


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)
