"""`--map field=column`."""

import pytest

from r1cli.errors import R1Error
from r1cli.io.fields import FieldMap
from r1cli.row import Row


def mapped(row: dict, *pairs: str) -> dict:
    return dict(FieldMap(pairs).apply(Row(row)))


def test_a_field_takes_the_place_of_its_column() -> None:
    assert list(mapped({"q": 1, "n": 2, "a": 3}, "answer=a", "prompt=q").items()) == [("prompt", 1), ("n", 2), ("answer", 3)]


def test_one_column_may_become_two_fields_and_two_fields_may_swap() -> None:
    assert mapped({"q": 1}, "prompt=q", "title=q") == {"prompt": 1, "title": 1}
    assert mapped({"a": 1, "b": 2}, "a=b", "b=a") == {"a": 2, "b": 1}
    assert mapped({"q": 1}, "prompt=q", "q=q") == {"prompt": 1, "q": 1}


def test_the_column_replaces_a_field_of_that_name() -> None:
    assert mapped({"answer": "long", "short": "4"}, "answer=short") == {"answer": "4"}


def test_dots_reach_into_objects_which_stay_whole() -> None:
    row = {"reward_model": {"ground_truth": "4", "style": "rule"}}
    assert mapped(row, "answer=reward_model.ground_truth") == {**row, "answer": "4"}
    assert mapped({"a.b": 1, "a": {"b": 2}}, "x=a.b") == {"x": 1, "a": {"b": 2}}


def test_no_map_leaves_the_row_itself() -> None:
    row = Row({"a": 1})
    assert FieldMap([]).apply(row) is row
    assert FieldMap(["a=a"]).apply(row) is row


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["answer"], "is not field=column"),
        (["answer="], "is not field=column"),
        (["=x"], "is not field=column"),
        (["a=b", "a=c"], "gives field `a` two columns: `b` and `c`"),
    ],
)
def test_pairs_that_make_no_sense(pairs: list[str], message: str) -> None:
    with pytest.raises(R1Error, match=message) as caught:
        FieldMap(pairs)
    assert caught.value.code == 2


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(R1Error, match=r"a.jsonl:3: row has no column `soluton` to map") as caught:
        FieldMap(["answer=soluton"]).apply(Row({"solution": 1}, where="a.jsonl:3"))
    assert caught.value.hint == "did you mean `solution`?"
    with pytest.raises(R1Error, match=r"no column `a\.b`"):
        mapped({"a": 3}, "x=a.b")
