"""What all processes of a launch agree on."""

from typing import Any

import torch
from accelerate.utils import gather_object


def highest(accelerator: Any, number: int) -> int:
    """The largest `number` of any process; every process must call it at the same place."""
    if accelerator.num_processes == 1:
        return number
    return int(accelerator.gather(torch.tensor([number], device=accelerator.device)).max())


def of_all(accelerator: Any, things: list[Any]) -> list[Any]:
    """The things of every process, those of the first one first; every process must call it at the same place."""
    return things if accelerator.num_processes == 1 else gather_object(things)
