"""Rows of preferences as TRL and r1 write them."""

from typing import Any

import pytest

from r1cli.errors import R1Error
from r1cli.row import Row
from r1cli.text.preferences import Judged, Reply, is_preference, judged

USER, GOOD, BAD = {"role": "user", "content": "q"}, {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}


def read(row: dict[str, Any], margin: str | None = None) -> Judged:
    return judged(Row({"id": "x", **row}, where="p.jsonl:7"), margin)


def test_a_pair_of_texts_with_a_prompt() -> None:
    found = read({"prompt": "q", "chosen": "good", "rejected": "bad"})
    assert found.replies == (Reply("q", "good"), Reply("q", "bad")) and found.is_pair and found.target == 0.0


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [USER], "chosen": "good", "rejected": "bad"},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": "q", "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": "q", "chosen": [{**GOOD, "content": [{"type": "text", "text": "good"}]}], "rejected": [BAD]},
    ],
)
def test_conversations_with_an_explicit_and_an_implicit_prompt(row: dict[str, Any]) -> None:
    found = read(row)
    assert found.replies == (Reply([USER], "good"), Reply([USER], "bad"))
    assert found.prompt_key() == read({"prompt": "q", "chosen": "a", "rejected": "b"}).prompt_key()


def test_texts_that_hold_the_prompt_are_about_what_they_begin_with() -> None:
    found = read({"chosen": "User: q\nAssistant: good", "rejected": "User: q\nAssistant: bad"})
    assert [reply.prompt for reply in found.replies] == [None, None]
    assert found.prompt_key() == "User: q\nAssistant: "


@pytest.mark.parametrize(("label", "target"), [(0, 0.0), (1, 1.0), (True, 1.0), (False, 0.0), ("safe", 1.0), ("unsafe", 0.0), (1.0, 1.0)])
def test_labels(label: Any, target: float) -> None:
    found = read({"prompt": "q", "completion": "text", "label": label})
    assert (found.replies, found.target, found.is_pair) == ((Reply("q", "text"),), target, False)


def test_columns_that_a_row_does_not_use_are_null() -> None:
    """A table has every column in every row."""
    found = read({"prompt": "q", "chosen": None, "rejected": None, "completion": "text", "label": 1})
    assert not found.is_pair and found.replies == (Reply("q", "text"),)
    pair = read({"prompt": "q", "chosen": "a", "rejected": "b", "completion": None, "label": 1})
    assert pair.is_pair
    assert not is_preference(Row({"prompt": "q", "completion": "a", "label": None, "chosen": None, "rejected": None}))


def test_a_completion_row_gets_back_the_reasoning_that_its_prompt_opened() -> None:
    found = read({"prompt": "q", "completion": "why</think>answer", "label": 1, "think_prefix": "<think>\n"})
    assert found.replies[0].text == "<think>\nwhy</think>answer"
    assert found.replies[0].summary() == "answer"


@pytest.mark.parametrize(
    ("text", "summary"),
    [("<think>a</think>\n\nb", "b"), ("no reasoning", "no reasoning"), ("<think>never ends", ""), ("<think>a</think>\n", "")],
)
def test_the_summary_is_what_follows_the_reasoning(text: str, summary: str) -> None:
    assert Reply("q", text).summary() == summary


def test_the_margin_is_taken_when_asked_for() -> None:
    row = {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 1.5}
    assert (read(row).target, read(row, "margin").target) == (0.0, 1.5)


@pytest.mark.parametrize(
    ("row", "margin", "message"),
    [
        ({"text": "no"}, None, "p.jsonl:7: row `x` has neither `chosen` and `rejected` nor `completion` and `label`; it has id, text"),
        ({"prompt": "q", "chosen": "a"}, None, "p.jsonl:7: row `x` has no field `rejected`"),
        ({"prompt": "q", "chosen": "a", "rejected": 3}, None, "field `rejected` must be string or list, found int"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, None, "field `prompt` must be string or list, found int"),
        ({"chosen": [GOOD], "rejected": [BAD]}, None, "field `chosen` is not a conversation"),
        ({"prompt": [USER], "chosen": [USER], "rejected": [BAD]}, None, "field `chosen` does not end with a text of the assistant"),
        ({"prompt": [USER], "chosen": ["a"], "rejected": [BAD]}, None, "field `chosen` is not a conversation"),
        ({"prompt": "q", "completion": "a", "label": 0.5}, None, "field `label` must be 0 or 1 (unsafe or safe), found 0.5"),
        ({"prompt": "q", "completion": "a", "label": None}, None, "field `label` must be 0 or 1 (unsafe or safe), found None"),
        ({"prompt": "q", "completion": "a", "label": "good"}, None, "found 'good'"),
        ({"prompt": "q", "label": 1}, None, "has no field `completion`"),
        (
            {"prompt": "q", "chosen": "a", "rejected": "b", "completion": "c", "label": 1},
            None,
            "p.jsonl:7: row `x`: it has both `chosen` and `rejected`, and `completion` with `label`",
        ),
        (
            {"prompt": [{**USER, "content": [{"type": "image"}]}], "chosen": "a", "rejected": "b"},
            None,
            "field `prompt` has a `content` with a part",
        ),
        ({"prompt": "q", "completion": "a", "label": 1}, "margin", "has a label and no pair: --margin margin means nothing"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "margin", "has no field `margin`"),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "margin": True}, "margin", "field `margin` is no margin: True"),
    ],
)
def test_what_cannot_be_read_is_named(row: dict[str, Any], margin: str | None, message: str) -> None:
    with pytest.raises(R1Error) as caught:
        read(row, margin)
    assert message in caught.value.message
    assert caught.value.code == 2
