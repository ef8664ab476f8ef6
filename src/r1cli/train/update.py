"""One optimizer step from micro-batches: forward, backward, clip, step; the same result however the step is cut or spread."""

import contextlib
import math
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from r1cli.errors import R1Error
from r1cli.train.agreement import failing_together, highest
from r1cli.train.batches import MicroBatch
from r1cli.train.model import give_back_freed_memory
from r1cli.train.optimiser import OptimiserConfig
from r1cli.train.strategy import add_up_gradients, backward, is_whole, reshard, take_step, uses_deepspeed

LossOf = Callable[..., tuple[Tensor, dict[str, Tensor]]]
T = TypeVar("T")
AUTOMATIC_TOKENS = {"cpu": 8192, "cuda": 65536}  # a GPU says when it is too much; on a CPU the system ends the process instead
NO_MEMORY = (  # what else a library says of it
    "out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED", "CUDNN_STATUS_ALLOC_FAILED",
)  # fmt: skip
FEWEST_TOKENS = 64  # a budget below this means that the model itself does not fit


class NotFinite(R1Error):
    """A loss or a gradient that is not a number; the weights are as they were."""


class OutOfMemory(MemoryError):
    """A process has no memory left for its micro-batches, and all processes know."""


class TokenBudget:
    """Most tokens of a micro-batch. Work that runs out of memory is done again with half of them, and the rest of the run keeps that.

    tokens: 0 is as many as is usual for the accelerator's device.

    All processes halve when one of them has to, where all of them know (`OutOfMemory`). Else the run ends: with sharded weights, or between
    the micro-batches, the others wait in a collective for the one that failed.
    """

    def __init__(self, accelerator: Any, tokens: int, say: Callable[[str], None] = lambda text: None) -> None:
        self._accelerator = accelerator
        self.tokens = tokens or AUTOMATIC_TOKENS.get(accelerator.device.type, AUTOMATIC_TOKENS["cpu"])
        self._say = say

    def within(self, attempt: Callable[[int], T]) -> T:
        """What `attempt(tokens)` returns. It must start from nothing each time: gradients are dropped by `update` at its beginning."""
        while True:
            try:
                return attempt(self.tokens)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                self._halve(error)
            if torch.cuda.is_available():  # outside of the except block: there the traceback still holds the tensors
                torch.cuda.empty_cache()

    def _halve(self, error: Exception) -> None:
        half = self.tokens // 2
        known = self._accelerator.num_processes == 1 or isinstance(error, OutOfMemory)
        if not known or half < FEWEST_TOKENS:
            hint = "add --gradient-checkpointing, lower --gpu-memory where vLLM is in the same process, or train on shorter sequences"
            hint = hint if half < FEWEST_TOKENS else f"--microbatch-tokens {half}, or add --gradient-checkpointing"
            raise R1Error(f"out of memory with micro-batches of {self.tokens} tokens", hint=hint) from error
        self._say(f"out of memory with micro-batches of {self.tokens} tokens: going on with {half} (--microbatch-tokens {half})")
        self.tokens = half


def out_of_memory(error: BaseException) -> bool:
    """Whether this is a device or the machine having no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in NO_MEMORY)


def forward(policy: Any, batch: MicroBatch) -> tuple[Tensor, ...]:
    """What a model gives for a micro-batch: a `Policy` (log-probabilities [N], entropies [N]) of its completion tokens, a `RewardModel`
    (scores [N],); wrapped by accelerate or not."""
    return policy(batch.input_ids_BT, batch.position_ids_BT, batch.marks_BT, batch.source_N, batch.target_N)


def update(
    accelerator: Any,
    policy: Any,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[MicroBatch],
    loss_of: LossOf,
    *,
    lr: float,
    config: OptimiserConfig,
    where: str,
) -> dict[str, float]:
    """One optimizer step over this process's micro-batches; returns what `loss_of` measured, summed over all processes.

    loss_of(batch, *what `forward` gave) -> (loss, sums): the micro-batch's part of a sum that is already divided by step-wide counts,
    and figures to add up.
    Raises `NotFinite` before the optimizer moves when the loss or the gradient is not finite, in every process. `where` names the step for
    that message. Out of memory is raised in every process as well, unless the weights are sharded.
    """
    policy.train()
    optimizer.zero_grad(set_to_none=True)
    accelerator.unwrap_model(policy).forget_gradients()
    with _together(accelerator, where):
        sums = _gradients(accelerator, policy, batches, loss_of, where)
    add_up_gradients(accelerator, policy.parameters())
    for group in optimizer.param_groups:
        group["lr"] = lr
    if uses_deepspeed(accelerator):
        norm = torch.tensor(take_step(accelerator))
    else:
        norm = accelerator.clip_grad_norm_(policy.parameters(), config.max_grad_norm or float("inf"))
    if not torch.isfinite(norm):
        raise NotFinite(
            f"the gradient of {where} is not finite; the weights were not touched",
            hint="lower --lr, or --dtype float32 to rule out overflow",
        )
    if not uses_deepspeed(accelerator):
        _step(optimizer, where)
    optimizer.zero_grad(set_to_none=True)  # 4 bytes a weight that the sampler, the reference or a checkpoint can have
    if getattr(accelerator.unwrap_model(policy).model, "is_gradient_checkpointing", False):
        give_back_freed_memory()  # steps differ in size, and holes that the next one does not fit add up; here memory is what counts
    names = sorted(sums)
    totals = accelerator.reduce(torch.stack([sums[name].float() for name in names]), "sum").tolist()
    return {**dict(zip(names, totals, strict=True)), "grad_norm": float(norm), "lr": lr}


def _step(optimizer: torch.optim.Optimizer, where: str) -> None:
    """Out of memory in here leaves some weights moved and others not: it must not be tried again."""
    try:
        optimizer.step()
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise R1Error(
            f"out of memory in the optimizer's own step, {where}",
            hint="--lora, or lower --gpu-memory where vLLM is in the same process; --resume goes on from the last checkpoint",
        ) from error


def _gradients(accelerator: Any, policy: Any, batches: Sequence[MicroBatch], loss_of: LossOf, where: str) -> dict[str, Tensor]:
    """The passes of a step; returns what `loss_of` measured in this process. A repeated batch (`_passes`) weighs nothing."""
    sums: dict[str, Tensor] = {}
    passes = _passes(accelerator, len(batches))
    for number in range(passes):
        batch = batches[min(number, len(batches) - 1)].to(accelerator.device)
        last = number == passes - 1
        with contextlib.nullcontext() if last else accelerator.no_sync(policy):  # sharded gradients travel with the last pass
            with accelerator.autocast():
                given = forward(policy, batch)
            loss, figures = loss_of(batch, *given)
            if number >= len(batches):
                loss, figures = loss * 0, {name: value * 0 for name, value in figures.items()}
            backward(accelerator, loss, last=last)
        for name, value in {"loss": loss, **figures}.items():
            sums[name] = sums.get(name, torch.zeros((), device=accelerator.device)) + value.detach()
    total = sums["loss"].item()  # only now: a GPU has work to do while the next passes are prepared
    if not math.isfinite(total):
        raise _no_number(where, f" ({total})")
    return sums


@torch.no_grad()
def measure(accelerator: Any, policy: Any, batches: Sequence[MicroBatch]) -> dict[int, Tensor]:
    """Log-probabilities of every sample under a policy (a reward model: scores), without gradient: {sample index: [its tokens that
    count] on the CPU}."""
    policy.eval()
    found: dict[int, Tensor] = {}
    with _together(accelerator, "a measurement"):
        for number in range(_passes(accelerator, len(batches))):
            batch = batches[min(number, len(batches) - 1)].to(accelerator.device)
            with accelerator.autocast():
                values_N, *_ = forward(policy, batch)
            lengths = [sample.trained_tokens for sample in batch.samples]
            for sample, values in zip(batch.samples, values_N.cpu().split(lengths), strict=True):
                found[sample.index] = values
    reshard(accelerator, policy)
    return found


def _passes(accelerator: Any, mine: int) -> int:
    """Forward passes of this process for its own micro-batches. With sharded weights as many as any process needs: each is a collective,
    and a process without a micro-batch left repeats one."""
    return mine if is_whole(accelerator) else highest(accelerator, mine)


@contextlib.contextmanager
def _together(accelerator: Any, where: str) -> Iterator[None]:
    """An error that ends or repeats the step in one process does so in all. Sharded weights are gathered inside the passes: too late."""
    if not is_whole(accelerator):
        yield
        return
    others = {
        OutOfMemory: lambda: OutOfMemory("out of memory in another process"),
        NotFinite: lambda: _no_number(where, " in another process"),
    }
    with failing_together(accelerator, others):
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold the tensors of the work; what follows needs a little memory
            raise OutOfMemory(str(error)) from error


def _no_number(where: str, more: str) -> NotFinite:
    return NotFinite(
        f"the loss of {where} is not finite{more}; the weights were not touched",
        hint="lower --lr, or --dtype float32 to rule out overflow",
    )
