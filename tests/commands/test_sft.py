"""What makes two SFT rows one, and what makes them rows about one prompt."""

from r1cli.commands.sft import _lesson, question_of
from r1cli.row import Row

PAIR = {"prompt": "2 + 2?", "completion": "4"}
ASKED = {"role": "user", "content": "2 + 2?"}
CHAT = [ASKED, {"role": "assistant", "content": "4"}]
SAME = [
    PAIR,
    {"prompt": [ASKED], "completion": "4"},
    {"prompt": [{**ASKED, "name": None}], "completion": "4", "messages": None},
    {"prompt": [{"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]}], "completion": "4"},
    {"messages": CHAT},
    {"messages": [ASKED, {**CHAT[1], "tool_calls": None, "weight": 1}], "completion": None},
    {**PAIR, "messages": [ASKED, {"role": "assistant", "content": "old"}], "sample": 0, "finish_reason": "stop"},
]


def test_a_row_and_a_prompt_are_known_in_each_of_their_forms() -> None:
    assert len({_lesson(Row(row)) for row in SAME}) == 1
    assert len({question_of(Row(row)) for row in SAME}) == 1


def test_other_rows_are_others() -> None:
    longer = [*CHAT, {"role": "user", "content": "and 3?"}, {"role": "assistant", "content": "7"}]
    system = [{"role": "system", "content": "2 + 2?"}, *CHAT]
    others = [PAIR, {**PAIR, "completion": "5"}, {**PAIR, "prompt": "2 + 3?"}, {"messages": longer}, {"messages": system}]
    assert len({_lesson(Row(row)) for row in others}) == len(others)
    assert len({question_of(Row(row)) for row in others}) == 3, "a longer chat begins with the same prompt"
