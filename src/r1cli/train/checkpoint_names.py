"""What the tensors of a model are called in its files, where transformers calls or cuts them otherwise in memory.

While it loads, transformers renames tensors and puts several together (the experts of a layer are one tensor); `save_pretrained` takes that
back. Engines that read files themselves (vLLM, servers) know the names of the files, so weights that are handed to them take the same way
back, a tensor at a time, and what was put together a group at a time. Most models have nothing to take back, and theirs go as they are.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from r1cli.errors import Exit, R1Error


@dataclass(frozen=True)
class Outline:
    """The tensors that a checkpoint of a model has, by their names in memory: shapes without values, on the device `meta`.

    again: further names of tied weights, which come once.
    """

    tensors: Mapping[str, Tensor]
    again: frozenset[str]


def outline_of(model: Any) -> Outline:
    """Parameters and persistent buffers; nothing is gathered where they are sharded."""
    once = [*model.named_parameters(), *persistent_buffers(model)]
    shapes = {name: torch.empty(getattr(value, "ds_shape", value.shape), dtype=value.dtype, device="meta") for name, value in once}
    every = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return Outline(shapes, frozenset(every - shapes.keys()))


def persistent_buffers(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The buffers that belong into a checkpoint, as the bias by which GLM-4's router chooses its experts."""
    for place, module in model.named_modules():
        for name, value in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield f"{place}.{name}" if place else name, value


class Weights(Iterable[tuple[str, Tensor]]):
    """Tensors of a model, once, under their names in memory; `in_files` gives them as the model's files have them instead."""

    def __init__(self, model: Any, outline: Outline, named: Iterable[tuple[str, Tensor]]) -> None:
        self._model, self._outline, self._named = model, outline, named

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return iter(self._named)

    def file_names(self) -> tuple[frozenset[str], frozenset[str]]:
        """(names that `in_files` gives, names of tied weights that files may have besides)."""
        outline = self._outline
        if not _is_changed(self._model):
            return frozenset(outline.tensors), outline.again
        shape = torch.empty(1, device="meta")
        again = {found for name in outline.again for found in _reverted(self._model, {name: shape})}
        return frozenset(_reverted(self._model, outline.tensors)), frozenset(again)

    def in_files(self) -> Iterator[tuple[str, Tensor]]:
        """Each tensor as soon as what it is made of has come; views where nothing must be copied."""
        if not _is_changed(self._model):
            yield from self._named
            return
        renamed, groups = _ways_back(self._model, self._outline.tensors)
        waiting: dict[frozenset[str], dict[str, Tensor]] = {}
        for name, value in self._named:
            if name in renamed:
                yield renamed[name], value.detach()
                continue
            group = groups[name]
            if len(group) == 1:
                yield from self._cut({name: value})
                continue
            held = waiting.setdefault(group, {})
            held[name] = value.detach().clone()  # what DeepSpeed has gathered is gone with the next one
            if held.keys() == group:
                yield from self._cut(waiting.pop(group))

    def _cut(self, group: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        for name, value in _reverted(self._model, {name: value.detach() for name, value in group.items()}).items():
            yield name, value.contiguous()  # as `save_pretrained` does


def _is_changed(model: Any) -> bool:
    return bool(getattr(model, "_weight_conversions", None))  # what loading used, which saving takes back


def _reverted(model: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    from transformers.core_model_loading import revert_weight_conversion

    return revert_weight_conversion(model, dict(tensors))


def _ways_back(model: Any, outline: Mapping[str, Tensor]) -> tuple[dict[str, str], dict[str, frozenset[str]]]:
    """(name in memory -> name in files, of tensors that are at most renamed; name in memory -> all that must be there, of the others).

    Found by asking for each tensor alone. Where that is not what all together give, all wait for each other, as in `save_pretrained`.
    """
    every = frozenset(outline)
    together = dict.fromkeys(every, every)
    try:
        alone = {name: _reverted(model, {name: shape}) for name, shape in outline.items()}
    except Exception:  # whatever an operation raises that wants its other tensors
        return {}, together
    renamed = {name: next(iter(found)) for name, found in alone.items() if len(found) == 1 and next(iter(found.values())) is outline[name]}
    groups: dict[str, frozenset[str]] = {}
    owners: dict[str, frozenset[str]] = {}  # by name in files
    for name in outline.keys() - renamed.keys():
        joined = frozenset({name}).union(*(owners.get(target, frozenset()) for target in alone[name]))
        targets = {target for member in joined for target in alone[member]}
        owners |= dict.fromkeys(targets, joined)
        groups |= dict.fromkeys(joined, joined)
    parts = {found: outline[name].shape for name, found in renamed.items()}
    for group in set(groups.values()):
        parts |= {name: value.shape for name, value in _reverted(model, {name: outline[name] for name in group}).items()}
    if parts != {name: value.shape for name, value in _reverted(model, outline).items()}:
        return {}, together
    return renamed, groups


def check_names(found: Iterable[str], outline: Outline, hint: str) -> None:
    """Refuse (`R1Error`, exit 2) names of merged weights that are not the plain model's: layers of random values would be loaded."""
    wrong = set(found) ^ outline.tensors.keys()
    if wrong:
        raise R1Error(f"--lora cannot be merged into this model: {len(wrong)} tensors, first `{min(wrong)}`", hint=hint, code=Exit.USAGE)
