"""How the processes of a launch train together: data parallelism (DDP), or sharded weights (FSDP2) by accelerate's configuration.

accelerate decides by environment variables that `accelerate launch` and `r1 --num-processes` set. What is done beside it here:

- on a CPU it has to be told that there are several processes (gloo), and it would leave out FSDP without a word: its own FSDP2 path is
  switched on for a CPU as well, which is how tests run it;
- with FSDP2 it casts what a model returns to the computation type, which would round log-probabilities to bfloat16: only weights are cast
  here, and gradients are summed over processes in float32;
- FSDP1 and DeepSpeed are refused: see `_refuse`.
"""

import os
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, InitProcessGroupKwargs

from r1cli.errors import Exit, R1Error

MIXED_PRECISION = {"bfloat16": "bf16", "float16": "fp16", "float32": "no"}
COLLECTIVE_DEADLINE = timedelta(hours=2)  # rollouts of one process may take much longer than another's; torch's own limit is 10 or 30 min


def start(dtype: str) -> Accelerator:
    """The accelerator of this process (its device, its place among the processes of a launch), computing in `dtype`.

    Raises `R1Error` for a strategy that would not train as it should, and for more processes than GPUs.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    _refuse(world, dtype)
    on_cpu = world > 1 and not torch.cuda.is_available()
    handlers = [InitProcessGroupKwargs(timeout=COLLECTIVE_DEADLINE)]
    accelerator = Accelerator(mixed_precision=MIXED_PRECISION[dtype], cpu=on_cpu, kwargs_handlers=handlers)
    if on_cpu and _asked("ACCELERATE_USE_FSDP"):
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        accelerator.state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    if is_sharded(accelerator):
        from torch.distributed.fsdp import MixedPrecisionPolicy

        kind = None if dtype == "float32" else getattr(torch, dtype)
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(param_dtype=kind, reduce_dtype=torch.float32)
    return accelerator


def is_sharded(accelerator: Any) -> bool:
    """Whether every process holds a part of each weight (FSDP2)."""
    return bool(getattr(accelerator, "is_fsdp2", False))


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor as it is without sharding, gathered when it is a part; every process must call it for the same tensor."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # type: ignore[operator]


def _asked(name: str) -> bool:
    return os.environ.get(name, "false").lower() == "true"


def _refuse(world: int, dtype: str) -> None:
    if _asked("ACCELERATE_USE_FSDP") and os.environ.get("FSDP_VERSION", "1") != "2":
        raise R1Error(
            "FSDP1 is not supported",
            hint="set `fsdp_version: 2` in accelerate's configuration (examples/accelerate/fsdp2.yaml)",
            code=Exit.USAGE,
        )
    if _asked("ACCELERATE_USE_FSDP") and dtype == "float16":
        raise R1Error("float16 with FSDP2 loses gradients: there is no loss scaling", hint="--dtype bfloat16", code=Exit.USAGE)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
    if torch.cuda.is_available() and here > torch.cuda.device_count():
        raise R1Error(
            f"{here} processes on a machine with {torch.cuda.device_count()} GPUs",
            hint=f"--num-processes {torch.cuda.device_count()}",
            code=Exit.USAGE,
        )
