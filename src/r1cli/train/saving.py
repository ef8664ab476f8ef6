"""When a GRPO run saves: when it is due, and before it ends early."""

from typing import Any

from r1cli.errors import R1Error
from r1cli.train.progress import Progress
from r1cli.train.reference import due
from r1cli.train.rollout import Hooks, Interrupted, TooFewPrompts
from r1cli.train.update import NotFinite


class Saving:
    """Saves a run, and knows what of it is saved."""

    def __init__(self, hooks: Hooks, progress: Progress) -> None:
        self._progress, self._save = progress, hooks.save
        self._saved = self._where()

    def save(self) -> None:
        self._save(self._progress)
        self._saved = self._where()

    def is_due(self, every: int) -> bool:
        """Whether there is something to save of every `every` steps (0: never)."""
        return due(every, self._saved[0], self._progress.step)

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

    def _where(self) -> tuple[int, int]:
        """Steps done, and at which point between two of them: a rollout is half trained on, is done with, or the next one is drawn."""
        batch = self._progress.batch
        return self._progress.step, 1 if batch is None else 0 if batch.done else 2
