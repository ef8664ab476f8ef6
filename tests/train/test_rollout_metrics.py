"""What is logged of a rollout, and of reward models in it."""

from typing import Any

import pytest
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st

from r1cli.row import Row
from r1cli.train.rollout_metrics import rollout_metrics


def measured(scores: list[float | None], lengths: list[int], size: int) -> dict[str, float]:
    rows = [Row({"rewards": {"helpful": score}, "reward": score or 0.0, "finish_reason": "stop"}) for score in scores]
    return rollout_metrics(Accelerator(cpu=True, mixed_precision="no"), rows, lengths, size, ["helpful"])


def test_two_groups_by_hand(accelerator: Any) -> None:
    """The second group has nothing to teach; its second completion was cut, and accuracy has nothing to say of it."""
    ends, rewards = ["stop", "stop", "stop", "length"], [1.5, 0.25, 0.5, 0.5]
    parts = [{"accuracy": 1.0, "format": 0.5}, {"accuracy": 0.0, "format": 0.25}, {"accuracy": 0.0, "format": 0.5}, {"accuracy": None}]
    named = zip(rewards, parts, ends, strict=True)
    rows = [Row({"reward": reward, "rewards": scores, "finish_reason": end}) for reward, scores, end in named]
    assert rollout_metrics(accelerator, rows, [10, 20, 30, 60], 2) == pytest.approx(
        {
            "reward": 2.75 / 4,
            "reward_min": 0.25,
            "reward_max": 1.5,
            "reward/accuracy": 1 / 3,
            "reward/format": 1.25 / 3,
            "completion_length": 30.0,
            "truncated": 0.25,
            "signal_groups": 0.5,
            "tokens": 120.0,
        }
    )


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 500)), min_size=8, max_size=8))
def test_the_correlation_is_that_of_scipy_within_groups(pairs: list[tuple[float, int]]) -> None:
    from scipy.stats import pearsonr

    found: Any = measured([score for score, _ in pairs], [length for _, length in pairs], 4).get("length_correlation/helpful")
    columns = ([float(value) for value in column] for column in zip(*pairs, strict=True))
    x, y = ([value - sum(group) / 4 for group in (column[:4], column[4:]) for value in group] for column in columns)
    if max(map(abs, x)) < 1e-6 or max(map(abs, y)) < 1e-6:
        return
    assert found == pytest.approx(pearsonr(x, y).statistic, abs=1e-6)


def test_a_prompt_that_is_long_and_liked_is_no_sign() -> None:
    found = measured([0.1, 0.2, 0.9, 0.8], [10, 9, 200, 210], 2)
    assert found["length_correlation/helpful"] < 0, "between the groups it is positive"


def test_only_completions_that_the_model_scored_count() -> None:
    found = measured([None, None, 0.2, 0.4], [500, 600, 10, 30], 2)
    assert found["length/helpful"] == 20 and found["reward/helpful"] == pytest.approx(0.3)
    assert found["length_correlation/helpful"] == pytest.approx(1.0)
    nothing = measured([None] * 4, [1, 2, 3, 4], 2)
    assert not {"length/helpful", "length_correlation/helpful"} & set(nothing)
