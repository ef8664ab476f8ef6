"""Preference rewards: a reward model's view of a completion, and how its logit becomes a score in 0..1.

    summary   what follows the reasoning (`text.think.split`), stripped: DeepSeek-R1's helpful reward
    full      the whole response, the opening tag that the prompt wrote included: its harmless reward

What no model is asked about has a defined score, is counted, and is said at the end (`complaints`):

    no summary   `summary` sees a response that never closes its reasoning, or closes it and says nothing: option `no_summary` (0)
    too long     the conversation does not fit the model's context: option `too_long` (0), or the run stops there (`error`)

A score that is no finite number is an error that names the row.

The model is anything with `score`, here or on a server (`engines.reward_model`, `engines.reward_server`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from r1cli.errors import Exit, R1Error
from r1cli.rewards.model_spec import ERROR, WHOLE, ModelSpec
from r1cli.rewards.reward import UNDECIDED, Reward, Score, Undecided
from r1cli.row import Row, require
from r1cli.text.reply import Conversation
from r1cli.text.think import THINK, opened_by, split

BATCH_ROWS = 256


class RewardModel(Protocol):
    """A model that scores conversations."""

    def score(self, conversations: Sequence[Conversation]) -> list[float | None]:
        """A logit each, in order; None for one that does not fit the model's context. Raises `R1Error` (exit 3) when the model is gone."""
        ...


def viewed(row: Row, view: str, *, whole: bool = False) -> str | None:
    """What a view shows of a completion row; None when there is no summary to show.

    whole: a response that never begins to reason is its own summary. Raises `R1Error` (exit 2) without a `completion`.
    """
    completion = require(row, "completion", str)
    prefix = row.get("think_prefix")
    if view == "full":
        return (prefix if isinstance(prefix, str) else "") + completion
    parts = split(completion, opened_by(prefix))
    if THINK[1] not in completion and not (whole and parts.closed):
        return None
    return parts.rest.strip() or None


@dataclass(slots=True)
class Running:
    """Mean and spread of all logits so far (Welford 1962, in the form for batches of Chan, Golub and LeVeque 1983).

    A score is sigmoid((logit - mean) / standard deviation): 0.5 is an average response of this run, whatever the scale of the model.
    """

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, logits: Sequence[float]) -> None:
        """Take a batch in."""
        if not logits:
            return
        size, mean = len(logits), math.fsum(logits) / len(logits)
        shift, total = mean - self.mean, self.count + size
        self.squares += math.fsum((x - mean) ** 2 for x in logits) + shift * shift * self.count * size / total
        self.mean += shift * size / total
        self.count = total

    def score(self, logit: float) -> float:
        spread = math.sqrt(self.squares / self.count) if self.count else 0.0
        return sigmoid((logit - self.mean) / spread) if spread else 0.5


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), without overflow."""
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


class PreferenceReward(Reward):
    """A reward model as one of the rewards: scores rows in batches, on the scorer's own thread.

    no_summary, too_long: rows so far that got the score of that name.
    logits: with `scale=running`, what the model said of rows by `id(row)`, until `StagedScorer` takes it away; so long their score is 0.5.
    """

    local = True
    batched = True
    batch_rows = BATCH_ROWS

    def __init__(self, spec: ModelSpec, model: RewardModel) -> None:
        self.name, self.spec, self._model = spec.name, spec, model
        self.running = Running() if spec.options.scale == "running" else None
        self.logits: dict[int, float] = {}
        self.no_summary = self.too_long = 0

    def quick(self, row: Row) -> Score | Undecided:
        """The defined score of a row that has no summary; anything else is for the model."""
        require(row, "prompt", str, list)
        if self._seen(row) is not None:
            return UNDECIDED
        self.no_summary += 1
        given = self.spec.options.no_summary
        return 0.0 if isinstance(given, str) else given

    def score(self, row: Row) -> Score:
        return self.score_batch([row])[0]

    def score_batch(self, rows: Sequence[Row]) -> list[Score]:
        """A score in 0..1 each. Raises `R1Error`: exit 1 when the model gave no finite number, exit 3 when its server is gone."""
        logits = self._model.score([(row["prompt"], self._seen(row) or "") for row in rows])
        return [self._scored(row, logit) for row, logit in zip(rows, logits, strict=True)]

    def complaints(self) -> list[str]:
        options, said = self.spec.options, []
        if self.no_summary:
            given = 0.0 if isinstance(options.no_summary, str) else options.no_summary
            said.append(f"{self.no_summary} completions have no summary after </think>: `{self.name}` is {given:g} for them")
        if self.too_long:
            said.append(f"{self.too_long} completions do not fit the context of `{self.name}`: it is {options.too_long:g} for them")
        return said

    def _seen(self, row: Row) -> str | None:
        options = self.spec.options
        return viewed(row, options.view, whole=options.no_summary == WHOLE)

    def _scored(self, row: Row, logit: float | None) -> float:
        if logit is None:
            return self._not_fitting(row)
        if not math.isfinite(logit):
            raise R1Error(
                f"reward model `{self.name}` gave {logit} for row `{row.get('id', '?')}`",
                hint="its weights or its computation type are broken: try :dtype=float32, or another checkpoint",
                code=Exit.FAILED,
            )
        if self.running is None:
            return sigmoid(logit)
        self.logits[id(row)] = logit
        return 0.5

    def _not_fitting(self, row: Row) -> float:
        self.too_long += 1
        given: Any = self.spec.options.too_long
        if given == ERROR:
            raise R1Error(
                f"row `{row.get('id', '?')}` does not fit the context of reward model `{self.name}`",
                hint="lower --max-completion-length, or say which score it gets: :too_long=0",
                code=Exit.FAILED,
            )
        return given
