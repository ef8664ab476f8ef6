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
from r1cli.train.progress import Ahead, Progress, Rollout
from r1cli.train.rollout import Draw, Hooks, Interrupted, take_prompts


class Overlap:
    """The rollout that is drawn ahead, if any. A context manager that waits for its thread at the end."""

    def __init__(self, config: GrpoConfig, hooks: Hooks, progress: Progress) -> None:
        self._config, self._hooks, self._progress = config, hooks, progress
        self._pool = ThreadPoolExecutor(1, "rollout ahead") if config.rollout_lag else None
        self._running: tuple[Ahead, Future[list[Rollout]]] | None = None

    def begin(self, accelerator: Any, prompts: Prompts, step: int) -> None:
        """Start to draw the rollout that begins at `step`, unless it is there already."""
        config, progress = self._config, self._progress
        if self._pool is None or step >= config.steps or progress.ahead is not None:
            return
        ahead = self._planned(step)
        rows, ahead.sources = take_prompts(accelerator, prompts, progress, step, ahead.prompts, config)
        gpu = torch.cuda.current_device() if accelerator.device.type == "cuda" else None
        self._running = ahead, self._pool.submit(_on_gpu, gpu, self._hooks.sample, rows, Draw(step, 0, ahead.limit))

    def finish(self, accelerator: Any) -> None:
        """Wait for it: the sampler must be idle before it takes new weights. A rollout that is not whole in every process, because the run
        is asked to end, is forgotten: its prompts are drawn again. So is one that an error ended, which is raised here."""
        if self._running is None:
            return
        ahead, future = self._running
        try:
            ahead.completions = future.result()
        except BaseException:
            self.drop()
            raise
        self._running = None
        self._keep(ahead, not highest(accelerator, int(not _is_whole(ahead))))

    def ready(self) -> Ahead | None:
        """What was drawn ahead for the rollout that is next. One of another shape, from before a resumed run was given other settings, is
        forgotten, and that is said."""
        ahead, planned = self._progress.ahead, self._planned(self._progress.step)
        if ahead is None or (ahead.step, ahead.prompts, ahead.group_size) == (planned.step, planned.prompts, planned.group_size):
            return ahead
        number = ahead.prompts * ahead.group_size
        self._hooks.warn(
            f"the {number} completions drawn ahead for step {ahead.step + 1} do not fit the rollout it begins now: drawn again"
        )
        self._keep(ahead, False)
        return None

    def end(self, accelerator: Any, error: Exception) -> None:
        """The run ends early. What is whole in all processes by now is kept, where all of them are here; the rest is drawn again."""
        if self._running is None:
            return
        ahead, future = self._running
        if isinstance(error, Interrupted):
            done = future.done() and future.exception() is None
            if done:
                ahead.completions = future.result()
            if not highest(accelerator, int(not (done and _is_whole(ahead)))):
                self._running = None
                return self._keep(ahead, True)
        self.drop()

    def drop(self) -> None:
        """Forget what is being drawn: its prompts are drawn again."""
        if self._running is None:
            return
        (ahead, future), self._running = self._running, None
        self._hooks.abandon()
        future.exception()  # waits
        self._keep(ahead, False)

    def _planned(self, step: int) -> Ahead:
        """The rollout that begins at `step`, by the settings of this run and with the prompts that are next."""
        config = self._config
        number = config.prompts_per_step * config.parts(step)
        return Ahead(step, number, config.group_size, value_at(config.max_completion_length, step), dict(self._progress.taken), [])

    def _keep(self, ahead: Ahead, whole: bool) -> None:
        self._progress.ahead = ahead if whole else None
        if not whole:
            self._progress.taken = ahead.taken

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.drop()
        if self._pool is not None:
            self._pool.shutdown()


def _is_whole(ahead: Ahead) -> bool:
    """Whether all completions of this process are there."""
    return len(ahead.completions) == len(ahead.sources) * ahead.group_size


def _on_gpu(number: int | None, sample: Callable[[list[Row], Draw], list[Rollout]], rows: list[Row], draw: Draw) -> list[Rollout]:
    """`sample` in another thread, on the GPU of this process if it has one: the current one is a thread's own, and at first number 0."""
    if number is not None:
        torch.cuda.set_device(number)
    return sample(rows, draw)
