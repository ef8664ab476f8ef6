"""SFT rows become what sampling would see: prompt, then the assistant's own text and the end token."""

import pytest

from r1cli.errors import R1Error
from r1cli.row import Row
from r1cli.text.conversation import turns
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


def test_a_row_without_anything_to_learn_is_named() -> None:
    tokenizer = tiny_tokenizer()
    with pytest.raises(R1Error, match=r"rows.jsonl:3: row `a` has no assistant message to learn from"):
        turns(Row({"id": "a", "messages": CHAT[:1]}, where="rows.jsonl:3"), PromptRenderer(tokenizer), tokenizer, tokenizer.eos_token_id)


def test_without_a_prompt_the_first_token_is_what_the_rest_is_predicted_from() -> None:
    tokenizer = tiny_tokenizer()
    renderer, end = PromptRenderer(tokenizer, template="raw"), tokenizer.eos_token_id
    ids = tokenizer("What is 2 + 2?")["input_ids"]
    assert turns(Row({"id": "a", "prompt": "", "completion": "What is 2 + 2?"}), renderer, tokenizer, end) == [(ids[:1], [*ids[1:], end])]
    with pytest.raises(R1Error, match=r"rows.jsonl:9: row `a` is empty: prompt and answer have no token"):
        turns(Row({"id": "a", "prompt": "", "completion": ""}, where="rows.jsonl:9"), renderer, tokenizer, end)
