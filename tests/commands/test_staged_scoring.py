"""Rewards that begin at a step."""

import pytest

from r1cli.commands.staged_scoring import StagedScorer
from r1cli.errors import R1Error
from r1cli.rewards.registry import parse_specs
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row

ROWS = [Row({"id": 1, "completion": "<think>a</think> <answer>b</answer>", "num_tokens": 10})]


def test_a_reward_counts_from_its_step_on_and_is_not_asked_before() -> None:
    specs = parse_specs("overlong=2:max=8:cache=4,format=0.5@3")
    assert [(spec.name, spec.weight, spec.start) for spec in specs] == [("overlong", 2.0, 0), ("format", 0.5, 3)]
    with StagedScorer(specs, workers=1, timeout=5.0) as scorer:
        before, after = scorer.score(ROWS, 2)[0], scorer.score(ROWS, 3)[0]
        assert (before["rewards"], before["reward"]) == ({"overlong": -1.0}, -2.0)
        assert set(after["rewards"]) == {"overlong", "format"}
        assert after["reward"] == -2.0 + 0.5 * after["rewards"]["format"]
        assert scorer.timeouts == 0 and scorer.warnings() == []


@pytest.mark.parametrize(
    ("text", "start", "weight"),
    [
        ("format@12", 12, 1.0),
        ("format=0.5@12", 12, 0.5),
        ("format=2@12:style=r1", 12, 2.0),
        ("format=2:style=r1", 0, 2.0),
        ("a.py:f=3@7", 7, 3.0),
    ],
)
def test_the_step_stands_behind_the_weight(text: str, start: int, weight: float) -> None:
    (spec,) = parse_specs(text)
    assert (spec.start, spec.weight) == (start, weight)


def test_something_must_count_at_the_beginning() -> None:
    with pytest.raises(R1Error, match="no reward counts before step 4") as error:
        StagedScorer(parse_specs("format@4,repetition@9"), workers=1, timeout=5.0)
    assert error.value.code == 2


def test_where_there_are_no_steps_a_start_is_refused() -> None:
    with pytest.raises(R1Error, match="reward `format` starts at step 4, and there are no steps here"):
        Scorer(parse_specs("format@4"))
