"""cons@k: is the answer that most of k completions agree on right? (DeepSeek-R1, section 2.2 "cons@64"; Wang et al. 2022, arXiv 2203.11171)

Answers vote by meaning, not by spelling: the caller says when two answers are the same. What is decided here:

- A completion without an answer does not vote. It is not thrown out of k: where nobody votes, the group is wrong.
- A tie goes to the class whose first answer came earliest. Completions of one problem are exchangeable, so this favours no answer, and it
  gives the same result on every run.
"""

from collections.abc import Callable, Hashable, Sequence
from operator import eq
from typing import Any


def classes(answers: Sequence[Hashable | None], same: Callable[[Any, Any], bool] = eq) -> list[list[int]]:
    """The answers sorted into classes of equal ones, as lists of positions; classes in order of first appearance, None left out.

    `same(first, other)` is asked about an answer and the first member of each class so far, and only once for answers that are spelled
    alike: a class is what equals its first member. Number of calls: at most distinct answers x classes.
    """
    found: list[list[int]] = []
    place: dict[Hashable, int] = {}
    for i, answer in enumerate(answers):
        if answer is None:
            continue
        if answer not in place:
            place[answer] = next((c for c, members in enumerate(found) if same(answers[members[0]], answer)), len(found))
        if place[answer] == len(found):
            found.append([])
        found[place[answer]].append(i)
    return found


def majority(answers: Sequence[Hashable | None], same: Callable[[Any, Any], bool] = eq) -> int | None:
    """Position of the first completion that gives the most common answer; None when no completion has an answer."""
    largest = max(classes(answers, same), key=len, default=None)  # max keeps the first of equals: the tie rule above
    return None if largest is None else largest[0]


def cons_at_k(answers: Sequence[Hashable | None], correct: Sequence[float], same: Callable[[Any, Any], bool] = eq) -> float:
    """1.0 when the majority answer of one problem's completions is right, else 0.0.

    answers: what each completion answered, in the order drawn, None where it gave no answer. correct: whether each is right (0..1); the
    verdict is that of the first completion of the winning class. Raises `ValueError` when the two differ in length.
    """
    if len(answers) != len(correct):
        raise ValueError(f"{len(answers)} answers but {len(correct)} verdicts")
    winner = majority(answers, same)
    return 0.0 if winner is None else float(correct[winner] >= 1.0)
