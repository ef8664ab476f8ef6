"""Rewards that begin at a step (`--rewards accuracy,helpful=1@1300`): only those that have begun are asked and counted."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from r1cli.errors import Exit, R1Error
from r1cli.rewards.preference import PreferenceReward, Running
from r1cli.rewards.reward import RewardSpec
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row

Models = Sequence[tuple[RewardSpec, PreferenceReward]]


class StagedScorer:
    """Scores rows with the rewards in force at a step. It owns the worker processes of one stage at a time: a context manager."""

    def __init__(
        self,
        specs: Sequence[RewardSpec],
        models: Models = (),
        *,
        workers: int,
        timeout: float,
        gather: Callable[[list[float]], list[float]] = list,
    ) -> None:
        self._specs, self._models, self._workers, self._timeout, self._gather = specs, models, workers, timeout, gather
        self._scorer: Scorer | None = None
        self._names: list[str] = []
        self._timeouts = 0
        self._said: list[str] = []
        check_stages([*specs, *(spec for spec, _ in models)])

    @property
    def timeouts(self) -> int:
        return self._timeouts + (self._scorer.timeouts if self._scorer else 0)

    def score(self, rows: Sequence[Row], step: int) -> list[Row]:
        """The rows with `rewards` and `reward`, by the rewards that have begun once `step` steps are done."""
        specs = [dataclasses.replace(spec, start=0) for spec in self._specs if spec.start <= step]
        models = [(dataclasses.replace(spec, start=0), model) for spec, model in self._models if spec.start <= step]
        names = [spec.name for spec in specs] + [spec.name for spec, _ in models]
        if self._scorer is None or names != self._names:
            self.close()
            self._scorer, self._names = Scorer(specs, self._workers, self._timeout, models), names
        scored = list(self._scorer.score(rows))
        for _, model in models:
            if model.running is not None:
                scored = self._normalised(self._scorer, model, model.running, rows, scored)
        return scored

    def _normalised(
        self, scorer: Scorer, model: PreferenceReward, running: Running, rows: Sequence[Row], scored: Sequence[Row]
    ) -> list[Row]:
        """The scored rows with the model's logits as scores by what all processes have seen of them, this rollout included."""
        logits = [model.logits.pop(id(row), None) for row in rows]
        running.add(self._gather([logit for logit in logits if logit is not None]))
        finished = []
        for row, logit in zip(scored, logits, strict=True):
            if logit is not None:
                rewards = {**row["rewards"], model.name: running.score(logit)}
                row = row.with_fields(rewards=rewards, reward=scorer.total(rewards))
            finished.append(row)
        return finished

    def memory(self) -> dict[str, list[float]]:
        """What running normalisations have learnt, as plain numbers for a checkpoint."""
        found = ((model.name, model.running) for _, model in self._models if model.running is not None)
        return {f"running {name}": [running.count, running.mean, running.squares] for name, running in found}

    def remember(self, memory: Mapping[str, list[float]]) -> None:
        """Go on from what `memory` said."""
        for _, model in self._models:
            if model.running is not None and f"running {model.name}" in memory:
                model.running = Running(*memory[f"running {model.name}"])

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
