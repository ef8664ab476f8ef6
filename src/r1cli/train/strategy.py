"""How the processes of a launch train together: data parallelism (DDP), or sharded weights (FSDP2) by accelerate's configuration.

accelerate decides by environment variables that `accelerate launch` and `r1 --num-processes` set. What is done beside it here:

- on a CPU it has to be told that there are several processes (gloo), and it would leave out FSDP without a word: its own FSDP2 path is
  switched on for a CPU as well, which is how tests run it;
- with FSDP2 it casts what a model returns to the computation type, which would round log-probabilities to bfloat16: only weights are cast
  here, and gradients are summed over processes in float32;
- DeepSpeed takes its optimizer step inside of accelerate's `backward`, before the learning rate of the step is known: `backward` and
  `take_step` call its engine instead;
- FSDP1 is refused.
"""

import importlib.util
import os
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import DeepSpeedPlugin, DistributedType, FullyShardedDataParallelPlugin, InitProcessGroupKwargs

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
    if on_cpu and _asked("ACCELERATE_USE_DEEPSPEED"):
        accelerator.state.deepspeed_plugins = plugin = DeepSpeedPlugin()
        plugin.set_mixed_precision(MIXED_PRECISION[dtype])
        plugin.select(_from_accelerator_state=True)
        accelerator.state._mixed_precision = "no"  # as accelerate does: the engine casts the model
        accelerator.state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.DEEPSPEED
    if uses_deepspeed(accelerator):
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()  # it would cut the models of the sampler and the reference into pieces that nobody gathers
    if is_sharded(accelerator):
        from torch.distributed.fsdp import MixedPrecisionPolicy

        kind = None if dtype == "float32" else getattr(torch, dtype)
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(param_dtype=kind, reduce_dtype=torch.float32)
    return accelerator


def is_sharded(accelerator: Any) -> bool:
    """Whether every process holds a part of each weight (FSDP2)."""
    return bool(getattr(accelerator, "is_fsdp2", False))


def uses_deepspeed(accelerator: Any) -> bool:
    """Whether DeepSpeed's engine (ZeRO) holds weights, gradients and optimizer."""
    return getattr(accelerator, "distributed_type", None) == DistributedType.DEEPSPEED


def prepare(accelerator: Any, policy: Any, optimizer: Any, max_grad_norm: float) -> tuple[Any, Any]:
    """Policy and optimizer as the strategy wraps them."""
    if uses_deepspeed(accelerator):
        config = accelerator.state.deepspeed_plugin.deepspeed_config
        config["gradient_clipping"], config["train_micro_batch_size_per_gpu"] = max_grad_norm, 1
        if config["zero_optimization"]["stage"] == 3:
            import deepspeed

            head = policy.model.get_output_embeddings()  # used by the policy itself (`TokenLogprobs`), not through its module
            for weight in head.parameters(recurse=False):
                deepspeed.zero.register_external_parameter(policy, weight)
    return accelerator.prepare(policy, optimizer)


def shard(accelerator: Any, module: Any) -> Any:
    """A frozen module on this process's device, shared out like the policy with FSDP2, else whole."""
    if not is_sharded(accelerator):
        return module.to(accelerator.device)
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    return fsdp2_prepare_model(accelerator, module)


def reshard(accelerator: Any, module: Any) -> None:
    """Let go of what a pass without a backward one leaves gathered, rounded to the computation type (FSDP2's outermost unit)."""
    if is_sharded(accelerator):
        for part in module.modules():
            if hasattr(part, "set_requires_gradient_sync"):  # an FSDPModule
                part.reshard()


def cut_like(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """This process's part of a whole tensor that every process has, as `weight` is cut."""
    if not hasattr(weight, "device_mesh"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)


def backward(accelerator: Any, loss: torch.Tensor, *, last: bool) -> None:
    """Add a micro-batch's gradients; they travel between processes with the last one. Gradients are means over processes: see `update`."""
    scaled = loss * accelerator.num_processes
    if not uses_deepspeed(accelerator):
        accelerator.backward(scaled)
        return
    engine = accelerator.deepspeed_engine_wrapped.engine
    engine.set_gradient_accumulation_boundary(is_boundary=last)
    engine.backward(scaled)
    if not last:
        engine.step()  # counts the micro-batch


def take_step(accelerator: Any) -> float:
    """DeepSpeed's optimizer step, which clips; the norm before that, NaN when a gradient was not finite and the step was left out."""
    engine = accelerator.deepspeed_engine_wrapped.engine
    engine.step()
    return float("nan") if getattr(engine.optimizer, "overflow", False) else float(engine.get_global_grad_norm())


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor as it is without sharding, gathered when it is a part; every process must call it for the same tensor."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _asked(name: str) -> bool:
    return os.environ.get(name, "false").lower() == "true"


def _refuse(world: int, dtype: str) -> None:
    if _asked("ACCELERATE_USE_FSDP") and os.environ.get("FSDP_VERSION", "1") != "2":
        raise R1Error(
            "FSDP1 is not supported",
            hint="set `fsdp_version: 2` in accelerate's configuration (examples/accelerate/fsdp2.yaml)",
            code=Exit.USAGE,
        )
    if dtype == "float16" and (_asked("ACCELERATE_USE_FSDP") or _asked("ACCELERATE_USE_DEEPSPEED")):
        raise R1Error("float16 with sharded weights loses gradients: r1 scales no losses there", hint="--dtype bfloat16", code=Exit.USAGE)
    if _asked("ACCELERATE_USE_DEEPSPEED") and importlib.util.find_spec("deepspeed") is None:
        raise R1Error("DeepSpeed is not installed", hint="pip install 'r1cli[deepspeed]', or use FSDP2", code=Exit.ENVIRONMENT)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
    if torch.cuda.is_available() and here > torch.cuda.device_count():
        raise R1Error(
            f"{here} processes on a machine with {torch.cuda.device_count()} GPUs",
            hint=f"--num-processes {torch.cuda.device_count()}",
            code=Exit.USAGE,
        )
