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
from r1cli.train.logprobs import Policy

STATE = "training_state.pt"


def named_weights(accelerator: Any, policy: Any) -> Iterable[tuple[str, torch.Tensor]]:
    """The tensors of a policy under their checkpoint names, whole on every process (gathered when they are sharded)."""
    if accelerator.distributed_type in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        return accelerator.unwrap_model(policy).model.named_parameters()
    return ((name.removeprefix("model."), value) for name, value in accelerator.get_state_dict(policy).items())


def save_model(accelerator: Any, policy: Any, tokenizer: Any, folder: Path) -> None:
    """Write the weights of all processes as one folder; every process must call it."""
    state = accelerator.get_state_dict(policy)
    if accelerator.is_main_process:
        model = accelerator.unwrap_model(policy).model
        weights = {name.removeprefix("model."): value for name, value in state.items()}
        model.save_pretrained(folder, state_dict=weights, is_main_process=True)
        tokenizer.save_pretrained(folder)
    accelerator.wait_for_everyone()


def save_state(accelerator: Any, optimizer: torch.optim.Optimizer, folder: Path, step: int, reference: Policy | None = None) -> None:
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


def load_state(optimizer: torch.optim.Optimizer, folder: Path, reference: Policy | None = None) -> int:
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
