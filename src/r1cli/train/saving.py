"""When a GRPO run saves: when it is due, before it ends early, and in time."""

import dataclasses
from typing import Any

from r1cli.errors import R1Error
from r1cli.train.clock import Longest
from r1cli.train.progress import Progress
from r1cli.train.rollout import Hooks, Interrupted, TooFewPrompts
from r1cli.train.update import NotFinite


class Saving:
    """Saves a run, and asks whether to end in time for that. hooks: the run's, with that question."""

    def __init__(self, hooks: Hooks, progress: Progress) -> None:
        self._progress, self._save, self._stopping = progress, Longest(hooks.save), hooks.stopping
        self._saved = self._where()
        self.hooks = dataclasses.replace(hooks, stopping=self.stopping)

    def stopping(self, seconds: float) -> bool:
        """Whether to end now, rather than after `seconds` more of work and another checkpoint."""
        return self._stopping(seconds + self._save.seconds)

    def save(self) -> None:
        self._save(self._progress)
        self._saved = self._where()

    def before_the_end(self, error: Interrupted | R1Error, accelerator: Any) -> None:
        """Save what was learnt since the last checkpoint, where that is possible; then raise the error, if it is one.

        An error between two optimizer steps has harmed nothing, but saving takes all processes, so all must know of it. One that says that
        numbers are broken may come from broken weights: these must not push a good checkpoint out.
        """
        known = isinstance(error, (Interrupted, TooFewPrompts)) or accelerator.num_processes == 1
        if known and not isinstance(error, NotFinite) and self._where() > self._saved:
            self.save()
        if isinstance(error, R1Error):
            raise error

    def _where(self) -> tuple[int, bool]:
        """Steps done, and whether the rollout that they ended with is done with."""
        return self._progress.step, self._progress.batch is None
