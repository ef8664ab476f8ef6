"""The next rollout is drawn while this one is trained on (`--rollout-lag 1`).

Its completions come from the weights of before the update. They are trained on as any others: the importance weights compare the sampler's
log-probabilities with those of the policy at the time of the update, and so correct for the lag as for the kernels (asynchronous
off-policy RLHF, arXiv 2410.18252, one step). Only the sampler runs in the other thread: no collectives, no training.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import torch

from r1cli.row import Row
from r1cli.train.agreement import highest
from r1cli.train.grpo_config import GrpoConfig, Prompts, value_at
from r1cli.train.progress import Progress, Rollout
from r1cli.train.rollout import Draw, Hooks, take_prompts


class Overlap:
    """The rollout that is drawn ahead, if any. A context manager that waits for its thread at the end."""

    def __init__(self, config: GrpoConfig, hooks: Hooks, progress: Progress) -> None:
        self._config, self._hooks, self._progress = config, hooks, progress
        self._pool = ThreadPoolExecutor(1, "rollout ahead") if config.rollout_lag else None
        self._running: Future[list[Rollout]] | None = None
        self._wanted = 0
        self._taken_before: dict[int, int] = {}

    def begin(self, accelerator: Any, prompts: Prompts, step: int) -> None:
        """Start to draw the rollout that begins at `step`, unless it is there already."""
        config, progress = self._config, self._progress
        if self._pool is None or step >= config.steps or progress.ahead is not None:
            return
        self._taken_before = dict(progress.taken)
        number = config.prompts_per_step * config.parts(step)
        rows = take_prompts(accelerator, prompts, progress, step, number, config)
        self._wanted = len(rows) * config.group_size
        self._running = self._pool.submit(_on_device, accelerator.device, self._hooks.sample, rows, self._draw(step))

    def finish(self, accelerator: Any) -> None:
        """Wait for it: the sampler must be idle before it takes new weights. A rollout that is not whole in every process, because the run
        is asked to end, is forgotten: its prompts are drawn again."""
        if self._running is None:
            return
        drawn, self._running = self._running.result(), None
        if highest(accelerator, int(len(drawn) < self._wanted)):
            self._progress.taken = self._taken_before
        else:
            self._progress.ahead = drawn

    def ready(self) -> tuple[Draw, list[Rollout]] | None:
        """The completions that were drawn ahead for the rollout that is next."""
        ahead = self._progress.ahead
        return None if ahead is None else (self._draw(self._progress.step), ahead)

    def drop(self) -> None:
        """Forget what is being drawn: its prompts are drawn again."""
        if self._running is not None:
            self._hooks.abandon()
            self._running.exception()  # waits
            self._running = None
            self._progress.taken = self._taken_before

    def _draw(self, step: int) -> Draw:
        return Draw(step, 0, value_at(self._config.max_completion_length, step))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.drop()
        if self._pool is not None:
            self._pool.shutdown()


def _on_device(device: torch.device, sample: Callable[[list[Row], Draw], list[Rollout]], rows: list[Row], draw: Draw) -> list[Rollout]:
    """`sample` in another thread, on the GPU of this process: the current one is a thread's own, and at first number 0."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return sample(rows, draw)
