"""`r1 grpo --held-out`: rule accuracy on problems that are never trained on, measured with the policy's weights while it is trained.

Preference rewards can rise because a policy has found what a reward model likes (longer answers, flattery) while it forgets how to reason.
What a rule says of problems that nobody trains on cannot be talked round; the alarm `reward-hacking` compares the two.

One completion a problem, at the run's temperature, with the same seeds every time: two measurements differ by the weights alone.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from r1cli.commands.grpo_prompts import held_out_rule
from r1cli.commands.sampling import Sampler
from r1cli.grpo_settings import GrpoSettings
from r1cli.rewards.reward import RewardSpec
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row, seed_of
from r1cli.shared_settings import Changing
from r1cli.train.agreement import of_all
from r1cli.train.grpo_config import value_at
from r1cli.train.reference import due
from r1cli.train.rollout import Interrupted

ACCURACY, PROBLEMS, BEFORE = "held_out/accuracy", "held_out/problems", "held_out/accuracy_before"


class HeldOutAccuracy:
    """Measures it; every process draws its share of the problems and must call `measured` at the same places.

    stopping: whether the run is asked to end.
    """

    def __init__(
        self, settings: GrpoSettings, rows: Sequence[Row], sampler: Sampler, accelerator: Any, stopping: Callable[[], bool]
    ) -> None:
        self._settings, self._sampler, self._stopping, self._accelerator = settings, sampler, stopping, accelerator
        self._rows = list(rows)[accelerator.process_index :: accelerator.num_processes]
        self._rule: RewardSpec | None = held_out_rule(settings) if rows else None

    def due(self, before: int, after: int) -> bool:
        """Whether a measurement falls between two counts of steps done; one always follows the last step."""
        settings = self._settings
        return self._rule is not None and (due(settings.held_out_every, before, after) or after >= settings.steps)

    def measured(self, step: int) -> dict[str, float]:
        """The mean of the rule over the problems that it applies to, and how many these are; empty when there is nothing to say.

        step: steps done, for the length limit in force.

        Raises `Interrupted`, in every process, when the run is asked to end before it is whole.
        """
        if self._rule is None:
            return {}
        settings = self._settings
        limit = value_at(Changing(settings.max_completion_length).switches(), step)
        self._sampler.params = dataclasses.replace(self._sampler.params, max_tokens=limit)
        rows = [drawn.row for drawn in self._sampler.draw(self._rows, samples=1, seed=seed_of(settings.seed, "held out", 0))]
        rule = self._rule
        with Scorer([rule], settings.reward_workers, settings.reward_timeout) as scorer:
            scores = [row["rewards"][rule.name] for row in scorer.score(rows)]
        known = [score for score in scores if score is not None]
        gather = partial(of_all, self._accelerator)
        if any(gather([float(self._stopping())])):
            raise Interrupted
        total, count = sum(gather([sum(known)])), sum(gather([float(len(known))]))
        return {ACCURACY: total / count, PROBLEMS: count} if count else {}
