"""Length rewards: DAPO's published numbers, and the cosine's values at its ends and middle."""

from typing import Any

import pytest

from r1cli.errors import Exit, R1Error
from r1cli.rewards.choice import ChoiceReward
from r1cli.rewards.length import BrevityReward, LengthReward, OverlongReward
from r1cli.rewards.registry import make, parse_specs
from r1cli.rewards.reward import UNDECIDED, Reward
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


def test_a_completion_cut_at_the_limit_is_wrong_and_a_row_without_gold_is_null() -> None:
    for reward in (LengthReward(1000, ChoiceReward()), BrevityReward(1000, ChoiceReward())):
        assert (reward.score(row(1000, finish_reason="length")) or 0.0) <= 0.0
        assert reward.score(row(10, answer=None)) is None


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


def test_the_limit_and_the_row_field_are_required() -> None:
    for text in ("overlong", "length", "brevity", "overlong:max=10:cache=11"):
        with pytest.raises(R1Error) as error:
            make(parse_specs(text)[0])
        assert error.value.code == Exit.USAGE
    with pytest.raises(R1Error, match="num_tokens"):
        make(parse_specs("length:max=10:by=choice")[0]).quick(Row({"id": 1, "completion": "(A)", "answer": "A", "choices": ["x", "y"]}))
