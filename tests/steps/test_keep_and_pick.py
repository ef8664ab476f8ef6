"""Which rows stay, why others do not, and which of a prompt's rows are picked."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1cli.errors import R1Error
from r1cli.rewards.reward import RewardSpec
from r1cli.row import Row
from r1cli.steps.keep import Dropped, judge_of, keep_rows
from r1cli.steps.pick import pick_rows
from r1cli.steps.sft_rows import to_sft


def scored(**rewards: float | None) -> Row:
    return Row({"id": "a", "rewards": rewards, "reward": sum(r or 0 for r in rewards.values())})


SPECS = [RewardSpec("accuracy"), RewardSpec("code", maximum=2.0), RewardSpec("length", maximum=None)]


@pytest.mark.parametrize(
    ("rewards", "reason"),
    [
        ({"accuracy": 1.0, "code": 2.0, "length": 0.1}, None),
        ({"accuracy": 0.0, "code": 2.0, "length": 9.0}, "accuracy below 1"),
        ({"accuracy": 0.5, "code": 1.0, "length": 9.0}, "accuracy below 1 and code below 2"),
        ({"accuracy": None, "code": 2.0, "length": 9.0}, None),
        ({"accuracy": None, "code": None, "length": 9.0}, "no reward could judge it"),
    ],
)
def test_passing_is_every_reward_at_its_maximum(rewards: dict, reason: str | None) -> None:
    assert judge_of("passing", SPECS)(scored(**rewards)) == reason


def test_passing_needs_something_to_reach() -> None:
    with pytest.raises(R1Error, match="needs a reward with a maximum"):
        judge_of("passing", SPECS[2:])
    with pytest.raises(R1Error, match="cannot judge `accuracy`: its weight is negative"):
        judge_of("passing", [RewardSpec("accuracy", weight=-1.0)])


def test_dropped_rows_are_counted_and_handed_on_with_their_reason() -> None:
    out: list[Row] = []
    dropped = Dropped(out.append)
    rows = [scored(accuracy=1.0), scored(accuracy=0.0), scored(accuracy=0.25)]
    assert list(keep_rows(rows, judge_of("accuracy > 0.5", SPECS), dropped)) == rows[:1]
    assert dropped.reasons == {"not accuracy > 0.5": 2}
    assert dropped.total() == 2
    assert [row["rejected_because"] for row in out] == ["not accuracy > 0.5"] * 2
    assert list(keep_rows(rows, judge_of("all", []), Dropped())) == rows


def completions() -> list[Row]:
    lengths = {"a": [5, 3, 9, 3], "b": [2], "c": [7, 8]}
    return [
        Row({"id": i, "sample": k, "num_tokens": n, "reward": n % 3, "completion": "x" * n})
        for i, ns in lengths.items()
        for k, n in enumerate(ns)
    ]


def pairs(rows: list[Row], per_prompt: int, how: str, seed: int = 0) -> list[tuple[str, int]]:
    return [(row["id"], row["sample"]) for row in pick_rows(rows, per_prompt, how, seed, Dropped())]


def test_shortest_longest_and_best_by_hand() -> None:
    assert pairs(completions(), 1, "longest") == [("a", 2), ("b", 0), ("c", 1)]
    assert pairs(completions(), 2, "shortest") == [("a", 1), ("a", 3), ("b", 0), ("c", 0), ("c", 1)]
    assert pairs(completions(), 1, "best") == [("a", 0), ("b", 0), ("c", 1)]  # rewards 2,0,0,0 | 2 | 1,2


def test_without_token_counts_characters_decide() -> None:
    rows = [Row({"id": "a", "sample": k, "completion": "x" * n}) for k, n in enumerate([4, 2, 3])]
    assert pairs(rows, 1, "shortest") == [("a", 1)]


def test_picking_all_streams_and_picking_some_counts_the_rest() -> None:
    rows = iter(completions())
    assert next(pick_rows(rows, 0, "random", 0, Dropped()))["id"] == "a"
    assert next(rows)["sample"] == 1  # only one row had been taken
    dropped = Dropped()
    assert len(list(pick_rows(completions(), 1, "random", 0, dropped))) == 3
    assert dropped.reasons == {"not picked (--per-prompt 1, random)": 4}


@given(st.integers(0, 10**6), st.sampled_from(["random", "shortest", "longest", "best"]), st.integers(1, 3))
def test_the_choice_does_not_depend_on_the_order_of_the_input(seed: int, how: str, per_prompt: int) -> None:
    rows = completions()
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert sorted(pairs(rows, per_prompt, how, seed)) == sorted(pairs(shuffled, per_prompt, how, seed))


def test_random_is_fair_and_depends_on_the_seed() -> None:
    rows = [Row({"id": "a", "sample": k, "completion": ""}) for k in range(4)]
    counts = Counter(pairs(rows, 1, "random", seed)[0][1] for seed in range(4000))
    assert all(abs(counts[k] - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5 for k in range(4))


def test_sft_rows() -> None:
    row = Row(
        {
            "prompt": "2+2?",
            "source": "s",
            "answer": "4",
            "sample": 1,
            "completion": "x</think> 4",
            "think_prefix": "<think>\n",
            "finish_reason": "stop",
            "num_tokens": 5,
            "model": "m",
            "seed": 3,
            "rewards": {},
            "reward": 1.0,
            "id": "q",
        }
    )
    assert list(next(to_sft([row])).items()) == [
        ("id", "q"),
        ("messages", [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "<think>\nx</think> 4"}]),
        ("source", "s"),
        ("answer", "4"),
        ("sample", 1),
        ("model", "m"),
    ]
    server = {"id": "q", "prompt": "q", "completion": "4", "reasoning_content": "2 + 2", "messages": [{"role": "user", "content": "old"}]}
    learnt = {"role": "assistant", "content": "<think>\n2 + 2\n</think>\n\n4"}
    assert next(to_sft([Row(server)])) == {"id": "q", "messages": [{"role": "user", "content": "q"}, learnt]}
    twice = Row({**server, "completion": "<think>\nother\n</think>\n\n4"})
    bad: list[R1Error] = []
    assert [each["id"] for each in to_sft([twice, row], on_bad=bad.append)] == ["q"] and len(bad) == 1
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert next(to_sft([Row({"prompt": chat, "completion": "c"})]))["messages"] == [*chat, {"role": "assistant", "content": "c"}]
    with pytest.raises(R1Error, match="has no field `prompt`"):
        list(to_sft([Row({"completion": "c"})]))
