"""The row: exact text in and out, ids, seeds, errors that name the place."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1cli.errors import R1Error
from r1cli.row import Row, dump, groups, messages_of, parse, require, seed_of, stable_id, with_id

LINE = '{"b":1,  "a": "\u2028é", "x": 1e2, "id": 7}'


def test_an_untouched_row_is_written_back_byte_for_byte() -> None:
    assert dump(parse(LINE)) == LINE


def test_setting_the_values_a_row_has_leaves_it_untouched() -> None:
    row = parse('{"a": 1, "r":  {"x": 1.0}}')
    assert dump(row.with_fields(a=1, r={"x": 1.0})) == '{"a": 1, "r":  {"x": 1.0}}'
    assert dump(row.with_fields(a=1.0)) == '{"a": 1.0, "r": {"x": 1.0}}'
    assert dump(row.with_fields(r={"x": 1})) == '{"a": 1, "r": {"x": 1}}'
    assert dump(parse('{"a": 1}').with_fields(a=True)) == '{"a": true}'


def test_a_changed_row_is_not_written_as_it_was() -> None:
    row = parse('{"a": 1, "b": 2}')
    row["a"] = 2
    assert dump(row) == '{"a": 2, "b": 2}'
    row = parse('{"a": 1, "b": 2}')
    del row["a"]
    assert dump(row) == '{"b": 2}'


def test_fields_keep_their_place_and_new_ones_go_to_the_end() -> None:
    assert list(parse('{"b": 1, "a": 2}').with_fields(c=3, b=4)) == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not valid JSON"),
        ("[1]", "must be a JSON object, found list"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "not JSON"),
        ('{"a": 1e999}', "beyond the range"),
        ('{"a": 01}', "at column 8"),
        ("[" * 100_000, "not valid JSON"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
    ],
)
def test_bad_lines_say_where_and_why(line: str, reason: str) -> None:
    with pytest.raises(R1Error, match=reason) as caught:
        parse(line, "rows.jsonl:3")
    assert caught.value.message.startswith("rows.jsonl:3: ")
    assert caught.value.code == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_numbers_are_never_written(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump(Row({"a": [value]}))


def test_half_a_surrogate_pair_is_escaped_and_other_text_is_not() -> None:
    assert dump(Row({"a": "\ud800"})) == '{"a": "\\ud800"}'
    assert dump(Row({"a": "é\u2028"})) == '{"a": "é\u2028"}'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=6))
def test_every_json_object_survives(fields: dict) -> None:
    back = parse(dump(Row(fields)))
    assert json.dumps(back) == json.dumps(fields)  # unlike ==, tells 1 from 1.0 and keeps the order


def test_a_missing_id_is_a_hash_of_the_prompt_and_nothing_else() -> None:
    one, two = with_id(parse('{"prompt": "2+2?", "a": 1}')), with_id(parse('{"a": 2, "prompt": "2+2?"}'))
    assert one["id"] == two["id"] == stable_id("2+2?")
    assert next(iter(one)) == "id"
    assert with_id(parse('{"a": 1}'))["id"] != with_id(parse('{"a": 2}'))["id"]
    assert with_id(parse('{"a": 1, "prompt": null}'))["id"] != with_id(parse('{"a": 2, "prompt": null}'))["id"]
    assert with_id(parse('{"x": 1, "id": null, "prompt": "2+2?"}')) == {"x": 1, "id": one["id"], "prompt": "2+2?"}
    assert stable_id("2+2?") == "e3ca948e7ab0e337"  # what `printf 2+2? | b2sum -l 64` says


def test_an_id_is_a_string_or_a_number() -> None:
    row = parse('{"id": 0, "a": 1}')
    assert with_id(row) is row
    with pytest.raises(R1Error, match="`id` must be string or int or float, found list"):
        with_id(Row({"id": [1]}))


def test_seeds_are_stable_and_fit_every_json_reader() -> None:
    assert seed_of(0, "a", 0) == seed_of(0, "a", 0) < 2**53
    assert len({seed_of(s, i, k) for s in (0, 1) for i in ("a", "b") for k in (0, 1)}) == 8
    assert seed_of(0, "a", 0) == 2236523431139492  # the upper 53 bits of `printf 0/a/0 | b2sum -l 64`


def test_require_names_row_line_type_and_fields() -> None:
    row = Row({"id": "q1", "prompt": 3}, where="p.jsonl:9")
    with pytest.raises(R1Error, match=r"p.jsonl:9: row `q1`: field `prompt` must be string or list, found int"):
        require(row, "prompt", str, list)
    with pytest.raises(R1Error, match=r"p.jsonl:9: row `q1` has no field `answer` \(string\); it has id, prompt"):
        require(row, "answer", str)
    assert require(row, "prompt", int) == 3


@pytest.mark.parametrize(
    ("fields", "column"),
    [
        ({"reward_model": {"style": "rule", "ground_truth": "1"}}, "reward_model.ground_truth"),
        ({"ground_truth": "1", "extra": {"answer": "2"}}, "ground_truth"),
        ({"extra": {"answer": None}, "solution": "so it is 1"}, None),
        ({"answers": {"answer": {"value": 1}}}, None),
    ],
)
def test_require_points_at_a_column_that_may_be_the_field(fields: dict, column: str | None) -> None:
    with pytest.raises(R1Error) as error:
        require(Row(fields), "answer", str)
    assert error.value.hint == (f"if it is `{column}`: --map answer={column}" if column else "rename a column with --map answer=COLUMN")


def test_groups_and_messages() -> None:
    rows = [Row({"id": i, "n": n}) for n, i in enumerate("aabba")]
    assert [[row["n"] for row in group] for group in groups(rows)] == [[0, 1], [2, 3], [4]]
    assert messages_of("hi") == [{"role": "user", "content": "hi"}]
    assert messages_of([{"role": "system", "content": "s"}]) == [{"role": "system", "content": "s"}]


def test_a_row_travels_between_processes_with_its_place() -> None:
    row = pickle.loads(pickle.dumps(parse(LINE, "f:1")))
    assert (row.where, row.raw, dict(row)) == ("f:1", LINE, json.loads(LINE))


def test_a_field_that_is_lent_for_a_question_is_not_named_as_one_of_the_row() -> None:
    row = Row({"id": "a", "completion": "x"})
    asked = row.lending(completion="", num_tokens=0)
    assert (asked["completion"], asked["num_tokens"], dict(row)) == ("", 0, {"id": "a", "completion": "x"})
    with pytest.raises(R1Error, match=r"it has id, completion$"):
        require(asked, "answer", str)
    with pytest.raises(R1Error, match=r"it has num_tokens$"):
        require(Row({"num_tokens": 0}).lending(num_tokens=0), "answer", str)
