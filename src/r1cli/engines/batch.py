"""The sequences that run in the transformers engine, and their cache: one pass a token, joined by new sequences, left by those that ended.

Shapes: _B sequences, _T positions of the cache, _V vocabulary.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from r1cli.engines.protocol import Request
from r1cli.errors import Exit, R1Error


@dataclass(eq=False)
class Slot:
    """A sequence that runs."""

    request: Request
    generator: torch.Generator
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.request.prompt_ids) + len(self.token_ids)


class Batch(Protocol):
    """slots: the sequences that run."""

    slots: list[Slot]

    def advance(self, starting: list[Slot]) -> Tensor:
        """One pass: the newest token of what runs, and the prompts of what starts; the next token's logits (B, V) of all slots."""
        ...

    def drop(self, ended: set[int]) -> None:
        """Give up the slots, by `id`, of sequences that ended."""
        ...


@torch.inference_mode()
def run_prompts(net: Any, starting: list[Slot], device: torch.device) -> tuple[Tensor, Tensor, DynamicCache]:
    """The pass over prompts, padded on the left: (the next token's logits (B, V), which columns are tokens (B, T), cache).

    A prompt that several sequences start from is computed once.
    """
    places: dict[tuple[int, ...], int] = {}
    of_slot = [places.setdefault(tuple(slot.request.prompt_ids), len(places)) for slot in starting]
    prompts = [list(ids) for ids in places]
    width = max(map(len, prompts))
    ids_BT = torch.tensor([[0] * (width - len(ids)) + ids for ids in prompts], device=device)
    mask_BT = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts], device=device)
    cache = DynamicCache()
    logits_BV = run(net, ids_BT, mask_BT, cache)
    if len(prompts) == len(starting):
        return logits_BV, mask_BT, cache
    rows = torch.tensor(of_slot, dtype=torch.long, device=device)
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[rows], layer.values[rows]
    return logits_BV[rows], mask_BT[rows], cache


@torch.inference_mode()
def run(net: Any, ids_BT: Tensor, mask_BT: Tensor, cache: Any) -> Tensor:
    """The last token's logits (B, V); what was computed is added to the cache. mask_BT: which columns are tokens, these among them."""
    positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)[:, -ids_BT.shape[1] :]
    out = net(input_ids=ids_BT, attention_mask=mask_BT, position_ids=positions_BT, past_key_values=cache, use_cache=True, logits_to_keep=1)
    if not cache.layers or not all(isinstance(getattr(layer, "keys", None), Tensor) for layer in cache.layers):
        raise R1Error("the model's cache is not made of keys and values: this engine cannot run it", hint="--engine vllm", code=Exit.USAGE)
    logits_BV: Tensor = out.logits[:, -1]
    return logits_BV


class GrowingBatch:
    """A cache that grows by a column a token: left-padded, one key and one value tensor (B, heads, T, head size) a layer.

    The cache's own object goes from pass to pass: a new one would copy all of it.
    """

    def __init__(self, net: Any, device: torch.device) -> None:
        self.slots: list[Slot] = []
        self._net = net
        self._device = device
        self._cache: Any = None
        self._mask_BT = torch.zeros(0, 0, dtype=torch.long)

    def advance(self, starting: list[Slot]) -> Tensor:
        """See `Batch.advance`."""
        parts = []
        if self.slots:
            newest_B1 = torch.tensor([slot.token_ids[-1:] for slot in self.slots], device=self._device)
            self._mask_BT = torch.nn.functional.pad(self._mask_BT, (0, 1), value=1)
            parts.append(run(self._net, newest_B1, self._mask_BT, self._cache))
        if starting:
            logits_BV, mask_BT, cache = run_prompts(self._net, starting, self._device)
            parts.append(logits_BV)
            self._join(mask_BT, cache)
            self.slots += starting
        return torch.cat(parts)

    @torch.inference_mode()
    def _join(self, mask_BT: Tensor, cache: Any) -> None:
        """Put new sequences below those that run, both padded on the left to the longer of the two."""
        if not self.slots:
            self._mask_BT, self._cache = mask_BT, cache
            return
        width = max(mask_BT.shape[1], self._mask_BT.shape[1])

        def widen(tensor: Tensor, axis: int) -> Tensor:
            missing = width - tensor.shape[axis]
            return torch.nn.functional.pad(tensor, (0, 0) * (tensor.dim() - 1 - axis) + (missing, 0))

        self._mask_BT = torch.cat([widen(self._mask_BT, 1), widen(mask_BT, 1)])
        for old, new in zip(self._cache.layers, cache.layers, strict=True):
            old.keys, old.values = (torch.cat([widen(a, 2), widen(b, 2)]) for a, b in ((old.keys, new.keys), (old.values, new.values)))

    @torch.inference_mode()
    def drop(self, ended: set[int]) -> None:
        """Give up the slots of sequences that ended, and the columns that only they used."""
        if not ended:
            return
        kept = [place for place, slot in enumerate(self.slots) if id(slot) not in ended]
        self.slots = [self.slots[place] for place in kept]
        rows = torch.tensor(kept, dtype=torch.long, device=self._device)
        mask_BT = self._mask_BT[rows]
        first = int(mask_BT.any(0).long().argmax()) if kept else 0
        self._mask_BT = mask_BT[:, first:]
        if not kept:
            self._cache = None
            return
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[rows][:, :, first:], layer.values[rows][:, :, first:]
