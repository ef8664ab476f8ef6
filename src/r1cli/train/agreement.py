"""What all processes of a launch agree on."""

from collections.abc import Callable, Iterator, Mapping
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
def failing_together(accelerator: Any, others: Mapping[type[Exception], Callable[[], Exception]]) -> Iterator[None]:
    """Around work without a collective inside: an error of one process is raised in all, before they wait for each other.

    others: the kinds of errors, the most serious one last, and what the processes raise that have none themselves. Errors of other kinds
    are raised at once.
    """
    kinds = list(others)
    own: Exception | None = None
    try:
        yield
    except tuple(kinds) as error:
        own = error
    number = 0 if own is None else 1 + next(place for place, kind in enumerate(kinds) if isinstance(own, kind))
    worst = highest(accelerator, number)
    if own is not None and number == worst:
        raise own
    if worst:
        raise others[kinds[worst - 1]]()
