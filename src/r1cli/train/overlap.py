"""The next rollout is drawn while this one is trained on (`--rollout-lag 1`).

Its completions come from the weights of before the update. They are trained on as any others: the importance weights compare the sampler's
log-probabilities with those of the policy at the time of the update, and so correct for the lag as for the kernels (asynchronous
off-policy RLHF, arXiv 2410.18252, one step). Only the sampler runs in the other thread: no collectives, no training.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from r1cli.train.grpo_config import GrpoConfig, Prompts, value_at
from r1cli.train.progress import Progress, Rollout
from r1cli.train.rollout import Draw, Hooks, take_prompts


class Overlap:
    """The rollout that is drawn ahead, if any. A context manager that waits for its thread at the end."""

    def __init__(self, config: GrpoConfig, hooks: Hooks, progress: Progress) -> None:
        self._config, self._hooks, self._progress = config, hooks, progress
        self._pool = ThreadPoolExecutor(1, "rollout ahead") if config.rollout_lag else None
        self._running: Future[list[Rollout]] | None = None
        self._taken_before: dict[int, int] = {}

    def begin(self, accelerator: Any, prompts: Prompts, step: int) -> None:
        """Start to draw the rollout that begins at `step`."""
        config, progress = self._config, self._progress
        if self._pool is None or step >= config.steps:
            return
        self._taken_before = dict(progress.taken)
        number = config.prompts_per_step * config.parts(step)
        rows = take_prompts(accelerator, prompts, progress, step, number, config)
        self._running = self._pool.submit(self._hooks.sample, rows, self._draw(step))

    def finish(self) -> None:
        """Wait for it: the sampler must be idle before it takes new weights."""
        if self._running is not None:
            self._progress.ahead = self._running.result()
            self._running = None

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
