"""`--compare`: which rows moved, from what to what, and how many."""

import pytest

from r1cli.errors import R1Error
from r1cli.row import Row
from r1cli.steps.moves import Moves, index


def row(n: int, **scores: float | None) -> Row:
    return Row({"id": f"q{n}", "sample": 0, "rewards": scores}, where=f"f:{n}")


def keeps(one: Row) -> bool:
    return one["rewards"]["accuracy"] == 1.0


OLD = [row(0, accuracy=1.0), row(1, accuracy=0.0), row(2, accuracy=None), row(3, accuracy=1.0), row(9, accuracy=1.0)]
NEW = [row(0, accuracy=1.0), row(1, accuracy=1.0), row(2, accuracy=0.0), row(3, accuracy=1.0 - 1e-12), row(4, accuracy=1.0)]


def test_rows_are_found_by_id_and_sample() -> None:
    found = Moves(keeps, index(OLD))
    assert [found.after(one) for one in NEW] == [
        None,
        {"rewards": {"accuracy": [0.0, 1.0]}, "kept": [False, True]},
        {"rewards": {"accuracy": [None, 0.0]}},
        {"kept": [True, False]},
        None,
    ]
    assert (found.compared, found.moved, found.unknown) == (4, 3, 1)
    assert found.counts() == {
        "compared": 4,
        "moved": 3,
        "not_in_old": 1,
        "only_in_old": 1,
        "kept_to_dropped": 1,
        "dropped_to_kept": 1,
        "changes": [{"reward": "accuracy", "from": 0.0, "to": 1.0, "rows": 1}, {"reward": "accuracy", "from": None, "to": 0.0, "rows": 1}],
    }
    assert found.lines() == [
        "compared: 3 of 4 rows moved; 1 now kept, 1 now dropped; 1 have no old scores; 1 are only in OLD",
        "moves: accuracy 0 to 1: 1, null to 0: 1",
        "for example `q1`/0: accuracy 0 to 1, now kept; `q2`/0: accuracy null to 0; `q3`/0: now dropped",
    ]


def test_rows_may_bring_their_old_scores_with_them() -> None:
    found = Moves(keeps)
    passed = list(found.before(iter([*OLD[:4], Row({"id": "x"}, where="f:x")])))
    assert len(passed) == 5
    for one in NEW[:4]:
        found.after(one)
    found.after(Row({"id": "x", "rewards": {"accuracy": 1.0}}, where="f:x"))
    assert (found.compared, found.moved, found.unknown, found.counts()["only_in_old"]) == (4, 3, 1, 0)
    assert not found._carried  # nothing stays


def test_a_reward_that_is_new_is_said_and_moves_nothing() -> None:
    found = Moves(keeps, index([row(0, accuracy=1.0)]))
    assert found.after(row(0, accuracy=1.0, format=0.0)) is None
    assert found.lines() == ["compared: 0 of 1 rows moved; `format` is new for 1"]


def test_many_values_are_told_as_up_and_down() -> None:
    found = Moves(lambda one: True, index([row(n, length=n / 10) for n in range(10)]))
    for n in range(10):
        found.after(row(n, length=n / 10 + (0.01 if n < 7 else -0.01)))
    assert found.lines()[1] == "moves: length up 7, down 3"


def test_what_cannot_be_compared_with() -> None:
    with pytest.raises(R1Error, match="f:1: row `q1`, sample 0 is there twice"):
        index([row(1, accuracy=1.0), row(1, accuracy=1.0)])
    with pytest.raises(R1Error, match="has no field `rewards`"):
        index([Row({"id": "a"})])
