"""SFT rows become what sampling would see: prompt, then the assistant's own text and the end token."""

from typing import Any

import pytest

from r1cli.engines.openai_api import _text
from r1cli.errors import R1Error
from r1cli.row import Row
from r1cli.text.conversation import answers, turns
from r1cli.text.prompts import PromptRenderer
from tests.tiny import tiny_tokenizer

STRIPS_THINK = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'].split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
CHAT = [
    {"role": "user", "content": "What is 1 + 1?"},
    {"role": "assistant", "content": "<think>\n1 + 1\n</think>\n2"},
    {"role": "user", "content": "And 2 + 1?"},
    {"role": "assistant", "content": "<think>\n2 + 1\n</think>\n3"},
]


def test_every_assistant_turn_is_learnt_after_its_own_history() -> None:
    tokenizer = tiny_tokenizer()
    learnt = turns(Row({"id": "a", "messages": CHAT}), PromptRenderer(tokenizer), tokenizer, tokenizer.eos_token_id)
    texts = [(tokenizer.decode(prompt), tokenizer.decode(completion)) for prompt, completion in learnt]
    first = "<|im_start|>user\nWhat is 1 + 1?<|im_end|>\n<|im_start|>assistant\n"
    assert texts[0] == (first, "<think>\n1 + 1\n</think>\n2<|im_end|>")
    assert texts[1][0] == first + "<think>\n1 + 1\n</think>\n2<|im_end|>\n<|im_start|>user\nAnd 2 + 1?<|im_end|>\n<|im_start|>assistant\n"
    assert texts[1][1] == "<think>\n2 + 1\n</think>\n3<|im_end|>"


def test_a_template_that_opens_the_reasoning_does_not_open_it_twice_and_one_that_strips_it_strips_nothing() -> None:
    tokenizer = tiny_tokenizer(chat_template=STRIPS_THINK)
    learnt = turns(Row({"id": "a", "messages": CHAT[:2]}), PromptRenderer(tokenizer), tokenizer, tokenizer.eos_token_id)
    ((prompt, completion),) = learnt
    assert tokenizer.decode(prompt).endswith("<|im_start|>assistant\n<think>\n")
    assert tokenizer.decode(completion) == "1 + 1\n</think>\n2<|im_end|>"


def test_prompt_and_completion_rows_take_the_template_of_sampling() -> None:
    tokenizer = tiny_tokenizer()
    row = Row({"id": "a", "prompt": "What is 2 + 2?", "completion": "4"})
    ((prompt, completion),) = turns(row, PromptRenderer(tokenizer, template="raw"), tokenizer, tokenizer.eos_token_id)
    assert tokenizer.decode(prompt, skip_special_tokens=True) == "What is 2 + 2?"
    assert completion[-1] == tokenizer.eos_token_id


SAMPLED = {"id": "a", "prompt": "What is 2 + 2?", "completion": "I add.\n</think>\n\n4"}  # by a prompt that opened the reasoning


@pytest.mark.parametrize("prefix", ["<think>\n", True])
def test_what_the_prompt_of_a_sample_had_opened_is_learnt_where_this_prompt_does_not_open_it(prefix: Any) -> None:
    tokenizer = tiny_tokenizer()
    for template in ("chat", "raw", "r1-zero"):
        renderer = PromptRenderer(tokenizer, template=template)
        ((prompt, completion),) = turns(Row({**SAMPLED, "think_prefix": prefix}), renderer, tokenizer, tokenizer.eos_token_id)
        assert not tokenizer.decode(prompt).rstrip().endswith("<think>")
        assert tokenizer.decode(completion) == "<think>\nI add.\n</think>\n\n4<|im_end|>"


@pytest.mark.parametrize("prefix", ["<think>\n", "<think>", True, None])
def test_what_this_prompt_opens_as_well_does_not_stand_twice(prefix: Any) -> None:
    row = Row({**SAMPLED, "think_prefix": prefix})
    opens = tiny_tokenizer(chat_template=STRIPS_THINK)
    plain = tiny_tokenizer()
    own = row.with_fields(prompt="What is 2 + 2? <think>\n")
    for tokenizer, renderer, given in (
        (opens, PromptRenderer(opens), row),
        (plain, PromptRenderer(plain, think_prefix=True), row),
        (plain, PromptRenderer(plain, template="raw"), own),
    ):
        ((prompt, completion),) = turns(given, renderer, tokenizer, tokenizer.eos_token_id)
        assert tokenizer.decode(prompt).endswith("<think>\n")
        assert tokenizer.decode(completion) == "I add.\n</think>\n\n4<|im_end|>"


def test_an_opening_is_put_back_only_where_it_is_missing() -> None:
    assert answers(Row({**SAMPLED, "think_prefix": "<think>\n"})) == [("What is 2 + 2?", "<think>\nI add.\n</think>\n\n4")]
    whole = "<think>\nI add.\n</think>\n\n4"
    for fields in (
        {**SAMPLED, "completion": whole, "think_prefix": "<think>\n"},
        {"messages": [CHAT[0], {"role": "assistant", "content": whole}], "completion": "x", "think_prefix": "<think>\n"},
    ):
        ((_, said),) = answers(Row(fields))
        assert said == whole
    for prefix in (None, False, "", "<think>\n\n</think>\n\n"):  # nothing is open behind it
        ((_, said),) = answers(Row({**SAMPLED, "think_prefix": prefix}))
        assert said == SAMPLED["completion"]


def test_a_row_without_anything_to_learn_is_named() -> None:
    tokenizer = tiny_tokenizer()
    with pytest.raises(R1Error, match=r"rows.jsonl:3: row `a`: it has no assistant message to learn from"):
        turns(Row({"id": "a", "messages": CHAT[:1]}, where="rows.jsonl:3"), PromptRenderer(tokenizer), tokenizer, tokenizer.eos_token_id)


def test_without_a_prompt_the_first_token_is_what_the_rest_is_predicted_from() -> None:
    tokenizer = tiny_tokenizer()
    renderer, end = PromptRenderer(tokenizer, template="raw"), tokenizer.eos_token_id
    ids = tokenizer("What is 2 + 2?")["input_ids"]
    assert turns(Row({"id": "a", "prompt": "", "completion": "What is 2 + 2?"}), renderer, tokenizer, end) == [(ids[:1], [*ids[1:], end])]
    with pytest.raises(R1Error, match=r"rows.jsonl:9: row `a`: it is empty: prompt and answer have no token"):
        turns(Row({"id": "a", "prompt": "", "completion": ""}, where="rows.jsonl:9"), renderer, tokenizer, end)


def chat(**fields: Any) -> Row:
    """A row of one question and an assistant message with these fields."""
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", **fields}]
    return Row({"id": "a", "messages": messages}, where="rows.jsonl:3")


CALL = [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]


@pytest.mark.parametrize(
    "row",
    [
        chat(content="", tool_calls=CALL),
        chat(content=None, tool_calls=CALL),
        chat(content="I look it up.", tool_calls=CALL),
        chat(content=None, function_call=CALL[0]["function"]),
        Row({**chat(content="4"), "tools": CALL}, where="rows.jsonl:3"),
        Row({"id": "a", "prompt": [*chat(content="", tool_calls=CALL)["messages"], CHAT[0]], "completion": "4"}, where="rows.jsonl:3"),
        Row({"id": "a", "prompt": "q", "completion": "4", "tools": CALL}, where="rows.jsonl:3"),
    ],
)
def test_tool_calls_are_refused_by_name(row: Row) -> None:
    with pytest.raises(R1Error, match=r"^rows.jsonl:3: row `a`: .*`(tools|tool_calls|function_call)`, and r1 does not train") as raised:
        answers(row)
    assert "into `content`" in str(raised.value.hint) and "--skip-bad" in str(raised.value.hint)
    assert raised.value.code == 2


def test_columns_that_a_row_does_not_use_are_no_tool_calls() -> None:
    """A table of chats has every column in every row."""
    row = Row({**chat(content="4", tool_calls=None, function_call=None, reasoning=None, reasoning_content=""), "tools": "[]"})
    assert [text for _, text in answers(row)] == ["4"]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"content": "\n\nans", "reasoning_content": " let me think\n"}, "<think>\nlet me think\n</think>\n\nans"),
        ({"content": "ans", "reasoning": "r"}, "<think>\nr\n</think>\n\nans"),
        ({"content": "ans", "reasoning": "r", "reasoning_content": "r"}, "<think>\nr\n</think>\n\nans"),
        ({"content": "ans", "reasoning": " ", "reasoning_content": "r"}, "<think>\nr\n</think>\n\nans"),
        ({"content": "<think>\nr\n</think>\n\nans", "reasoning_content": "r"}, "<think>\nr\n</think>\n\nans"),
        ({"content": None, "reasoning_content": "r"}, "<think>\nr\n"),  # nothing came after it: it was cut
    ],
)
def test_reasoning_beside_the_content_is_learnt_in_front_of_it(fields: dict[str, Any], text: str) -> None:
    ((_, learnt),) = answers(chat(**fields))
    assert learnt == text


def test_reasoning_is_written_as_a_servers_answer_is() -> None:
    message = {"content": "\n4", "reasoning_content": "2 + 2\n"}
    for reason, given in (("stop", message), ("stop", {**message, "content": None}), ("length", {**message, "content": None})):
        ((_, learnt),) = answers(Row({**chat(**given), "finish_reason": reason}))
        assert learnt == _text({"message": given, "finish_reason": reason})


def test_earlier_turns_have_their_reasoning_in_the_prompt() -> None:
    row = Row({"id": "a", "messages": [*chat(content="ans", reasoning_content="r")["messages"], *CHAT[2:]]})
    (_, (history, _)) = answers(row)
    assert history[1] == {"role": "assistant", "content": "<think>\nr\n</think>\n\nans"}
    assert "reasoning_content" in row["messages"][1], "rows are never changed in place"
    as_prompt = Row({"id": "a", "prompt": row["messages"][:3], "completion": "3"})
    assert answers(as_prompt) == [(history, "3")]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"content": "<think>\nother\n</think>\n\nans", "reasoning_content": "r"},
            "message 2 has reasoning in `reasoning_content` and other",
        ),
        ({"content": "ans", "reasoning": "r", "reasoning_content": "s"}, "message 2: `reasoning_content` and `reasoning` differ"),
        ({"content": "ans", "reasoning": {"text": "r"}}, "message 2: `reasoning` must be a string, found dict"),
    ],
)
def test_reasoning_that_would_be_lost_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(R1Error, match=f"^rows.jsonl:3: row `a`: {message}"):
        answers(chat(**fields))


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (chat(content="b\ud800"), "message 2: `content`"),
        (chat(content="b", reasoning="\ud800"), "message 2: `content`"),
        (Row({"id": "a", "prompt": "\ud800", "completion": "b"}, where="rows.jsonl:3"), "`prompt`"),
        (Row({"id": "a", "prompt": "q", "completion": "b\ud800"}, where="rows.jsonl:3"), "`completion`"),
    ],
)
def test_half_of_a_surrogate_pair_is_named(row: Row, field: str) -> None:
    with pytest.raises(R1Error, match=rf"^rows.jsonl:3: row `a`: {field} holds half of a surrogate pair \(\\ud800, character \d+\)"):
        answers(row)


def test_what_the_template_refuses_is_named() -> None:
    tokenizer = tiny_tokenizer()
    row = Row({"id": "a", "messages": CHAT}, where="rows.jsonl:3")
    with pytest.raises(R1Error, match=r"^rows.jsonl:3: row `a`: template `raw` takes one question") as raised:
        turns(row, PromptRenderer(tokenizer, template="raw"), tokenizer, tokenizer.eos_token_id)
    assert raised.value.hint == "take --template chat"
    twice = Row({"id": "a", "messages": [*CHAT[:2], CHAT[1]]}, where="rows.jsonl:3")
    with pytest.raises(R1Error, match=r"^rows.jsonl:3: row `a`: messages 2 and 3 are both the assistant's"):
        answers(twice)


@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}])
def test_a_message_that_is_marked_as_not_to_be_learnt_is_only_read(mark: dict[str, Any]) -> None:
    messages = [{"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))]
    marked = [messages[0], {**messages[1], **mark}, messages[2], {**messages[3], "weight": 1, "train": True}]
    [(before, said)] = answers(Row({"messages": marked}))
    assert said == "d" and [message["content"] for message in before] == ["a", "b", "c"]
    with pytest.raises(R1Error, match="it has no assistant message to learn from"):
        answers(Row({"messages": marked[:2]}))
    with pytest.raises(R1Error, match="message 2: `weight` must be 0 or 1"):
        answers(Row({"messages": [messages[0], {**messages[1], "weight": 0.5}]}))


@pytest.mark.parametrize(
    ("prompt", "fix"), [([{"role": "user", "content": "q"}], ".messages = .prompt + .completion"), ("q", "[0].content")]
)
def test_conversations_of_trl_are_told_what_to_become(prompt: object, fix: str) -> None:
    row = Row({"id": "a", "prompt": prompt, "completion": [{"role": "assistant", "content": "4"}]}, where="rows.jsonl:3")
    with pytest.raises(R1Error, match=r"^rows.jsonl:3: row `a`: `completion` is a list of messages") as raised:
        answers(row)
    assert fix in (raised.value.hint or "")


def test_parts_that_are_all_text_are_one_text_wherever_they_stand() -> None:
    parts = [{"type": "text", "text": "2+2?"}]
    asked, answer = {"role": "user", "content": parts}, {"role": "assistant", "content": [{"type": "text", "text": "4"}]}
    for row in ({"prompt": [asked], "completion": "4"}, {"messages": [asked, answer]}):
        assert answers(Row(row)) == [([{"role": "user", "content": "2+2?"}], "4")]
    picture = {"role": "user", "content": [*parts, {"type": "image_url", "image_url": {"url": "u"}}]}
    for fields, name in (
        ({"prompt": [picture], "completion": "4"}, "message 1 of `prompt`"),
        ({"messages": [picture, answer]}, "message 1"),
    ):
        with pytest.raises(R1Error, match=f"^rows.jsonl:3: row `a`: {name} has a `content` with a part `image_url`, and r1 reads text"):
            answers(Row({"id": "a", **fields}, where="rows.jsonl:3"))
