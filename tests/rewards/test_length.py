"""Length rewards: DAPO's published numbers, and the cosine's values at its ends and middle."""

from typing import Any

import pytest

from r1cli.errors import Exit, R1Error
from r1cli.rewards.choice import ChoiceReward
from r1cli.rewards.length import BrevityReward, LengthReward, OverlongReward
from r1cli.rewards.registry import make, parse_specs
from r1cli.rewards.reward import UNDECIDED, Reward
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row


def row(tokens: int, right: bool = True, **fields: Any) -> Row:
    return Row({"choices": ["x", "y"], "answer": "A" if right else "B", "completion": "(A)", "num_tokens": tokens, **fields})


@pytest.mark.parametrize(
    ("tokens", "reward"), [(0, 0.0), (16384, 0.0), (17408, -0.25), (18432, -0.5), (20480, -1.0), (20481, -1.0), (99999, -1.0)]
)
def test_overlong_is_dapos_equation_13(tokens: int, reward: float) -> None:
    assert OverlongReward(20480, 4096).score(row(tokens)) == reward
    assert OverlongReward(20480).score(row(tokens)) == reward  # a fifth


@pytest.mark.parametrize(
    ("tokens", "right", "wrong"),
    [(0, 1.0, -1.0), (250, 0.926777, -0.926777), (500, 0.75, -0.75), (1000, 0.5, -0.5), (1500, 0.5, -0.5)],
)
def test_length_follows_half_a_cosine_and_stays_there(tokens: int, right: float, wrong: float) -> None:
    reward = LengthReward(1000, ChoiceReward())
    assert reward.score(row(tokens)) == pytest.approx(right, abs=1e-6)
    assert reward.score(row(tokens, right=False)) == pytest.approx(wrong, abs=1e-6)
    assert reward.quick(row(tokens)) == reward.score(row(tokens))


def test_brevity_pays_right_answers_only() -> None:
    reward = BrevityReward(1000, ChoiceReward())
    assert [reward.score(row(n)) for n in (0, 250, 1000, 2000)] == [1.0, 0.75, 0.0, 0.0]
    assert reward.score(row(10, right=False)) == 0.0


CHOICE: dict[str, Any] = {"choices": ["x", "y"], "completion": "(A)", "answer": "A"}
MATHS: dict[str, Any] = {"completion": "\\boxed{42}", "answer": "42"}
CODE: dict[str, Any] = {"completion": "```python\nprint(1)\n```", "tests": [{"input": "", "output": "1"}]}


@pytest.fixture
def any_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reward `code` can be made on every machine; none of its programs run here."""
    monkeypatch.setenv("R1_UNSAFE", "1")


@pytest.mark.usefixtures("any_sandbox")
@pytest.mark.parametrize("kind", ["length", "brevity"])
@pytest.mark.parametrize(("by", "fields"), [("choice", CHOICE), ("math", MATHS), ("accuracy", MATHS), ("accuracy", CHOICE), ("code", CODE)])
def test_a_completion_cut_at_the_limit_is_wrong_whatever_it_says(kind: str, by: str, fields: dict[str, Any]) -> None:
    """Nothing of it is left to a worker: a program that was cut is not run."""
    reward = make(parse_specs(f"{kind}:max=64:by={by}")[0])
    cut = Row({**fields, "num_tokens": 32, "finish_reason": "length"})
    assert reward.quick(cut) == reward.score(cut) == {"length": -0.75, "brevity": 0.0}[kind]


@pytest.mark.usefixtures("any_sandbox")
@pytest.mark.parametrize("finish_reason", ["stop", "length"])
@pytest.mark.parametrize(
    ("by", "fields"),
    [
        ("choice", {**CHOICE, "answer": None}),
        ("accuracy", {**MATHS, "answer": None}),
        ("accuracy", {**MATHS, "answer": ""}),
        ("code", {**CODE, "tests": None}),
    ],
)
def test_a_row_without_gold_is_null_however_its_completion_ended(by: str, fields: dict[str, Any], finish_reason: str) -> None:
    """A row without gold among those of a prompt that has one would be told apart by its length alone."""
    with Scorer(parse_specs(f"{by},length:max=64:by={by},brevity:max=64:by={by}"), workers=1) as scorer:
        [scored] = scorer.score([Row({"id": 1, **fields, "num_tokens": 32, "finish_reason": finish_reason})])
    assert scored["rewards"] == {by: None, "length": None, "brevity": None} and scored["reward"] == 0.0


class Slow(Reward):
    name = "slow"
    isolated = True

    def score(self, row: Row) -> float:
        return 1.0


def test_what_needs_a_worker_is_left_to_a_worker() -> None:
    reward = BrevityReward(1000, Slow())
    assert reward.isolated
    assert reward.quick(row(10)) is UNDECIDED
    assert reward.score(row(500)) == 0.5
    assert reward.score(row(500, finish_reason="length")) == 0.0, "whatever it says of the answer"


def test_the_limit_and_the_row_field_are_required() -> None:
    for text in ("overlong", "length", "brevity", "overlong:max=10:cache=11"):
        with pytest.raises(R1Error) as error:
            make(parse_specs(text)[0])
        assert error.value.code == Exit.USAGE
    with pytest.raises(R1Error, match="num_tokens"):
        make(parse_specs("length:max=10:by=choice")[0]).quick(Row({"id": 1, "completion": "(A)", "answer": "A", "choices": ["x", "y"]}))
