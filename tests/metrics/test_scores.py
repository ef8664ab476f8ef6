"""Scores of an evaluation, by hand."""

import pytest

from r1cli.metrics.scores import Problem, summarise


def problem(correct: str, answers: list[str | None] | None = None, cut: str = "", tokens: int | None = 10) -> Problem:
    right = [c == "1" for c in correct]
    return Problem(
        correct=right,
        answers=answers or [f"{i}" for i in range(len(right))],
        truncated=[i < len(cut) for i in range(len(right))],
        tokens=[tokens] * len(right),
    )


def test_scores_by_hand() -> None:
    scores = summarise([problem("1000", ["7", "8", "8", None]), problem("1110", ["5", "5", "5", "6"], cut="x"), problem("0000")])
    assert (scores["problems"], scores["samples"], scores["k"]) == (3, 12, 4)
    assert scores["pass@1"] == pytest.approx((0.25 + 0.75 + 0) / 3)
    assert scores["pass@2"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert scores["pass@4"] == pytest.approx(2 / 3)
    assert scores["cons@k"] == pytest.approx(1 / 3)
    assert scores["low"] < scores["pass@1"] < scores["high"]
    assert scores["truncated"] == pytest.approx(1 / 12)
    assert (scores["mean_tokens"], scores["tokens"]) == (10, 120)


def test_every_problem_weighs_the_same_and_k_is_the_smallest() -> None:
    scores = summarise([problem("11111111"), problem("00")])
    assert scores["pass@1"] == 0.5
    assert scores["k"] == 2 and "pass@4" not in scores


def test_what_nobody_noted_is_null_not_zero() -> None:
    assert summarise([problem("10", tokens=None)])["mean_tokens"] is None
    unknown = Problem(correct=[True], answers=["1"], truncated=[None], tokens=[1])
    assert summarise([unknown])["truncated"] is None


def test_programs_have_no_majority_and_one_completion_has_none_to_add() -> None:
    programs = Problem(correct=[True, False], answers=None, truncated=[False] * 2, tokens=[1] * 2)
    assert summarise([programs])["cons@k"] is None
    assert "cons@k" not in summarise([problem("1")])


def test_no_problems() -> None:
    with pytest.raises(ValueError, match="no problems"):
        summarise([])
