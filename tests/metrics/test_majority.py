"""cons@k: votes by meaning, abstentions, ties."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1cli.metrics.majority import classes, cons_at_k, majority


def same_number(a: str, b: str) -> bool:
    return Fraction(a) == Fraction(b)


def test_the_most_common_answer_decides() -> None:
    assert cons_at_k(["7", "8", "8"], [1, 0, 0]) == 0.0
    assert cons_at_k(["7", "8", "7"], [1, 0, 1]) == 1.0


def test_answers_vote_by_meaning() -> None:
    answers = ["3", "1/2", "0.5", "3", "2/4"]
    assert classes(answers, same_number) == [[0, 3], [1, 2, 4]]
    assert majority(answers, same_number) == 1
    assert majority(answers) == 0  # by spelling, "3" would win


def test_a_completion_without_an_answer_does_not_vote() -> None:
    assert majority([None, None, None, "5"]) == 3
    assert majority([None, None]) is None
    assert cons_at_k([None, None], [1, 1]) == 0.0


def test_a_tie_goes_to_the_class_that_came_first() -> None:
    assert majority(["b", "a", "a", "b"]) == 0
    assert cons_at_k(["b", "a", "a", "b"], [0, 1, 1, 0]) == 0.0
    assert majority([None, "a", "b"]) == 1


def test_each_spelling_is_compared_once() -> None:
    asked: list[tuple[str, str]] = []

    def same(a: str, b: str) -> bool:
        asked.append((a, b))
        return False

    classes(["x", "y", "x", "y", "x"], same)
    assert asked == [("x", "y")]


def test_verdicts_must_match_answers() -> None:
    with pytest.raises(ValueError, match="2 answers but 1"):
        cons_at_k(["a", "b"], [1])


@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=12))
def test_the_winner_has_the_highest_count_and_is_the_first_of_its_class(answers: list[str | None]) -> None:
    winner = majority(answers)
    votes = [a for a in answers if a is not None]
    if winner is None:
        assert not votes
    else:
        assert votes.count(answers[winner]) == max(map(votes.count, votes))  # type: ignore[arg-type]
        assert answers.index(answers[winner]) == winner
