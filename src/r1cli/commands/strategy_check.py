"""What a device or a way of launching cannot do, asked before anything is written."""

from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.train.strategy import is_whole


def offloaded(settings: Any) -> list[str]:
    """The parts that `--offload` names."""
    return [part for part in (getattr(settings, "offload", None) or "").split(",") if part]


def check_strategy(accelerator: Any, settings: Any) -> None:
    """Refuse (`R1Error`, exit 2) --lora with sharded weights, and --offload where there is nowhere to go, or with sharded weights."""
    asked = offloaded(settings)
    if getattr(settings, "lora", None) is not None and not is_whole(accelerator):
        raise R1Error(
            f"--lora does not train under {accelerator.distributed_type.value}, which shards the weights",
            hint="launch with data parallelism (MULTI_GPU or MULTI_CPU): with LoRA there are hardly any gradients to shard",
            code=Exit.USAGE,
        )
    if asked and accelerator.device.type == "cpu":
        raise R1Error(
            "--offload does nothing here: the model is trained on a CPU, and its memory is where things would go",
            hint="leave it out; --lora and --gradient-checkpointing save memory on a CPU",
            code=Exit.USAGE,
        )
    if asked and not is_whole(accelerator):
        raise R1Error(
            f"--offload does not work under {accelerator.distributed_type.value}",
            hint="set its own offload in the accelerate configuration",
            code=Exit.USAGE,
        )
