"""The code reward: the program of a completion against the row's tests, all-or-nothing or as the share of tests passed.

How tests are given stands in `suite.py`, how programs are found in `extract.py`, how they are held in `sandbox.py` and `levels.py`, how a
verdict is made in `judge.py`; `docs/code-rewards.md` is the same for readers.
"""

import os
from collections.abc import Mapping
from typing import Any

from r1cli.rewards.code.extract import program_of
from r1cli.rewards.code.holding import LEVEL, UNSAFE
from r1cli.rewards.code.judge import Local, Runner, Verdict
from r1cli.rewards.code.levels import required
from r1cli.rewards.code.remote import Http
from r1cli.rewards.code.sandbox import Level, Limits
from r1cli.rewards.code.suite import suite_of
from r1cli.rewards.reward import UNDECIDED, Option, Reward, RewardKind, Score, Undecided
from r1cli.row import Row, require

TRUE_WORDS = ("1", "true", "yes")


class CodeReward(Reward):
    """A share in [0, 1]; None for a row whose `tests` is null. `judge` gives the counts behind it."""

    name = "code"
    isolated = True

    def __init__(self, runner: Runner, fraction: bool = False, own_seconds: float = 60.0, held: str = "") -> None:
        self.runner = runner
        self.fraction = fraction
        self.own_seconds = own_seconds
        self._held = held

    def quick(self, row: Row) -> Score | Undecided:
        require(row, "completion", str)
        if row.get("tests", row.get("test", "")) is None:
            return None
        suite = suite_of(row)
        return 0.0 if program_of(row, suite.entry_point) is None else UNDECIDED

    def score(self, row: Row) -> Score:
        if row.get("tests", row.get("test", "")) is None:
            return None
        verdict = self.judge(row)
        return verdict.passed / verdict.total if self.fraction else float(verdict.passed == verdict.total)

    def judge(self, row: Row) -> Verdict:
        """How many of the row's tests its program passes."""
        suite = suite_of(row)
        program = program_of(row, suite.entry_point)
        if program is None:
            return Verdict(suite.size)
        return self.runner.judge(program, suite, stop_early=not self.fraction)

    def complaints(self) -> list[str]:
        return [self._held] if self._held else []


def _make(options: Mapping[str, Any]) -> Reward:
    limits = Limits(seconds=options["time"], memory_mib=options["memory"])
    fraction, budget = options["score"] == "fraction", options["budget"]
    if url := os.environ.get("R1_SANDBOX_URL"):
        return CodeReward(Http(url, limits, os.environ.get("R1_SANDBOX_TOKEN")), fraction, budget, f"code ran at the remote sandbox {url}")
    unsafe = options["unsafe"] or os.environ.get("R1_UNSAFE", "").lower() in TRUE_WORDS
    sandbox = required(Level[options["level"].upper()], unsafe)
    held = f"code ran in the local sandbox at level `{sandbox.level.name.lower()}`"
    if sandbox.level < Level[options["level"].upper()]:
        held += f", below the minimum `{options['level']}`, as --unsafe allows"
    wall = 3 * (budget + limits.seconds) + 60.0  # the pool's deadline is wall-clock time: room for a busy machine, compiling, starting
    return CodeReward(Local(sandbox, limits, budget), fraction, wall, held)


CODE = RewardKind(
    name="code",
    summary="the program passes the row's tests, run in a sandbox",
    formula="all: 1 if every test passes, else 0; fraction: tests passed / tests",
    example="code=fraction:time=10",
    make=_make,
    fields=("completion", "tests", "prompt?", "entry_point?", "fn_name?", "test_setup_code?", "test_imports?", "think_prefix?"),
    options=(
        Option("score", str, "all", "all: every test or nothing; fraction: the share of tests passed", ("all", "fraction")),
        Option("time", float, 5.0, "seconds a test may take"),
        Option("memory", int, 1024, "MiB of address space a program may use"),
        Option("budget", float, 60.0, "seconds the tests of a row may take together; what is not reached fails"),
        LEVEL,
        UNSAFE,
    ),
    mode="score",
)
