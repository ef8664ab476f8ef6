"""The largest size that fits a GPU, found by trying; imports nothing of r1, so that TRL's side uses it too."""

import gc
import sys
import time
from collections.abc import Callable
from typing import Any

import torch


def longest(attempt: Callable[[int], None], first: int, most: int, within: int) -> dict[str, Any]:
    """{"longest": size, "tried": [(size, seconds, GiB held at most or None)]} of sizes that `attempt` takes without running out of memory.

    Sizes double from `first` to `most`, then halves close in on the largest until it is known to `within`; 0 when `first` does not fit.
    """
    tried: list[tuple[int, float, float | None]] = []

    def fits(size: int) -> bool:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        started, held = time.perf_counter(), None
        try:
            attempt(size)
            torch.cuda.synchronize()
            held = round(torch.cuda.max_memory_reserved() / 2**30, 2)
        except torch.OutOfMemoryError as error:
            error.__traceback__ = None  # it holds the tensors of the attempt
        tried.append((size, round(time.perf_counter() - started, 2), held))
        sys.stderr.write(f"{size}: {'does not fit' if held is None else f'{held} GiB'}, {tried[-1][1]} s\n")
        return held is not None

    good, bad = 0, first
    while bad <= most and fits(bad):
        good, bad = bad, bad * 2
    if bad > most:
        return {"longest": good, "tried": tried}
    while bad - good > within:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return {"longest": good, "tried": tried}


def limit_memory(gib: float) -> None:
    """What this process may take of the GPU."""
    share = gib * 2**30 / torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(min(share, 1.0))
