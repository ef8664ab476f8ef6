"""The most memory a training process has held."""

import resource
import sys

import torch


def peak_memory() -> dict[str, float]:
    """In GiB: resident, and of its GPU by torch's allocator if it used one."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    on_gpu = {"peak_gpu_memory_gib": round(torch.cuda.max_memory_reserved() / 2**30, 2)} if torch.cuda.is_initialized() else {}
    return {"peak_memory_gib": round(resident, 2), **on_gpu}
