"""Preference pairs: which rows make one, how lengths are balanced, and that nobody is lost."""

import random
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1cli.row import Row
from r1cli.steps.judge import Judge
from r1cli.steps.keep import Dropped
from r1cli.steps.pairs import BALANCED, Candidate, Pair, Pairing, balanced, preference


def made(
    rows: Iterable[tuple[Row, str | None]], *, judge: Judge | None = None, margin: float = 1.0, **options: object
) -> tuple[list[Row], Dropped]:
    dropped = Dropped()
    values: dict = {"per_prompt": 1, "how": "random", "seed": 0, "everything": False, "balance": False} | options
    with Pairing(**values, dropped=dropped) as pairing:
        for row, reason in rows:
            pairing.add(row, reason)
        return list(pairing.rows(judge, margin)), dropped


def row(prompt: str, sample: int, reward: float, length: int = 5) -> tuple[Row, str | None]:
    fields = {
        "id": prompt,
        "sample": sample,
        "prompt": f"{prompt}?",
        "domain": "math",
        "completion": "x" * length,
        "num_tokens": length,
        "rewards": {"accuracy": reward},
        "reward": reward,
    }
    return Row(fields), None if reward == 1.0 else "accuracy below 1"


ROWS = [row("a", 0, 1.0), row("b", 0, 0.0), row("a", 1, 0.0), row("c", 0, 1.0), row("a", 2, 1.0), row("c", 1, 1.0)]


def test_a_kept_row_stands_against_one_that_was_not() -> None:
    pairs, dropped = made(ROWS)
    assert [(pair["id"], pair["rejected_sample"], pair["margin"]) for pair in pairs] == [("a", 1, 1.0)]
    assert dropped.reasons == {
        "accuracy below 1": 1,
        "not in a pair: the prompt has others": 1,
        "not in a pair: the prompt has no completion to set against it": 2,
    }
    assert 2 * len(pairs) + dropped.total() == len(ROWS)


def test_with_everything_kept_the_reward_decides() -> None:
    rows = [(one, None) for one, _ in (row("a", 0, 0.5), row("a", 1, 0.9), row("a", 2, 0.1), row("a", 3, 0.1))]
    pairs, _ = made(rows, everything=True, how="best")
    assert [(pair["chosen_sample"], pair["rejected_reward"]) for pair in pairs] == [(1, 0.1)]
    pairs, dropped = made(rows, everything=True, how="best", per_prompt=0)
    assert [pair["chosen_sample"] for pair in pairs] == [1, 0] and dropped.total() == 0
    assert made(rows, everything=False)[0] == []  # all kept, none worse


def test_shortest_and_longest_look_at_the_chosen_one() -> None:
    rows = [row("a", 0, 1.0, 9), row("a", 1, 1.0, 3), row("a", 2, 0.0), row("a", 3, 0.0)]
    assert made(rows, how="shortest")[0][0]["chosen_sample"] == 1
    assert made(rows, how="longest")[0][0]["chosen_sample"] == 0


def test_a_preference_row() -> None:
    one, other = (
        Row(
            {
                "id": "q",
                "prompt": "2+2?",
                "answer": "4",
                "note": n,
                "sample": n,
                "completion": f"so</think> {4 + n}",
                "think_prefix": "<think>\n",
                "model": "m",
                "num_tokens": 7 + n,
                "rewards": {},
                "reward": 1.0 - n,
            }
        )
        for n in (0, 1)
    )
    assert list(preference(one, other, 1.0).items()) == [
        ("id", "q"),
        ("prompt", "2+2?"),
        ("chosen", "<think>\nso</think> 4"),
        ("rejected", "<think>\nso</think> 5"),
        ("answer", "4"),
        ("model", "m"),
        ("margin", 1.0),
        ("chosen_sample", 0),
        ("chosen_reward", 1.0),
        ("chosen_num_tokens", 7),
        ("rejected_sample", 1),
        ("rejected_reward", 0.0),
        ("rejected_num_tokens", 8),
    ]


rewards = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 1.0]), st.integers(1, 40)), max_size=24)


@given(rewards, st.integers(0, 3), st.sampled_from(["random", "best", "shortest", "longest"]), st.booleans(), st.integers(0, 5))
def test_every_row_is_in_one_pair_or_dropped_once_whatever_the_order(
    values: list[tuple[str, float, int]], per_prompt: int, how: str, balance: bool, shuffle: int
) -> None:
    rows = [row(prompt, n, reward, length) for n, (prompt, reward, length) in enumerate(values)]
    pairs, dropped = made(rows, per_prompt=per_prompt, how=how, balance=balance)
    used = [(pair["id"], pair[f"{side}_sample"]) for pair in pairs for side in ("chosen", "rejected")]
    assert len(used) == len(set(used)) and len(used) + dropped.total() == len(rows)
    assert all(pair["chosen_reward"] == 1.0 and pair["rejected_reward"] == 0.0 for pair in pairs)
    if per_prompt:
        assert all(sum(pair["id"] == prompt for pair in pairs) <= per_prompt for prompt in "abc")
    if balance and pairs:
        chosen, rejected = (sum(pair[f"{side}_num_tokens"] for pair in pairs) for side in ("chosen", "rejected"))
        assert abs(chosen - rejected) <= BALANCED * max(chosen, rejected)
    shuffled = random.Random(shuffle).sample(rows, len(rows))
    assert sorted(map(str, made(shuffled, per_prompt=per_prompt, how=how, balance=balance)[0])) == sorted(map(str, pairs))


def candidate(number: int, length: int) -> Candidate:
    return Candidate(number, True, 0.0, length, number)


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(1, 100)), max_size=30))
def test_balance_keeps_order_and_loses_no_pair_without_need(lengths: list[tuple[int, int]]) -> None:
    pairs = [Pair(candidate(2 * n, one), candidate(2 * n + 1, other), 1.0) for n, (one, other) in enumerate(lengths)]
    stay = balanced(pairs)
    assert stay == [pair for pair in pairs if pair in stay]
    chosen, rejected = (sum(getattr(pair, side).length for pair in pairs) for side in ("chosen", "rejected"))
    if abs(chosen - rejected) <= BALANCED * max(chosen, rejected):
        assert stay == pairs


def test_balancing_says_what_it_left_out() -> None:
    rows = [one for n in range(10) for one in (row(f"p{n}", 0, 1.0, 100 if n == 0 else 10), row(f"p{n}", 1, 0.0, 10))]
    pairs, dropped = made(rows, balance=True)
    assert len(pairs) == 9 and dropped.reasons == {"not in a pair: left out to balance lengths": 2}


class _Margins(Judge):
    """A judge that finds what it is told."""

    def __init__(self, *margins: float | None) -> None:
        super().__init__(lambda questions, unanswered: ())
        self._margins = iter(margins)

    def margins(self, pairs: Iterable[tuple[Row, Row]]) -> Iterator[tuple[Row, Row, float | None]]:
        for first, second in pairs:
            yield first, second, next(self._margins)


@pytest.mark.parametrize(("found", "better"), [(1.25, 0), (-1.25, 1), (1.0, None), (-0.5, None), (0.0, None), (None, None)])
def test_a_judged_pair_stays_above_the_margin_and_the_winner_is_chosen(found: float | None, better: int | None) -> None:
    rows = [(one, None) for one, _ in (row("a", 0, 1.0), row("a", 1, 1.0))]
    pairs, dropped = made(rows, judge=_Margins(found))
    if better is None:
        reason = "the judge's verdict could not be read" if found is None else "not in a pair: a mean margin of 1 or less"
        assert (pairs, dropped.reasons) == ([], {reason: 2})
        return
    first = made(rows, judge=_Margins(2.0))[0][0]["chosen_sample"]
    assert pairs[0]["chosen_sample"] == (first if better == 0 else 1 - first) and pairs[0]["margin"] == 1.25


def test_only_kept_rows_are_compared() -> None:
    pairs, dropped = made([*ROWS, row("d", 0, 1.0)], judge=_Margins(2.0, 2.0))
    assert sorted(pair["id"] for pair in pairs) == ["a", "c"]
    assert dropped.reasons == {"accuracy below 1": 2, "not in a pair: the prompt has no completion to set against it": 1}
