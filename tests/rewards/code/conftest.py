"""What the code tests share: the sandbox of this machine, and how a completion is judged in it."""

from collections.abc import Callable
from typing import Any

import pytest

from r1cli.rewards.code.judge import Local, Verdict
from r1cli.rewards.code.levels import available
from r1cli.rewards.code.reward import CodeReward
from r1cli.rewards.code.sandbox import Level, Limits, Sandbox
from r1cli.row import Row

Judge = Callable[..., Verdict]


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    """The best sandbox here; without confinement nothing untrusted is run, by tests neither."""
    found = available()
    if found.level < Level.CONFINED:
        pytest.skip(f"this machine's sandbox level is {found.level.name.lower()}: no Landlock or no seccomp")
    return found


@pytest.fixture
def judge(sandbox: Sandbox) -> Judge:
    """judge(source, tests, seconds=, **row fields) -> Verdict, every test counted."""

    def run(source: str, tests: Any, seconds: float = 2.0, memory_mib: int = 512, tag: str = "python", **fields: Any) -> Verdict:
        reward = CodeReward(Local(sandbox, Limits(seconds=seconds, memory_mib=memory_mib), budget=30.0), fraction=True)
        row = Row({"id": 1, "prompt": "Write it.", "tests": tests, "completion": f"```{tag}\n{source}\n```", **fields})
        return reward.judge(row)

    return run
