"""How the processes of a launch train together: data parallelism, or sharded weights (FSDP2, ZeRO) by accelerate's configuration.

accelerate decides by environment variables that `accelerate launch` and `r1 --num-processes` set. What is done beside it here:

- data parallelism is not torch's DistributedDataParallel: every process works through its own micro-batches without a word to the others,
  and gradients are added up once, at the end of a step (`add_up_gradients`). So a process that runs out of memory, or whose loss is not
  finite, can tell the others before anyone waits for it, and the computation copy serves as in a run of one process;
- on a CPU it has to be told that there are several processes (gloo), and it would leave out FSDP without a word: its own FSDP2 path is
  switched on for a CPU as well, which is how tests run it;
- with FSDP2 it casts what a model returns to the computation type, which would round log-probabilities to bfloat16: only weights are cast
  here, and gradients are summed over processes in float32;
- DeepSpeed takes its optimizer step inside of accelerate's `backward`, before the learning rate of the step is known: `backward` and
  `take_step` call its engine instead;
- nothing divides a loss by a number of accumulation steps, whatever the configuration says: losses are parts of a sum over the step;
- FSDP1 is refused.
"""

import importlib.util
import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import (
    DeepSpeedPlugin,
    DistributedType,
    FullyShardedDataParallelPlugin,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
)

from r1cli.errors import Exit, R1Error

MIXED_PRECISION = {"bfloat16": "bf16", "float32": "no"}
WHOLE = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
BIG = 2**20  # elements of a gradient that travels by itself; smaller ones share a message
COLLECTIVE_DEADLINE = timedelta(hours=2)  # rollouts of one process may take much longer than another's; torch's own limit is 10 or 30 min


def start(dtype: str) -> Accelerator:
    """The accelerator of this process (its device, its place among the processes of a launch), computing in `dtype`.

    Raises `R1Error` for a strategy or a type that would not train as it should, and for more processes than GPUs.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    _refuse(world, dtype)
    on_cpu = world > 1 and not torch.cuda.is_available()
    handlers = [InitProcessGroupKwargs(timeout=COLLECTIVE_DEADLINE)]
    accelerator = Accelerator(
        mixed_precision=MIXED_PRECISION[dtype],
        cpu=on_cpu,
        kwargs_handlers=handlers,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # goes before the environment, which would divide each loss
    )
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


def is_whole(accelerator: Any) -> bool:
    """Whether every process holds all weights, gradients and moments: a run of one process, or data parallelism."""
    return getattr(accelerator, "distributed_type", None) in WHOLE


def is_sharded(accelerator: Any) -> bool:
    """Whether every process holds a part of each weight (FSDP2)."""
    return bool(getattr(accelerator, "is_fsdp2", False))


def uses_deepspeed(accelerator: Any) -> bool:
    """Whether DeepSpeed's engine (ZeRO) holds weights, gradients and optimizer."""
    return getattr(accelerator, "distributed_type", None) == DistributedType.DEEPSPEED


def prepare(accelerator: Any, policy: Any, optimizer: Any, max_grad_norm: float) -> tuple[Any, Any]:
    """Policy and optimizer as the strategy wants them, with the weights of the first process everywhere."""
    if is_whole(accelerator):
        policy = accelerator.prepare_model(policy, evaluation_mode=True)  # on the device, and not in DistributedDataParallel
        if accelerator.num_processes > 1:
            for tensor in (*policy.parameters(), *policy.buffers()):
                torch.distributed.broadcast(tensor.detach(), 0)
        return policy, accelerator.prepare(optimizer)
    if uses_deepspeed(accelerator):
        config = accelerator.state.deepspeed_plugin.deepspeed_config
        config["gradient_clipping"], config["train_micro_batch_size_per_gpu"] = max_grad_norm, 1
        config["gradient_accumulation_steps"], config["train_batch_size"] = 1, "auto"  # the engine divides each loss by the first
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
    """Add a micro-batch's gradients. Sharded ones travel between processes with the last one, as means over them; the loss is a part of a
    sum, so it is multiplied by their number."""
    if is_whole(accelerator):
        accelerator.backward(loss)
        return
    scaled = loss * accelerator.num_processes
    if not uses_deepspeed(accelerator):
        accelerator.backward(scaled)
        return
    engine = accelerator.deepspeed_engine_wrapped.engine
    engine.set_gradient_accumulation_boundary(is_boundary=last)
    engine.backward(scaled)
    if not last:
        engine.step()  # counts the micro-batch


@torch.no_grad()
def add_up_gradients(accelerator: Any, parameters: Iterable[torch.Tensor]) -> None:
    """The sum over processes in every process's gradients, of data parallelism."""
    if accelerator.num_processes == 1 or not is_whole(accelerator):
        return
    small: dict[torch.dtype, list[torch.Tensor]] = {}
    on_their_way = []
    for weight in parameters:
        if not weight.requires_grad:
            continue
        if weight.grad is None:  # another process may have used it
            weight.grad = torch.zeros_like(weight)
        if weight.grad.numel() < BIG or not weight.grad.is_contiguous():
            small.setdefault(weight.grad.dtype, []).append(weight.grad)
        else:
            on_their_way.append(torch.distributed.all_reduce(weight.grad, async_op=True))
    for gradients in small.values():
        together = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(together)
        for gradient, total in zip(gradients, together.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))
    for sent in on_their_way:
        sent.wait()


def take_step(accelerator: Any) -> float:
    """DeepSpeed's optimizer step, which clips; the norm before that, NaN when a gradient was not finite and the step was left out.

    ZeRO steps with such a gradient: it looks for one in float16 only, in bfloat16 with stages 1 and 2 where its configuration says so. And
    its norm does not tell: that of a part which is not finite is -1, squared with those of the other parts.
    """
    engine = accelerator.deepspeed_engine_wrapped.engine
    look = getattr(engine.optimizer, "has_overflow", None)  # every process gets the same answer
    if look is not None and look():
        return float("nan")
    engine.step()
    norm = float(engine.get_global_grad_norm())
    return float("nan") if norm < 0 or getattr(engine.optimizer, "overflow", False) else norm


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
    if dtype == "float16":
        raise R1Error(
            "float16 is for sampling, not for training: small gradients vanish in it, and r1 scales no losses",
            hint="--dtype bfloat16, or float32 on a GPU without it",
            code=Exit.USAGE,
        )
    if _asked("ACCELERATE_USE_DEEPSPEED") and importlib.util.find_spec("deepspeed") is None:
        raise R1Error("DeepSpeed is not installed", hint="pip install 'r1cli[deepspeed]', or use FSDP2", code=Exit.ENVIRONMENT)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
    if torch.cuda.is_available() and here > torch.cuda.device_count():
        raise R1Error(
            f"{here} processes on a machine with {torch.cuda.device_count()} GPUs",
            hint=f"--num-processes {torch.cuda.device_count()}",
            code=Exit.USAGE,
        )
