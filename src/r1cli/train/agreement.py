"""What all processes of a launch agree on."""

from typing import Any

import torch


def highest(accelerator: Any, number: int) -> int:
    """The largest `number` of any process; every process must call it at the same place."""
    if accelerator.num_processes == 1:
        return number
    return int(accelerator.gather(torch.tensor([number], device=accelerator.device)).max())
