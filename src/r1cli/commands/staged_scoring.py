"""Rewards that begin at a step (`--rewards accuracy,helpful=1@1300`): only those that have begun are asked and counted."""

import dataclasses
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from r1cli.errors import Exit, R1Error
from r1cli.rewards.reward import RewardSpec
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row


class StagedScorer:
    """Scores rows with the rewards in force at a step. It owns the worker processes of one stage at a time: a context manager."""

    def __init__(self, specs: Sequence[RewardSpec], *, workers: int, timeout: float) -> None:
        self._specs, self._workers, self._timeout = specs, workers, timeout
        self._scorer: Scorer | None = None
        self._names: list[str] = []
        self._timeouts = 0
        self._said: list[str] = []
        check_stages(specs)

    @property
    def timeouts(self) -> int:
        return self._timeouts + (self._scorer.timeouts if self._scorer else 0)

    def score(self, rows: Sequence[Row], step: int) -> list[Row]:
        """The rows with `rewards` and `reward`, by the rewards that have begun once `step` steps are done."""
        names = [spec.name for spec in self._specs if spec.start <= step]
        if self._scorer is None or names != self._names:
            self.close()
            specs = [dataclasses.replace(spec, start=0) for spec in self._specs if spec.start <= step]
            self._scorer, self._names = Scorer(specs, workers=self._workers, timeout=self._timeout), names
        return list(self._scorer.score(rows))

    def warnings(self) -> list[str]:
        """What the rewards of every stage have to say about the data."""
        return list(dict.fromkeys([*self._said, *(self._scorer.warnings() if self._scorer else [])]))

    def close(self) -> None:
        if self._scorer is not None:
            self._timeouts += self._scorer.timeouts
            self._said += self._scorer.warnings()
            self._scorer.close()
            self._scorer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def check_stages(specs: Sequence[RewardSpec]) -> None:
    """Refuse (`R1Error`, exit 2) rewards of which none counts at the beginning."""
    if all(spec.start > 0 for spec in specs):
        first = min(spec.start for spec in specs)
        raise R1Error(f"no reward counts before step {first}", hint="leave the @STEP off at least one of --rewards", code=Exit.USAGE)
