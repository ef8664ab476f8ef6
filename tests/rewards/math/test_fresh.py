r"""Cases of every kind, written and judged by hand before anyone looked at how the verifier treats them (docs/log.md has the first counts).

tests/data/math_fresh.txt: kind ¦ gold ¦ form ¦ answer ¦ y, n or refused. Form b: the answer in "Therefore, the answer is $\boxed{...}$.";
form p: the whole completion, `\n` a line break. refused: right to a careful human, and refused here so far.
"""

from collections import defaultdict
from pathlib import Path

import pytest

from r1cli.rewards.registry import make, parse_specs
from r1cli.rewards.reward import Undecided
from r1cli.row import Row

Case = tuple[str, str, str]  # gold, completion, expected


def cases() -> dict[str, list[Case]]:
    found: dict[str, list[Case]] = defaultdict(list)
    for line in (Path(__file__).parents[2] / "data" / "math_fresh.txt").read_text(encoding="utf-8").split("\n"):
        if line:
            kind, gold, form, answer, expected = line.split(" ¦ ")
            completion = answer.replace("\\n", "\n") if form == "p" else f"Therefore, the answer is $\\boxed{{{answer}}}$."
            found[kind].append((gold, completion, expected))
    return found


CASES = cases()
REWARD = make(parse_specs("math")[0])


@pytest.mark.parametrize("kind", CASES)
def test_cases_of_a_kind(kind: str) -> None:
    for gold, completion, expected in CASES[kind]:
        row = Row({"id": 1, "answer": gold, "completion": completion})
        score = REWARD.quick(row)
        if isinstance(score, Undecided):
            score = REWARD.score(row)
        assert (score == 1.0) == (expected == "y"), (gold, completion)


def test_the_kinds_are_all_there() -> None:
    assert sum(map(len, CASES.values())) > 1300
    assert sum(expected == "n" for found in CASES.values() for _, _, expected in found) > 400
