"""Checkpoints: a plain Hugging Face folder (safetensors), and beside it what is needed to go on training.

`save_model` writes what `from_pretrained` and vLLM read. `save_state` writes optimizer, step and random states; it is read back with
`weights_only`, so that nothing in it is executed.
"""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType

from r1cli.errors import Exit, R1Error
from r1cli.train.lora import ADAPTER

STATE = "training_state.pt"
WHOLE = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)  # every process holds all weights


def named_weights(accelerator: Any, policy: Any) -> Iterable[tuple[str, torch.Tensor]]:
    """The tensors of a policy under their checkpoint names, whole on every process (gathered when they are sharded); LoRA is merged."""
    if accelerator.distributed_type in WHOLE:
        own = accelerator.unwrap_model(policy)
        named = own.model.named_parameters()
        return named if own.lora is None else own.lora.merged(dict(named))
    return ((name.removeprefix("model."), value) for name, value in accelerator.get_state_dict(policy).items())


def save_model(accelerator: Any, policy: Any, tokenizer: Any, folder: Path, *, merged: bool = True, resumable: bool = False) -> None:
    """Write the weights of all processes as one folder; every process must call it.

    With LoRA that is a plain model, or with merged=False the adapter alone. resumable: keep the adapter beside the plain model, because the
    sum of both is rounded.
    """
    state = accelerator.get_state_dict(policy)
    if accelerator.is_main_process:
        own = accelerator.unwrap_model(policy)
        weights = {name.removeprefix("model."): value for name, value in state.items()}
        if own.lora is not None and (resumable or not merged):
            own.lora.save(folder / ADAPTER if merged else folder, weights)
        if own.lora is None or merged:
            whole = weights if own.lora is None else dict(own.lora.merged(weights))
            own.model.save_pretrained(folder, state_dict=whole, is_main_process=True)
        tokenizer.save_pretrained(folder)
    accelerator.wait_for_everyone()


def save_state(accelerator: Any, optimizer: torch.optim.Optimizer, folder: Path, step: int, reference: Any | None = None) -> None:
    """Write optimizer, step, random states and (when it is not the starting model any more) the reference."""
    if accelerator.is_main_process:
        state = {
            "step": step,
            "optimizer": optimizer.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "python_rng": list(random.getstate()[1]),
            "reference": reference.state_dict() if reference is not None else None,
        }
        torch.save(state, folder / STATE)
    accelerator.wait_for_everyone()


def load_state(optimizer: torch.optim.Optimizer, folder: Path, reference: Any | None = None) -> int:
    """Restore what `save_state` wrote; returns the number of steps done."""
    path = folder / STATE
    if not path.is_file():
        raise R1Error(
            f"`{folder}` has no `{STATE}` to resume from",
            hint="resume from a checkpoint of r1, or start anew with --force",
            code=Exit.USAGE,
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["torch_rng"])
    random.setstate((3, tuple(state["python_rng"]), None))
    if reference is not None and state["reference"] is not None:
        reference.load_state_dict(state["reference"])
    return int(state["step"])
