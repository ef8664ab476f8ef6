"""One optimizer step from micro-batches: forward, backward, clip, step; the same result however the step is cut or spread."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from r1cli.errors import R1Error
from r1cli.train.batches import MicroBatch
from r1cli.train.logprobs import Policy
from r1cli.train.optimiser import OptimiserConfig
from r1cli.train.strategy import backward, reshard, take_step, uses_deepspeed

LossOf = Callable[..., tuple[Tensor, dict[str, Tensor]]]
T = TypeVar("T")
AUTOMATIC_TOKENS = {"cpu": 8192, "cuda": 65536}  # a GPU says when it is too much; on a CPU the system ends the process instead
FEWEST_TOKENS = 64  # a budget below this means that the model itself does not fit


class NotFinite(R1Error):
    """A loss or a gradient that is not a number; the weights are as they were."""


class TokenBudget:
    """Most tokens of a micro-batch. Work that runs out of memory is done again with half of them, and the rest of the run keeps that.

    tokens: 0 is as many as is usual for the accelerator's device.

    It tries again only in a run of one process: in the others a pass that fails on one process leaves the rest waiting in a collective.
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
        if self._accelerator.num_processes > 1 or half < FEWEST_TOKENS:
            hint = "add --gradient-checkpointing, or train on shorter sequences"
            hint = hint if half < FEWEST_TOKENS else f"--microbatch-tokens {half}, or add --gradient-checkpointing"
            raise R1Error(f"out of memory with micro-batches of {self.tokens} tokens", hint=hint) from error
        self._say(f"out of memory with micro-batches of {self.tokens} tokens: going on with {half} (--microbatch-tokens {half})")
        self.tokens = half


def out_of_memory(error: BaseException) -> bool:
    """Whether this is a device or the machine having no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and ("out of memory" in str(error) or "can't allocate memory" in str(error))


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
    and figures to add up. Gradients are averaged over processes by DDP and FSDP, so the loss is multiplied by their number.
    Every process runs the same number of passes (collectives inside them would hang otherwise): the shorter ones repeat a batch at
    weight 0.
    Raises `NotFinite` before the optimizer moves when the loss or the gradient is not finite. `where` names the step for that message.
    """
    policy.train()
    optimizer.zero_grad(set_to_none=True)
    passes = _most(accelerator, len(batches))
    sums: dict[str, Tensor] = {}
    for number in range(passes):
        idle = number >= len(batches)
        batch = batches[min(number, len(batches) - 1)].to(accelerator.device)
        last = number == passes - 1
        with _gradients_stay_local(accelerator, policy, not last):
            with accelerator.autocast():
                given = forward(policy, batch)
            loss, figures = loss_of(batch, *given)
            if idle:
                loss, figures = loss * 0, {name: value * 0 for name, value in figures.items()}
            if not torch.isfinite(loss):
                raise NotFinite(
                    f"the loss of {where} is not finite ({loss.item()}); the weights were not touched",
                    hint="lower --lr, or look at samples.jsonl for broken rows",
                )
            backward(accelerator, loss, last=last)
        for name, value in {"loss": loss, **figures}.items():
            sums[name] = sums.get(name, torch.zeros((), device=accelerator.device)) + value.detach()
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
        optimizer.step()
    names = sorted(sums)
    totals = accelerator.reduce(torch.stack([sums[name].float() for name in names]), "sum").tolist()
    return {**dict(zip(names, totals, strict=True)), "grad_norm": float(norm), "lr": lr}


@torch.no_grad()
def measure(accelerator: Any, policy: Any, batches: Sequence[MicroBatch]) -> dict[int, Tensor]:
    """Log-probabilities of every sample under a policy (a reward model: scores), without gradient: {sample index: [its tokens that
    count] on the CPU}."""
    policy.eval()
    found: dict[int, Tensor] = {}
    passes = _most(accelerator, len(batches))
    for number in range(passes):
        batch = batches[min(number, len(batches) - 1)].to(accelerator.device)
        with accelerator.autocast():
            values_N, *_ = forward(policy, batch)
        lengths = [sample.trained_tokens for sample in batch.samples]
        for sample, values in zip(batch.samples, values_N.cpu().split(lengths), strict=True):
            found[sample.index] = values
    reshard(accelerator, policy)
    return found


def unwrap(accelerator: Any, policy: Any) -> Policy:
    return accelerator.unwrap_model(policy)


def _most(accelerator: Any, mine: int) -> int:
    """The largest number of micro-batches any process has."""
    if accelerator.num_processes == 1:
        return mine
    counts = accelerator.gather(torch.tensor([mine], device=accelerator.device))
    return int(counts.max())


def _gradients_stay_local(accelerator: Any, policy: Any, local: bool) -> Any:
    """Gradients travel between processes with the last micro-batch only."""

    return accelerator.no_sync(policy) if local and accelerator.num_processes > 1 else contextlib.nullcontext()
