"""Where a GRPO run is: what a checkpoint holds beside weights, optimizer and reference, so that a resumed run is the run that was not.

The file is read back with `weights_only`: numbers, texts and tensors, nothing that is executed. Every process has its own.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from r1cli.row import Row, dump, parse
from r1cli.train.batches import Sample
from r1cli.train.grpo_config import GrpoConfig
from r1cli.train.state_files import of_process, write


@dataclass(slots=True)
class Rollout:
    """One completion as it was sampled: its row (with `id`, `sample`, `completion`, `finish_reason`), and the tokens behind it."""

    row: Row
    prompt_ids: list[int]
    completion_ids: list[int]
    sampler_logprobs: list[float]


@dataclass(slots=True)
class RolloutBatch:
    """The rollout buffer: what this process trains on, and how far it is.

    start: steps done before it. parts: steps' worth of prompts in it. limit: most new tokens its completions could have.
    samples, rows: its completions, with advantages. figures: what drawing them measured.
    old, reference: log-probabilities from before the first update, {sample index: tokens}. done: updates made of it.
    records: what each of them measured. sources: of which source with a share the prompt of each sample is.
    seconds: what each phase has taken so far (`Clock.seconds`), for the figures of a run that goes on in the middle of it.
    """

    start: int
    parts: int
    limit: int
    samples: list[Sample]
    rows: list[Row] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    old: dict[int, Tensor] | None = None
    reference: dict[int, Tensor] | None = None
    done: int = 0
    records: list[dict[str, float]] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def updates(self, config: GrpoConfig) -> int:
        """Optimizer updates to make of it."""
        return min(self.parts * config.epochs_per_rollout, config.steps - self.start)


@dataclass(slots=True)
class Ahead:
    """A rollout that was drawn before its turn, or is being drawn.

    step: steps done when its turn comes. prompts: of all processes; group_size: completions of each. limit: most new tokens.
    taken: prompts taken of each stage before these. sources: of which source with a share each prompt of this process is.
    """

    step: int
    prompts: int
    group_size: int
    limit: int
    taken: dict[int, int]
    sources: list[int]
    completions: list[Rollout] = field(default_factory=list)


@dataclass(slots=True)
class Progress:
    """step: optimizer updates done. taken: prompts taken of each stage. batch: the rollout that is being trained on.

    ahead: the next one, when it is there already. memory: what the alarms remember.
    drawn_with: the settings that what is here was drawn and measured with (`commands.grpo_resume`); empty: not known.
    dropped: of a resumed run: what to say of a rollout that was in its checkpoint and is not here, if anything.
    followed: where that happened between two updates: the step at which that rollout began, up to which the reference has followed.
    """

    step: int = 0
    taken: dict[int, int] = field(default_factory=dict)
    batch: RolloutBatch | None = None
    ahead: Ahead | None = None
    memory: dict[str, list[float]] = field(default_factory=dict)
    drawn_with: dict[str, Any] = field(default_factory=dict)
    dropped: str = ""
    followed: int | None = None

    def save(self, folder: Path, process: int, processes: int) -> None:
        """Write this process's file into a checkpoint folder."""
        own = {name: getattr(self, name) for name in ("step", "taken", "memory", "drawn_with")}
        state = {"processes": processes, **own, "batch": None, "ahead": None}
        if self.batch is not None:
            plain = {name: getattr(self.batch, name) for name in RolloutBatch.__slots__}
            state["batch"] = {**plain, "rows": _texts(self.batch.rows), "samples": [_fields(sample) for sample in self.batch.samples]}
        if self.ahead is not None:
            completions = [{**_fields(rollout), "row": dump(rollout.row)} for rollout in self.ahead.completions]
            state["ahead"] = {**_fields(self.ahead), "completions": completions}
        write(state, folder / file_name(process))

    @classmethod
    def load(cls, folder: Path, process: int, processes: int) -> "Progress":
        """What `save` wrote.

        Another number of processes than wrote it starts with a new rollout: the old one was shared out differently. Raises `R1Error`
        (exit 2) for a file that is missing or not one of these.
        """
        state = of_process(folder, file_name, process, processes, "step", "taken", "memory", "batch", "ahead")
        batch, ahead = state["batch"], state["ahead"]
        if state["processes"] != processes:
            found = cls(state["step"], state["taken"] if ahead is None else ahead["taken"], memory=state["memory"])
            if batch is not None:
                found.followed = int(batch["start"])
                found.dropped = (
                    f"the rollout that began behind step {found.followed} was shared out among another number of processes: what was not "
                    f"trained on yet after step {found.step} is dropped, and its prompts count as taken"
                )
            elif ahead is not None:
                found.dropped = (
                    f"what was drawn ahead behind step {found.step} was shared out among another number of processes: it is drawn again"
                )
            return found
        if batch is not None:
            samples = [Sample(**{**sample, "key": tuple(sample["key"])}) for sample in batch["samples"]]
            batch = RolloutBatch(**{**batch, "samples": samples, "rows": [parse(text) for text in batch["rows"]]})
        if ahead is not None:
            completions = [Rollout(**{**rollout, "row": parse(rollout["row"])}) for rollout in ahead["completions"]]
            ahead = Ahead(**{**ahead, "completions": completions})
        return cls(state["step"], state["taken"], batch, ahead, state["memory"], state.get("drawn_with", {}))

    def drop(self, why: str, rollout: bool) -> None:
        """Forget what was drawn ahead, whose prompts are drawn again, and with `rollout` the rest of the one that is trained on."""
        if self.ahead is not None:
            self.taken, self.ahead = self.ahead.taken, None
        if rollout and self.batch is not None:
            self.followed, self.batch = self.batch.start, None
        self.dropped = why


def file_name(process: int) -> str:
    """The name of a process's file in a checkpoint."""
    return f"grpo_progress_{process}.pt"


def _fields(thing: Any) -> dict[str, Any]:
    return {name: getattr(thing, name) for name in type(thing).__slots__}


def _texts(rows: list[Row]) -> list[str]:
    return [dump(row) for row in rows]
