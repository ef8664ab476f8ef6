"""Prompts of the transformers engine: one pass over those that differ, and a cache row for every sequence."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from r1cli.engines.batch import GrowingBatch, Slot, run_prompts
from r1cli.engines.protocol import Request

DEVICE = torch.device("cpu")
PROMPTS = [[5, 6, 7], [9, 8], [5, 6, 7], [5, 6, 7], [9, 8]]


def slots() -> list[Slot]:
    return [Slot(Request(key, list(ids), 0), torch.Generator()) for key, ids in enumerate(PROMPTS)]


def test_a_prompt_is_computed_once_for_all_sequences_that_start_from_it(tiny: Path) -> None:
    net = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    computed: list[tuple[int, ...]] = []
    net.register_forward_pre_hook(lambda module, args, given: computed.append(tuple(given["input_ids"].shape)), with_kwargs=True)
    logits_BV, mask_BT, cache = run_prompts(net, slots(), DEVICE)
    assert computed == [(2, 3)]
    assert mask_BT.tolist() == [[1, 1, 1], [0, 1, 1], [1, 1, 1], [1, 1, 1], [0, 1, 1]]
    for row, slot in enumerate(slots()):
        alone_1V, _, own = run_prompts(net, [slot], DEVICE)
        torch.testing.assert_close(logits_BV[row], alone_1V[0], rtol=1e-5, atol=1e-5)
        for whole, part in zip(cache.layers, own.layers, strict=True):
            length = len(slot.request.prompt_ids)
            torch.testing.assert_close(whole.keys[row][:, -length:], part.keys[0], rtol=1e-5, atol=1e-5)


def test_sequences_of_one_prompt_go_their_own_ways(tiny: Path) -> None:
    net = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()

    def told(chosen: list[int]) -> list[Tensor]:
        """Logits after each sequence was given a token of its own."""
        some = [slot for slot in slots() if slot.request.key in chosen]
        batch: Any = GrowingBatch(net, DEVICE)
        batch.advance(some)
        for slot in some:
            slot.token_ids.append(20 + int(slot.request.key))
        return list(batch.advance([]))

    together = told([0, 1, 2, 3, 4])
    for key in range(5):
        torch.testing.assert_close(together[key], told([key])[0], rtol=1e-5, atol=1e-5)
    assert torch.dist(together[0], together[2]) > 1e-3
