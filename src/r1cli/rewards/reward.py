"""What a reward is: a named rule from one row to a number, with the words that `r1 rewards` shows of it.

A reward is made once per process from its options and then asked row by row. What is cheap and bounded is answered in the caller's
process (`quick`); what can hang, crash or eat memory is answered in a worker (`score`), see `pool.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from r1cli.row import Row


class Undecided:
    """The type of `UNDECIDED`: "ask a worker"."""

    def __repr__(self) -> str:
        return "UNDECIDED"


UNDECIDED = Undecided()
Score = float | None


class Reward:
    """Base of every reward. A subclass sets `name` and writes `score`; one that is safe in any process stops there.

    isolated:   True when `score` may hang, crash or use unbounded memory: it then runs in worker processes only
    batched:    True when `score_batch` should see many rows at once (users' own batch functions), `batch_rows` of them at most
    local:      True when `score_batch` runs on a thread of the caller's process (a model on its device), without a deadline
    memory_gib: address space a worker needs for it
    seconds:    what one row may take, set by the worker before each request; late: rows that took longer and were given 0 by the reward
    itself
    own_seconds: what a row may take by limits of the reward's own (the tests of a program); the worker's deadline is never below it
    """

    name: str = ""
    isolated: bool = False
    batched: bool = False
    batch_rows: int = 16
    local: bool = False
    memory_gib: float = 4.0
    seconds: float = 5.0
    own_seconds: float = 0.0
    late: int = 0

    def score(self, row: Row) -> Score:
        """The reward of one row, or None when the row has nothing to judge by (it then counts nothing).

        Raises `R1Error` (exit 2) when a field that it needs is missing or of the wrong type.
        """
        raise NotImplementedError

    def quick(self, row: Row) -> Score | Undecided:
        """The reward if it can be told here within about a millisecond, else UNDECIDED. Fields are checked here, before any worker is
        asked.
        """
        return UNDECIDED if self.isolated else self.score(row)

    def examine(self, row: Row) -> None:
        """Raises `R1Error` (exit 2) when no completion of this prompt row could be scored: a field that `score` needs is missing or wrong.

        Cheap: nothing is run. What a reward asks of its row it asks of an empty completion too, in `quick`.
        """
        self.quick(row.lending(completion="", num_tokens=0, finish_reason="stop"))

    def prepare(self) -> None:
        """Called once in a worker before its first request: slow imports belong here, outside any row's deadline."""

    def time_for(self, row: Row) -> float:
        """Seconds this row may take by the reward's own limits; the worker's deadline is never below it."""
        return self.own_seconds

    def score_batch(self, rows: Sequence[Row]) -> list[Score]:
        """The rewards of several rows, in order."""
        return [self.score(row) for row in rows]

    def settled(self, row: Row, score: Score) -> None:
        """Told, in the caller's process, what a worker gave for a row."""

    def complaints(self) -> list[str]:
        """Sentences about the data seen so far that the user must read (unreadable golds and the like), for the summary."""
        return []


@dataclass(frozen=True)
class Option:
    """One option of a reward, written `:name=value` after it.

    kind is the type of the value (bool reads yes/no/true/false/1/0); choices, when given, are the only words allowed.
    """

    name: str
    kind: type
    default: Any
    help: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class RewardKind:
    """An entry of the registry: how a reward is made and what `r1 rewards` says of it.

    make:    options -> Reward (options are complete: defaults filled in)
    formula: the rule in one line. fields: row fields it reads. maximum: its best value, which `--keep passing` asks for
             (None: it has none, and `passing` does not look at it)
    mode:    the option that a bare word sets: `code=fraction` is `code:score=fraction` for mode="score"
    """

    name: str
    summary: str
    formula: str
    example: str
    make: Callable[[Mapping[str, Any]], Reward]
    fields: tuple[str, ...] = ("completion",)
    options: tuple[Option, ...] = ()
    mode: str | None = None
    maximum: float | None = 1.0


@dataclass(frozen=True)
class RewardSpec:
    """One entry of `--rewards`, read and checked.

    name:    its key in the row's `rewards`
    weight:  its factor in the row's `reward`
    options: every option of its kind with its value
    source:  the registered name, or `path/to/file.py:function` / `module:function`
    maximum: best value, None when there is none
    start:   steps of `r1 grpo` before it counts
    sets:    sets of rows it is for (`rewards.sets`); () is every row
    """

    name: str
    weight: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    maximum: float | None = 1.0
    start: int = 0
    sets: tuple[str, ...] = ()
