"""Random generators in a checkpoint: of every process its own, because each one draws other numbers (dropout)."""

import random
from pathlib import Path
from typing import Any

import torch

from r1cli.train.state_files import of_process, write


def file_name(process: int) -> str:
    """The name of a process's file in a checkpoint."""
    return f"random_state_{process}.pt"


def save_random(accelerator: Any, folder: Path) -> None:
    """Write the states of this process: torch's on the CPU and on its GPU, and Python's."""
    version, numbers, gauss = random.getstate()
    state = {
        "processes": accelerator.num_processes,
        "cpu": torch.get_rng_state(),
        "gpu": torch.cuda.get_rng_state(accelerator.device) if accelerator.device.type == "cuda" else None,
        "python": [version, list(numbers), gauss],
    }
    write(state, folder / file_name(accelerator.process_index))


def load_random(accelerator: Any, folder: Path) -> None:
    """Go on drawing where this process was.

    A checkpoint of another number of processes says nothing of it: the process draws as a fresh run does. Raises `R1Error` (exit 2) for one
    that lacks the states.
    """
    processes = accelerator.num_processes
    state = of_process(folder, file_name, accelerator.process_index, processes, "cpu", "gpu", "python")
    if state["processes"] != processes:
        return
    torch.set_rng_state(state["cpu"])
    if state["gpu"] is not None and accelerator.device.type == "cuda":
        torch.cuda.set_rng_state(state["gpu"], accelerator.device)
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
