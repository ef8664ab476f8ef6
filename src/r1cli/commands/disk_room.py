"""Whether the disk holds what a training run will write: asked before the first step, not found out after the last one."""

import shutil
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from r1cli.errors import Exit, R1Error
from r1cli.train.lora import LoraReference

if TYPE_CHECKING:
    from r1cli.commands.training import Training

GIB, MIB = 2**30, 2**20
MOMENTS = 2 * 4  # bytes a trained weight: AdamW's two moments in float32


def check_room(training: "Training", total: int) -> None:
    """Of a run of `total` steps: refuse (`R1Error`, exit 3) a disk that does not hold its model, or one checkpoint of those it will save on
    the way; warn of one that does not hold as many as will lie there. Rows, metrics and quotas are not counted.
    """
    if training.run is None:  # not the process that writes
        return
    settings, out = training.settings, training.run.path
    weights = list(training.policy.parameters())
    final = _size(weights if training.merged else _trained(weights))
    checkpoint = checkpoint_size(training)
    every = settings.save_every
    left = max(0, total - training.start_step - 1)
    due = max(left // every if every else 0, 1 if left and getattr(settings, "time_limit", None) else 0)
    free = shutil.disk_usage(out).free
    if free < (checkpoint if due else final):
        what = f"a checkpoint takes {_in_words(checkpoint)}" if due else f"the model takes {_in_words(final)}"
        raise R1Error(
            f"{what}, and the disk of `{out}` has {_in_words(free)} free",
            hint="free some space, then --resume; or give -o a folder on another disk",
            code=Exit.ENVIRONMENT,
        )
    most = final + min(due, settings.keep + 1) * checkpoint  # the oldest one goes when the newest is whole
    if free < most:
        training.context.console.warn(
            f"what is kept takes up to {_in_words(most)} (--keep {settings.keep}), and the disk of `{out}` has {_in_words(free)} free"
        )


def checkpoint_size(training: "Training") -> int:
    """Bytes of a checkpoint: weights, reference and moments."""
    weights, reference = list(training.policy.parameters()), training.reference
    trained = _trained(weights)
    second = [] if reference is None else trained if isinstance(reference, LoraReference) else reference.model.parameters()
    return _size(weights) + _size(second) + MOMENTS * sum(map(_count, trained))


def _trained(weights: Iterable[Any]) -> list[Any]:
    return [weight for weight in weights if weight.requires_grad]


def _size(weights: Iterable[Any]) -> int:
    """Bytes."""
    return sum(_count(weight) * weight.element_size() for weight in weights)


def _count(weight: Any) -> int:
    """Its elements in all processes; one of ZeRO's third stage is empty between the passes."""
    return int(getattr(weight, "ds_numel", None) or weight.numel())


def _in_words(size: float) -> str:
    """Bytes for people: what is less than a GiB is not 0.00 of one."""
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / MIB:.3g} MiB"
