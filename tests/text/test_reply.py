"""How a reward model's text is made."""

import pytest

from r1cli.errors import R1Error
from r1cli.text.reply import ReplyRenderer
from tests.text.test_conversation import STRIPS_THINK
from tests.tiny import END, tiny_tokenizer

TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]


def test_the_text_is_what_the_chat_template_makes_of_the_conversation() -> None:
    tokenizer = tiny_tokenizer()
    renderer = ReplyRenderer(tokenizer)
    for prompt in ("Hi", TURNS):
        messages = [{"role": "user", "content": "Hi"}] if prompt == "Hi" else TURNS
        expected = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": "<think>x</think>y"}], tokenize=True)
        assert renderer.ids(prompt, "<think>x</think>y") == list(expected["input_ids"])


def test_a_template_that_strips_reasoning_does_not_hide_it() -> None:
    renderer = ReplyRenderer(tiny_tokenizer(chat_template=STRIPS_THINK))
    assert "<think>x</think>y" in renderer.text("Hi", "<think>x</think>y")
    assert "<think>x</think>y" in renderer.text(TURNS, "<think>x</think>y")


def test_without_a_template_there_is_an_error_or_plain_text_on_request() -> None:
    bare = tiny_tokenizer(chat_template=None)
    with pytest.raises(R1Error, match="reward model `h` has no chat template") as caught:
        ReplyRenderer(bare, name="reward model `h`")
    assert caught.value.code == 2 and ":template=plain" in (caught.value.hint or "")
    plain = ReplyRenderer(bare, template="plain")
    assert plain.text("Hi", "there") == f"Hi\n\nthere{END}"
    assert plain.text(TURNS, "d") == f"user: a\n\nassistant: b\n\nuser: c\n\nd{END}"


def test_a_template_that_shows_no_reply_is_refused() -> None:
    renderer = ReplyRenderer(tiny_tokenizer(chat_template="{{ messages[0]['content'] }}"), name="`rm`")
    with pytest.raises(R1Error, match="the chat template of `rm` does not show the reply"):
        renderer.text("Hi", "there")
    refusing = ReplyRenderer(tiny_tokenizer(chat_template="{{ raise_exception('no system role') }}"), name="`rm`")
    with pytest.raises(R1Error, match="refuses the conversation: no system role"):
        refusing.text("Hi", "there")
