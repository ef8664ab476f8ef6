"""What all processes of a launch agree on."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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


@contextmanager
def failing_together(accelerator: Any, kinds: Sequence[tuple[Callable[[BaseException], bool], Callable[[], Exception]]]) -> Iterator[None]:
    """Around work without a collective inside: an error of one process is raised in all, before they wait for each other.

    kinds: (is the error of this kind?, the error that the processes raise which have none themselves), the most serious kind last. Errors
    of other kinds are raised at once.
    """
    own: Exception | None = None
    number = 0
    try:
        yield
    except Exception as error:
        number = max((place for place, (is_one, _) in enumerate(kinds, 1) if is_one(error)), default=0)
        if number == 0:
            raise
        own = error
        traceback.clear_frames(error.__traceback__)  # they hold the tensors of the work; what follows needs a little memory
    worst = highest(accelerator, number)
    if own is not None and number == worst:
        raise own
    if worst:
        raise kinds[worst - 1][1]()
