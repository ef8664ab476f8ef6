"""Which of its two forms an SFT row is learnt in."""

from typing import Any

import pytest

from r1cli.errors import R1Error
from r1cli.io.fields import FieldMap
from r1cli.row import Row
from r1cli.text.conversation import answers

OLD = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "the data set's own"}]
BOTH = {"id": "a", "prompt": "2 + 2?", "messages": OLD, "completion": "4"}
DRAWN = {**BOTH, "sample": 0, "finish_reason": "stop", "num_tokens": 1, "model": "m", "seed": 1}


def said(**fields: Any) -> list[str]:
    return [text for _, text in answers(Row(fields, where="rows.jsonl:3"))]


def test_what_was_drawn_is_learnt_and_not_what_the_data_set_had() -> None:
    assert answers(Row(DRAWN)) == [("2 + 2?", "4")]
    assert answers(Row({**DRAWN, "completion": "</think>4", "think_prefix": "<think>\n"})) == [("2 + 2?", "<think>\n</think>4")]
    assert said(**{**DRAWN, "completion": ""}) == [""], "an empty one too, which the preflight counts"


def test_null_counts_as_absent() -> None:
    """A table has every column in every row."""
    assert said(**{**BOTH, "messages": None}) == said(**{**BOTH, "messages": []}) == ["4"]
    for unused in ({"prompt": None, "completion": None}, {"completion": None}, {"prompt": "", "completion": ""}, {"prompt": None}):
        assert said(**{**BOTH, **unused}) == ["the data set's own"]
    with pytest.raises(R1Error, match=r"^rows.jsonl:3: row `a` has neither .*; it has id, prompt, messages \(null\), completion \(null\)$"):
        said(**{**BOTH, "messages": None, "completion": None})
    with pytest.raises(R1Error, match="row `a`: field `prompt` must be string or list, found NoneType"):
        said(**{**BOTH, "messages": None, "prompt": None})


def test_a_row_with_two_answers_is_refused_and_the_hint_makes_it_one() -> None:
    with pytest.raises(R1Error, match=r"^rows.jsonl:3: row `a`: it has both `messages` and `prompt` with `completion`") as raised:
        said(**BOTH)
    assert raised.value.code == 2 and "--map unused=messages" in (raised.value.hint or "")
    with pytest.raises(R1Error, match="it has both"):  # somebody else's numbers
        said(**BOTH, sample=3, model="m")
    assert answers(FieldMap(["unused=messages"]).apply(Row(BOTH))) == [("2 + 2?", "4")]
    assert [text for _, text in answers(FieldMap(["unused=completion"]).apply(Row(BOTH)))] == ["the data set's own"]


QUESTION = [{"role": "user", "content": "2 + 2?"}]
LESSON = {"id": "a", "messages": [*QUESTION, {"role": "assistant", "content": "4"}]}
PAIR = {"id": "a", "prompt": "2 + 2?", "completion": "4"}


@pytest.mark.parametrize("row", [LESSON, PAIR])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"functions": [{"name": "add"}]}, "it has a field `functions`, and r1 does not train tool calls"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "it has a field `chat_template_kwargs`, and r1 renders every row by the"),
        ({"weight": 0}, "it has `weight` 0, and r1 learns every row alike"),
        ({"weight": 0.5}, "it has `weight` 0.5, and"),
        ({"weights": [1, 0]}, r"it has `weights` \[1, 0\], and"),
        ({"system": "Be brief."}, "it has a field `system`, and no system message: r1 learns the conversation alone"),
    ],
)
def test_fields_that_would_change_what_is_learnt_are_refused(row: dict[str, Any], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(R1Error, match=f"^rows.jsonl:3: row `a`: {message}") as raised:
        said(**row, **fields)
    (field,) = fields
    assert raised.value.code == 2 and f"--map unused={field}" in (raised.value.hint or "")
    mapped = FieldMap([f"unused={field}"]).apply(Row({**row, **fields}))
    assert [text for _, text in answers(mapped)] == ["4"], "the hint works"
    assert said(**row, **fields, sample=0, model="m") == ["4"], "what r1 drew was drawn without it"


@pytest.mark.parametrize("row", [LESSON, PAIR])
def test_columns_that_change_nothing_are_let_be(row: dict[str, Any]) -> None:
    unused = {"functions": None, "chat_template_kwargs": {"enable_thinking": None}, "weight": 1.0, "weights": [1, 1], "system": " "}
    for fields in (
        unused,
        dict.fromkeys(unused),
        {"functions": "[]", "chat_template_kwargs": {}, "weight": "70 kg", "system": {"os": "x"}},
    ):
        assert said(**row, **fields) == ["4"]
    asked = [{"role": "system", "content": "Be brief."}, *QUESTION]
    assert said(id="a", prompt=asked, completion="4", system="Be brief.") == ["4"]


def test_what_to_do_with_a_system_message_fits_the_form_of_the_row() -> None:
    for row, put in (
        (LESSON, '.messages = [{role: "system", content: .system}] + .messages | del(.system)'),
        (PAIR, '.prompt = [{role: "system", content: .system}] + [{role: "user", content: .prompt}] | del(.system)'),
        ({**PAIR, "prompt": QUESTION}, '.prompt = [{role: "system", content: .system}] + .prompt | del(.system)'),
    ):
        with pytest.raises(R1Error) as raised:
            said(**row, system="Be brief.")
        assert f"jq -c '{put}'" in (raised.value.hint or "")


def test_reasoning_beside_a_completion_is_learnt_in_front_of_it() -> None:
    assert said(**PAIR, reasoning_content="2 + 2") == ["<think>\n2 + 2\n</think>\n\n4"]
    assert said(**PAIR, reasoning_content="2 + 2", think_prefix="<think>\n") == ["<think>\n2 + 2\n</think>\n\n4"]
    assert said(**PAIR, reasoning_content="") == said(**PAIR, reasoning="on") == ["4"], "the latter is a column of many meanings"
    assert said(**PAIR, reasoning_content="the data set's own", sample=0, finish_reason="stop") == ["4"]
    with pytest.raises(R1Error, match="row `a`: the completion has reasoning in `reasoning_content` and other reasoning in `content`"):
        said(**{**PAIR, "completion": "<think>\nother\n</think>\n\n4"}, reasoning_content="2 + 2")
