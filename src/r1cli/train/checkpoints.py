"""Checkpoints: a plain Hugging Face folder (safetensors), and beside it what is needed to go on training.

`save_model` writes what `from_pretrained` and vLLM read. `save_state` writes optimizer and step; it is read back with `weights_only`, so
that nothing in it is executed (torch's own sharded checkpoints keep a pickled index).

Sharded weights and moments (FSDP2) are gathered one tensor at a time into the main process's memory, never a whole model on a GPU, and the
files are those of an unsharded run: any number of processes, sharded or not, resumes from them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from transformers.utils import GENERATION_CONFIG_NAME

from r1cli.errors import Exit, R1Error
from r1cli.train.checkpoint_names import Weights, outline_of, persistent_buffers
from r1cli.train.lora import ADAPTER
from r1cli.train.state_files import missing, read, way_out, write, writing
from r1cli.train.strategy import cut_like, is_sharded, is_whole, uses_deepspeed, whole

STATE = "training_state.pt"


def named_weights(accelerator: Any, policy: Any) -> Weights:
    """The tensors of a policy and its persistent buffers, whole on every process (gathered when they are sharded); LoRA is merged.

    Under their names in memory, which are those of a checkpoint in most models; `Weights.in_files` in all.
    """
    own = accelerator.unwrap_model(policy)
    model = own.model
    if own.lora is not None and is_whole(accelerator):
        return Weights(model, own.lora.plain, own.lora.merged(dict(chain(model.named_parameters(), persistent_buffers(model)))))
    if is_whole(accelerator):
        weights = model.named_parameters()
    elif is_sharded(accelerator):
        weights = ((name, whole(value.detach())) for name, value in model.named_parameters())
    else:
        weights = _gathered_by_deepspeed(model)
    return Weights(model, outline_of(model), chain(weights, persistent_buffers(model)))


def _gathered_by_deepspeed(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    import deepspeed

    for name, value in model.named_parameters():
        with deepspeed.zero.GatheredParameters([value]):  # nothing to gather before stage 3
            yield name, value.detach()


def save_model(accelerator: Any, policy: Any, tokenizer: Any, folder: Path, *, merged: bool = True, resumable: bool = False) -> None:
    """Write the weights of all processes as one folder; every process must call it.

    With LoRA that is a plain model, or with merged=False the adapter alone. resumable: keep the adapter beside the plain model, because the
    sum of both is rounded.
    """
    if is_sharded(accelerator) or uses_deepspeed(accelerator):
        weights = _gathered(accelerator, policy)
    else:
        weights = {name.removeprefix("model."): value for name, value in accelerator.get_state_dict(policy).items()}
    if accelerator.is_main_process:
        own = accelerator.unwrap_model(policy)
        plain = weights if own.lora is None or not merged else _merged_on_cpu(own, weights)
        with writing():
            if own.lora is not None and (resumable or not merged):
                own.lora.save(folder / ADAPTER if merged else folder, weights)
            if own.lora is None or merged:
                with _generation_settings_as_they_are(own.model):
                    own.model.save_pretrained(folder, state_dict=plain, is_main_process=True)
            tokenizer.save_pretrained(folder)
    accelerator.wait_for_everyone()


@contextmanager
def _generation_settings_as_they_are(model: Any) -> Iterator[None]:
    """transformers refuses to write what contradicts itself: a temperature without do_sample, which many published models have."""
    kept = getattr(model, "generation_config", None)
    if kept is not None:
        model.generation_config = _AsItIs(kept)
    try:
        yield
    finally:
        if kept is not None:
            model.generation_config = kept


class _AsItIs:
    """Stands for a `GenerationConfig` while a model is saved."""

    def __init__(self, config: Any) -> None:
        self._config = config

    def save_pretrained(self, folder: str | Path) -> None:
        self._config.to_json_file(Path(folder) / GENERATION_CONFIG_NAME, use_diff=True, keys_to_pop=["compile_config"])


def _merged_on_cpu(policy: Any, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A plain model's tensors. A tied head is left out: away from a GPU it would be a second tensor, and be written as one."""
    once = {name for name, _ in (*policy.model.named_parameters(), *policy.model.named_buffers())}
    return {name: value.cpu() for name, value in policy.lora.merged({name: weights[name] for name in weights if name in once})}


def _gathered(accelerator: Any, policy: Any) -> dict[str, torch.Tensor]:
    """The whole weights on the CPU of the main process; nothing elsewhere."""
    found = {}
    for name, value in named_weights(accelerator, policy):
        if accelerator.is_main_process:
            found[name] = value.cpu().clone()
    return found


def save_state(accelerator: Any, optimizer: torch.optim.Optimizer, folder: Path, step: int, reference: Any | None = None) -> None:
    """Write optimizer, step and (when it is not the starting model any more) the reference; every process must call it."""
    moments = _whole_state(accelerator, optimizer)
    frozen = None if reference is None else _whole_reference(accelerator, reference)
    if accelerator.is_main_process:
        write({"step": step, "optimizer": moments, "reference": frozen}, folder / STATE)
    accelerator.wait_for_everyone()


def _whole_state(accelerator: Any, optimizer: Any) -> dict[str, Any] | None:
    """The optimizer's state with whole tensors, on the CPU of the main process when they are sharded.

    None with DeepSpeed, whose own checkpoints are pickles: a run cannot be resumed from it.
    """
    if uses_deepspeed(accelerator):
        return None
    state = optimizer.state_dict()
    if not is_sharded(accelerator):
        return state
    kept: dict[int, dict[str, Any]] = {}
    for number, entries in state["state"].items():  # in the same order on every process
        kept[number] = {}
        for name, value in entries.items():
            gathered = whole(value) if isinstance(value, torch.Tensor) else value
            if accelerator.is_main_process:
                kept[number][name] = gathered.cpu() if isinstance(gathered, torch.Tensor) else gathered
    return {**state, "state": kept}


def _whole_reference(accelerator: Any, reference: Any) -> dict[str, torch.Tensor]:
    if not is_sharded(accelerator):
        return reference.state_dict()
    found = {}
    for name, weight in reference.named_parameters():
        gathered = whole(weight.detach())
        if accelerator.is_main_process:
            found[name] = gathered.cpu()
    return found


def _shared_out(optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
    """A whole state with each tensor cut as the parameter it belongs to; every process has read the same file."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for number, weight in enumerate(weights):
        if number in state["state"]:
            entries = state["state"][number]
            for name, value in entries.items():
                if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                    entries[name] = cut_like(value, weight)
    return state


def _as_made(optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
    """A state with the optimizer's own settings in place of those it was saved with."""
    saved, own = state["param_groups"], optimizer.param_groups
    if len(saved) != len(own):  # loading it says so
        return state
    return {**state, "param_groups": [{**group, "params": before["params"]} for group, before in zip(own, saved, strict=True)]}


def check_state(folder: Path, *others: str) -> None:
    """Refuse (`R1Error`, exit 2) a checkpoint without what `save_state` writes, or without one of the `others`, files beside it."""
    for name in (STATE, *others):
        if not (folder / name).is_file():
            raise missing(folder / name)


def load_state(optimizer: torch.optim.Optimizer, folder: Path, reference: Any | None = None) -> int:
    """Restore what `save_state` wrote; returns the number of steps done. Raises `R1Error` (exit 2) for what is torn or another model's.

    Of the optimizer that is its moments: weight decay, betas and the like are those it was made with, which the run may have changed.
    """
    check_state(folder)
    path = folder / STATE
    state = read(path, "step", "optimizer", "reference", mmap=True)  # a process reads what it keeps
    if state["optimizer"] is None:
        raise R1Error(
            f"`{folder}` is of a run with DeepSpeed and holds no optimizer: it cannot be resumed",
            hint=f"start anew from its weights: --model {folder}; FSDP2 runs can be resumed (examples/accelerate/fsdp2.yaml)",
            code=Exit.USAGE,
        )
    try:
        optimizer.load_state_dict(_as_made(optimizer, _shared_out(optimizer, state["optimizer"])))
    except ValueError as error:
        raise R1Error(f"`{path}` is of a model of another shape: {error}", hint=way_out(folder), code=Exit.USAGE) from error
    if reference is not None and state["reference"] is not None:
        _restore_reference(reference, state["reference"])
    return int(state["step"])


def _restore_reference(reference: Any, state: dict[str, torch.Tensor]) -> None:
    """A model takes its weights one by one, cut as they are cut; an adapter, or a model kept elsewhere, knows how it takes its own."""
    if not isinstance(reference, torch.nn.Module):
        reference.load_state_dict(state)
        return
    for name, weight in reference.named_parameters():
        weight.data.copy_(cut_like(state[name], weight))
