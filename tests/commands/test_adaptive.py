"""`--until`: which samples are drawn follows from the scores, whatever comes first and wherever it was interrupted."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1cli.commands.adaptive import Adaptive, Goal, goal_of
from r1cli.errors import R1Error
from r1cli.rewards.registry import parse_specs
from r1cli.row import Row

SPECS = parse_specs("accuracy,format")


def by_hand(outcomes: list[bool], goal: Goal) -> int:
    """How many samples of a prompt are drawn."""
    drawn = 0
    while drawn < goal.most and sum(outcomes[:drawn]) < goal.enough:
        drawn = min(drawn + goal.step, goal.most)
    return drawn


def run(outcomes: dict[str, list[bool]], goal: Goal, there: dict, order: random.Random, stop_after: int | None = None):
    """Draw: a pool of tasks is worked off in random order; what was drawn, as id -> {sample: right}."""
    plan = Adaptive([Row({"id": key}) for key in outcomes], goal, {key: dict(found) for key, found in there.items()})
    drawn: dict[str, dict[int, bool]] = {}
    pool: list[tuple[Row, int]] = []
    count = 0
    for row, samples in plan.tasks():
        pool += [(row, sample) for sample in samples]
        while pool:
            row, sample = pool.pop(order.randrange(len(pool)))
            if stop_after is not None and count == stop_after:
                plan.stop()
                return drawn, plan
            count += 1
            right = outcomes[row["id"]][sample]
            assert sample not in drawn.setdefault(row["id"], {})
            drawn[row["id"]][sample] = right
            plan.scored(Row({"id": row["id"], "sample": sample, "rewards": {"accuracy": float(right)}}))
    return drawn, plan


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_samples_drawn_follow_from_the_scores_alone(data):
    most = data.draw(st.integers(1, 9))
    enough, step = data.draw(st.integers(1, most)), data.draw(st.integers(1, 4))
    outcomes = {f"p{n}": data.draw(st.lists(st.booleans(), min_size=most, max_size=most)) for n in range(data.draw(st.integers(0, 4)))}
    goal = Goal(lambda row: row["rewards"]["accuracy"] == 1, enough, step, most)
    order = random.Random(data.draw(st.integers(0, 1000)))
    expected = {key: by_hand(found, goal) for key, found in outcomes.items()}
    whole, plan = run(outcomes, goal, {}, order)
    assert {key: sorted(found) for key, found in whole.items()} == {key: list(range(count)) for key, count in expected.items()}
    reached = sum(sum(found[: expected[key]]) >= enough for key, found in outcomes.items())
    assert (plan.reached, plan.given_up) == (reached, len(outcomes) - reached)
    first, _ = run(outcomes, goal, {}, order, stop_after=data.draw(st.integers(0, 12)))
    rest, _ = run(outcomes, goal, first, order)
    joined = {key: first.get(key, {}) | rest.get(key, {}) for key in {**first, **rest}}
    assert joined == whole
    assert not any(set(first.get(key, {})) & set(rest.get(key, {})) for key in joined)


def scored(**rewards: float | None) -> Row:
    return Row({"id": "a", "sample": 0, "rewards": rewards})


def test_what_counts():
    correct = goal_of("correct=4", SPECS, step=2, most=None)
    assert (correct.enough, correct.step, correct.most) == (4, 2, 64)
    assert correct.judge(scored(accuracy=1.0, format=0.0)) and not correct.judge(scored(accuracy=None, format=1.0))
    assert not goal_of("passing=1", SPECS, step=1, most=8).judge(scored(accuracy=1.0, format=0.0))
    assert goal_of("format=1", SPECS, step=1, most=8).judge(scored(accuracy=0.0, format=1.0))
    assert goal_of("accuracy == 1 and format < 1=2", SPECS, step=1, most=8).judge(scored(accuracy=1.0, format=0.0))


@pytest.mark.parametrize("until", ["correct", "correct=", "correct=0", "=4", "correct=x", "other=4", "accuracy >=4"])
def test_what_is_refused(until):
    with pytest.raises(R1Error) as caught:
        goal_of(until, SPECS, step=1, most=8)
    assert caught.value.code == 2


def test_an_error_of_the_input_comes_out():
    def rows():
        yield Row({"id": "a"})
        raise R1Error("line 2 is bad")

    tasks = Adaptive(rows(), Goal(lambda row: True, 1, 1, 1), {}).tasks()
    assert next(tasks)[1] == [0]
    with pytest.raises(R1Error, match="line 2"):
        next(tasks)
