"""`--until correct=4 --max 64`: more completions only for the prompts that still need them.

Completions of a prompt are drawn in rounds of `--samples`; a round begins when the one before is drawn and scored and too few are right.
Which samples are drawn follows from the scores alone, not from what runs beside them, so an interrupted run ends with the same rows.

Two threads meet here: the engine's reader asks for tasks, and the thread that writes rows reports scores. Everything they share passes
through one queue.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from r1cli.commands.sampler import Task
from r1cli.errors import Exit, R1Error
from r1cli.rewards.reward import RewardSpec
from r1cli.row import Row, require
from r1cli.steps import condition

READ_AHEAD = 64  # prompts whose first round has not begun
DEFAULT_MAX = 64

Judge = Callable[[Row], bool]
"""A scored row -> whether it counts."""


@dataclass(frozen=True)
class Goal:
    """When a prompt has enough: `enough` completions that `judge` counts, or `most` in all; `step` are drawn at a time."""

    judge: Judge
    enough: int
    step: int
    most: int


def goal_of(until: str, specs: list[RewardSpec], *, step: int, most: int | None) -> Goal:
    """`correct=4`: the first reward at its maximum; `passing=4`: every reward; `NAME=4`: that one; `'even > 0.5=4'`: a condition as in
    `r1 reject --keep`. Raises `R1Error` (exit 2).
    """
    what, equals, number = until.rpartition("=")
    what = what.strip()
    if not equals or not number.isdigit() or int(number) < 1:
        raise R1Error(f"`--until {until}` is not a name and a number", hint="for example --until correct=4", code=Exit.USAGE)
    most = DEFAULT_MAX if most is None else most
    if most < int(number):
        raise R1Error(f"--until {until} can never be reached with --max {most}", hint=f"--max {4 * int(number)}", code=Exit.USAGE)
    return Goal(_judge(until, what, specs), int(number), step, most)


def _judge(until: str, what: str, specs: list[RewardSpec]) -> Judge:
    names = [spec.name for spec in specs]
    if not what.isidentifier():
        return condition.parse(what)
    chosen = specs[:1] if what == "correct" else specs if what == "passing" else [spec for spec in specs if spec.name == what]
    if not chosen:
        raise R1Error(
            f"`--until {until}`: there is no reward `{what}` in --rewards",
            code=Exit.USAGE,
            hint="known: " + ", ".join(f"`{name}`" for name in ("correct", "passing", *names)),
        )
    goals = {spec.name: spec.maximum for spec in chosen}
    endless = next((name for name, best in goals.items() if best is None), None)
    if endless is not None:
        raise R1Error(
            f"`--until {until}`: the reward `{endless}` has no maximum to reach", hint=f"a condition: '{endless} > 0.5=4'", code=Exit.USAGE
        )

    def judge(row: Row) -> bool:
        scores: dict[str, Any] = require(row, "rewards", dict)
        return all(scores.get(name) is not None and scores[name] >= best for name, best in goals.items())

    return judge


@dataclass
class _Prompt:
    """A prompt on its way: its samples that are there (right or not), where the next round begins, how many are still out."""

    row: Row
    found: dict[int, bool]
    begin: int = 0
    out: int = 0


class Adaptive:
    """Tasks of prompt rows, each followed by more of the same prompt until `goal` is reached.

    there: id -> {sample: whether it counts}, of an earlier attempt
    reached, given_up: prompts that ended with enough, and with `most` completions but too few right ones
    """

    def __init__(self, rows: Iterable[Row], goal: Goal, there: dict[Any, dict[int, bool]]) -> None:
        self._rows, self._goal, self._there = rows, goal, there
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._room = threading.Semaphore(READ_AHEAD)
        self._open: dict[Any, _Prompt] = {}
        self._stopped = False
        self.reached = self.given_up = 0

    def tasks(self) -> Iterator[Task]:
        """Tasks in the order in which they become due. Waits for scores; ends when no prompt needs more."""
        threading.Thread(target=self._read, name="r1-prompts", daemon=True).start()
        reading = True
        while reading or self._open:
            kind, what = self._events.get()
            if kind == "row":
                self._room.release()
                prompt = _Prompt(what, dict(self._there.pop(what["id"], {})))
                self._open[what["id"]] = prompt
                yield from self._next_round(prompt)
            elif kind == "sample":
                prompt = self._open[what[0]]
                prompt.found[what[1]] = what[2]
                prompt.out -= 1
                if prompt.out == 0:
                    yield from self._next_round(prompt)
            elif kind == "end":
                reading = False
            else:
                raise what

    def _next_round(self, prompt: _Prompt) -> Iterator[Task]:
        """The next round that is not there yet; nothing when the prompt has enough, and it is closed."""
        goal = self._goal
        while True:
            right = sum(counts for sample, counts in prompt.found.items() if sample < prompt.begin)
            if right >= goal.enough or prompt.begin >= goal.most:
                self.reached += right >= goal.enough
                self.given_up += right < goal.enough
                del self._open[prompt.row["id"]]
                return
            end = min(prompt.begin + goal.step, goal.most)
            wanted = [sample for sample in range(prompt.begin, end) if sample not in prompt.found]
            prompt.begin = end
            if wanted:
                prompt.out = len(wanted)
                yield prompt.row, wanted
                return

    def scored(self, row: Row) -> None:
        """A completion row with its rewards is there."""
        self._events.put(("sample", (row["id"], row["sample"], self._goal.judge(row))))

    def none(self, row: Row, sample: int) -> None:
        """A sample will not come (the prompt is too long, or refused): it counts as drawn and wrong."""
        self._events.put(("sample", (row["id"], sample, False)))

    def stop(self) -> None:
        """End the reader at its next row."""
        self._stopped = True
        self._room.release()

    def _read(self) -> None:
        try:
            for row in self._rows:
                self._room.acquire()
                if self._stopped:
                    return
                self._events.put(("row", row))
        except BaseException as error:  # raised again by the thread that takes tasks
            self._events.put(("error", error))
        else:
            self._events.put(("end", None))
