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
    assert answers(FieldMap(["unused=messages"]).apply(Row(BOTH))) == [("2 + 2?", "4")]
    assert [text for _, text in answers(FieldMap(["unused=completion"]).apply(Row(BOTH)))] == ["the data set's own"]
