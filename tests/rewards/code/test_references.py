"""Reference solutions of MBPP (CC-BY-4.0) and HumanEval (MIT) pass, and fail with one operator changed.

The rows are in `tests/data/code_references.jsonl`, each with its source and licence; `bench/code_references.py` does the whole sets.
"""

import json
from pathlib import Path

import pytest

from r1cli.rewards.code.judge import Local
from r1cli.rewards.code.reward import CodeReward
from r1cli.rewards.code.sandbox import Limits, Sandbox
from r1cli.row import Row

DATA = Path(__file__).parents[2] / "data" / "code_references.jsonl"
ROWS = [Row(json.loads(line)) for line in DATA.read_text(encoding="utf-8").splitlines()]

# One operator of the solution changed, where the row's own tests can see it.
MUTANTS = {
    "mbpp/2": ("&", "|"),
    "mbpp/11": ("break", "pass"),
    "mbpp/473": ("&", "|"),
    "mbpp/533": ("not isinstance", "isinstance"),
    "mbpp/126": ("==", "!="),
    "HumanEval/0": ("<", ">="),
    "HumanEval/33": ("[::3]", "[::2]"),
    "HumanEval/72": (">", "<"),
}


def completion(row: Row, solution: str) -> str:
    return solution if "entry_point" in row else f"```python\n{solution}\n```"


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_references_pass_and_mutants_fail(sandbox: Sandbox, row: Row) -> None:
    reward = CodeReward(Local(sandbox, Limits(seconds=10), 60.0))
    assert reward.score(row.with_fields(completion=completion(row, row["solution"]))) == 1.0
    if row["id"] in MUTANTS:
        changed = row["solution"].replace(*MUTANTS[row["id"]])
        assert changed != row["solution"]
        assert reward.score(row.with_fields(completion=completion(row, changed))) == 0.0
