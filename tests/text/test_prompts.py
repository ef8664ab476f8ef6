"""Prompt templates: the exact text and tokens a model sees, and what they have opened."""

import pytest

from r1cli.errors import R1Error
from r1cli.row import Row
from r1cli.text.conversation import turns
from r1cli.text.prompts import BOXED, Example, PromptRenderer, WordRenderer, opened
from r1cli.text.rewriting import rewrite_prompt
from r1cli.text.templates import REFLECT, REQUESTS, closed
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


IMAGE = [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": "u"}}]}]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def test_chat_is_the_tokenizers_own_template(tokenizer):
    text = PromptRenderer(tokenizer).text("2+2?")
    assert text == "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert PromptRenderer(tokenizer, system="S").text(messages).startswith("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\na")


def test_chat_tokens_are_those_of_the_library(tokenizer):
    messages = [{"role": "user", "content": "What is 12 + 30?"}]
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert PromptRenderer(tokenizer).ids(messages) == theirs


def test_parts_that_are_all_text_are_one_text(tokenizer):
    """Templates that print the content would write Python's own form of the list."""
    parts = [{"role": "user", "content": [{"type": "text", "text": "2+2?"}, {"type": "text", "text": "in French", "image_url": None}]}]
    for template in ("chat", "raw", "boxed"):
        renderer = PromptRenderer(tokenizer, template=template)
        assert renderer.text(parts) == renderer.text([{"role": "user", "content": "2+2?\nin French"}])
    assert WordRenderer().words(parts) == [{"role": "user", "content": "2+2?\nin French"}]
    assert "2+2?\nin French\n" in rewrite_prompt(Row({"prompt": parts, "completion": "4"}))


def test_boxed_follows_the_last_user_message(tokenizer):
    text = PromptRenderer(tokenizer, template="boxed").text([{"role": "user", "content": "a"}])
    assert f"user\na\n{BOXED}<|im_end|>" in text


@pytest.mark.parametrize("template", ["boxed", "reflect"])
def test_a_request_stays_behind_the_users_message_when_a_tool_speaks_last(tokenizer, template):
    roles = ["user", "assistant", "user", "assistant", "tool"]
    prompt = [{"role": role, "content": str(place)} for place, role in enumerate(roles)]
    text = PromptRenderer(tokenizer, template=template).text(prompt)
    assert text.count(REQUESTS[template]) == 1
    assert f"user\n2\n{REQUESTS[template]}<|im_end|>" in text and "tool\n4<|im_end|>" in text


@pytest.mark.parametrize("template", ["boxed", "reflect"])
def test_a_request_needs_a_message_of_the_user(tokenizer, template):
    alone = [{"role": "system", "content": "s"}]
    for renderer in (PromptRenderer(tokenizer, template=template).text, WordRenderer(template=template).words):
        with pytest.raises(R1Error, match=f"the prompt has no `user` message, and template `{template}` puts its request") as raised:
            renderer(alone)
        assert raised.value.code == 2
    row = Row({"id": "a", "messages": [*alone, {"role": "assistant", "content": "x"}]}, where="rows.jsonl:3")
    with pytest.raises(R1Error, match=r"^rows.jsonl:3: row `a`: the prompt has no `user` message"):
        turns(row, PromptRenderer(tokenizer, template=template), tokenizer, tokenizer.eos_token_id)
    assert PromptRenderer(tokenizer).text(alone).startswith("<|im_start|>system\ns"), "chat asks for nothing"


def test_r1_zero_is_the_papers_text(tokenizer):
    text = PromptRenderer(tokenizer, template="r1-zero").text("What is {x}?")
    assert text == (
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant first thinks "
        "about the reasoning process in the mind and then provides the user with the answer. The reasoning process and answer are enclosed "
        "within <think>...</think> and <answer>...</answer> tags, respectively, i.e., <think> reasoning process here </think> <answer> "
        "answer here </answer>. User: What is {x}?. Assistant:"
    )


def test_a_file_template_leaves_other_braces_alone(tokenizer, tmp_path):
    file = tmp_path / "t.txt"
    file.write_text('{"q": "{prompt}", "n": {0}}\n')
    assert PromptRenderer(tokenizer, template=str(file)).text("{prompt} {y}") == '{"q": "{prompt} {y}", "n": {0}}'


@pytest.mark.parametrize(
    ("template", "ending"),
    [("chat", "assistant\n<think>\n"), ("r1-zero", "Assistant: <think>\n"), ("raw", "2+2?\n<think>\n")],
)
def test_think_prefix_opens_the_reasoning(tokenizer, template, ending):
    renderer = PromptRenderer(tokenizer, template=template, think_prefix=True)
    assert renderer.text("2+2?").endswith(ending)
    assert renderer.think_prefix == "<think>\n"


def test_a_template_that_opens_it_is_seen_and_not_doubled():
    tokenizer = tiny_tokenizer(chat_template=THINKING)
    for asked in (False, True):
        renderer = PromptRenderer(tokenizer, think_prefix=asked)
        assert renderer.think_prefix == "<think>\n"
        assert renderer.text("2+2?").count("<think>") == 1
    assert PromptRenderer(tiny_tokenizer()).think_prefix == ""


def test_opened_wants_an_open_block():
    assert opened("assistant\n<think>\n\n</think>\n\n") == ""
    assert opened("</think> x <think>") == "<think>"


def test_a_prompt_that_closes_the_reasoning_at_its_end_says_so():
    assert closed("assistant\n<think>\n\n</think>\n\n") == "<think>\n\n</think>\n\n"
    assert closed("<|Assistant|></think>") == "</think>"
    assert closed("write <think> and </think>. Assistant:") == closed("assistant\n<think>\n") == ""
    tokenizer = tiny_tokenizer(chat_template=CHAT_TEMPLATE.replace("assistant\n{%", "assistant\n<think>\n\n</think>\n\n{%"))
    assert PromptRenderer(tokenizer).closed_think == "<think>\n\n</think>\n\n"
    opened_again = PromptRenderer(tokenizer, think_prefix=True)
    assert (opened_again.think_prefix, opened_again.closed_think) == ("<think>\n", "")


def test_half_of_a_surrogate_pair_is_no_prompt(tokenizer):
    with pytest.raises(R1Error, match=r"half of a surrogate pair \(\\udc80, character \d+\)"):
        PromptRenderer(tokenizer).ids("a\udc80")


def test_bos_comes_once_and_only_where_the_tokenizer_puts_one(tokenizer):
    from tokenizers.processors import TemplateProcessing

    assert PromptRenderer(tokenizer, template="raw").ids("1")[0] != tokenizer.bos_token_id
    adds = tiny_tokenizer()
    adds.backend_tokenizer.post_processor = TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", adds.bos_token_id)])
    raw = PromptRenderer(adds, template="raw")
    assert raw.ids("1").count(adds.bos_token_id) == 1
    assert raw.ids("<|bos|>1").count(adds.bos_token_id) == 1
    assert adds.bos_token_id not in PromptRenderer(adds).ids("1")


SYSTEM_AND_USER = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
STRICT = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda t: PromptRenderer(tiny_tokenizer(chat_template=None)), "no chat template"),
        (lambda t: PromptRenderer(t, template="bxed"), "no template named `bxed`"),
        (lambda t: PromptRenderer(t, template="raw", system="x"), "no place"),
        (lambda t: PromptRenderer(t, template="raw").text(SYSTEM_AND_USER), "conversation"),
        (lambda t: PromptRenderer(t, system="x").text(SYSTEM_AND_USER), "--system"),
        (lambda t: PromptRenderer(t).text([{"role": "assistant", "content": "s"}]), "must end with"),
        (lambda t: PromptRenderer(t).text([{"content": "s"}]), "message 1 of the prompt lacks `role`"),
        (lambda t: PromptRenderer(t).text([*SYSTEM_AND_USER, {"role": "user"}]), "message 3 of the prompt lacks `content`"),
        (lambda t: PromptRenderer(t).text(IMAGE), "message 1 of the prompt has a `content` with a part `image_url`, and r1 reads text"),
        (lambda t: PromptRenderer(t, template="raw").text(IMAGE), "message 1 of the prompt has a `content` with a part `image_url`"),
        (lambda t: WordRenderer().words(IMAGE), "message 1 of the prompt has a `content` with a part `image_url`"),
        (lambda t: PromptRenderer(t).text([{"role": "user", "content": 5}]), "has a `content` with int"),
        (lambda t: PromptRenderer(t).text([*SYSTEM_AND_USER, CALL]), "message 3 of the prompt calls a tool .* not supported"),
        (lambda t: PromptRenderer(tiny_tokenizer(chat_template=STRICT)).text(SYSTEM_AND_USER), "no system role"),
    ],
)
def test_what_cannot_be_rendered_is_refused_with_a_hint(tokenizer, make, words):
    with pytest.raises(R1Error, match=words) as caught:
        make(tokenizer)
    assert caught.value.code == 2
    assert caught.value.hint


def test_a_file_without_a_slot_is_refused(tokenizer, tmp_path):
    (tmp_path / "t.txt").write_text("no slot")
    with pytest.raises(R1Error, match=r"no \{prompt\}"):
        PromptRenderer(tokenizer, template=str(tmp_path / "t.txt"))


STRIPPING = (  # as Qwen3's and R1's own templates do it
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'].split('</think>')[-1] if m['role'] == 'assistant' else m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
EXAMPLES: list[Example] = [
    ("1+1?", "<think>\none and one\n</think>\n\n2"),
    ([{"role": "system", "content": "s"}, {"role": "user", "content": "2+2?"}], "4"),
]


def test_examples_of_a_chat_keep_their_reasoning_whatever_the_template_strips():
    renderer = PromptRenderer(tiny_tokenizer(chat_template=STRIPPING), template="boxed", system="S", examples=EXAMPLES)
    assert renderer.text("3+3?") == (
        f"<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n1+1?\n{BOXED}<|im_end|>\n"
        f"<|im_start|>assistant\n<think>\none and one\n</think>\n\n2<|im_end|>\n<|im_start|>user\n2+2?\n{BOXED}<|im_end|>\n"
        f"<|im_start|>assistant\n4<|im_end|>\n<|im_start|>user\n3+3?\n{BOXED}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_an_example_never_answers_its_own_prompt(tokenizer):
    renderer = PromptRenderer(tokenizer, examples=EXAMPLES, shots=1)
    assert "one and one" in renderer.text("3+3?") and "2+2?" not in renderer.text("3+3?")
    assert "one and one" not in renderer.text("1+1?") and "2+2?" in renderer.text("1+1?")


def test_examples_of_a_plain_template_are_filled_in_copies(tokenizer, tmp_path):
    assert PromptRenderer(tokenizer, template="raw", examples=EXAMPLES[:1]).text("3?") == f"1+1?\n{EXAMPLES[0][1]}\n\n3?"
    zero = PromptRenderer(tokenizer, template="r1-zero", examples=EXAMPLES[:1], think_prefix=True).text("3?")
    assert zero.count("A conversation between User and Assistant.") == 2
    assert f"User: 1+1?. Assistant: {EXAMPLES[0][1]}\n\nA conversation" in zero
    assert zero.endswith("User: 3?. Assistant: <think>\n")
    (tmp_path / "t.txt").write_text("Q: {prompt}\nA: <think>\n")
    text = PromptRenderer(tokenizer, template=str(tmp_path / "t.txt"), examples=EXAMPLES[:1]).text("3?")
    assert text == "Q: 1+1?\nA: <think>\none and one\n</think>\n\n2\n\nQ: 3?\nA: <think>"


def test_a_template_that_hides_earlier_turns_has_no_place_for_examples():
    last = "{{ messages[-1]['content'] }}{% if add_generation_prompt %}\nassistant: {% endif %}"
    with pytest.raises(R1Error, match="examples have no place"):
        PromptRenderer(tiny_tokenizer(chat_template=last), examples=EXAMPLES[:1]).text("3?")


def test_words_for_a_server_are_what_the_tokenizer_would_be_given(tokenizer):
    for template in ("chat", "boxed", "reflect"):
        words = WordRenderer(template=template, system="S", examples=EXAMPLES).words("3+3?")
        rendered = tokenizer.apply_chat_template(words, tokenize=False, add_generation_prompt=True)
        assert rendered == PromptRenderer(tokenizer, template=template, system="S", examples=EXAMPLES).text("3+3?")
    assert WordRenderer(template="r1-zero", think_prefix=True).words("?") == PromptRenderer(
        tokenizer, template="r1-zero", think_prefix=True).text("?")  # fmt: skip
    with pytest.raises(R1Error, match="the server keeps it"):
        WordRenderer(think_prefix=True)


def test_reflect_asks_for_verification_and_a_summary(tokenizer):
    text = PromptRenderer(tokenizer, template="reflect").text("a")
    assert f"user\na\n{REFLECT}<|im_end|>" in text


def test_a_rewrite_shows_problem_and_draft_with_the_tag_its_prompt_had_opened():
    row = Row({"prompt": [{"role": "user", "content": "6*7?"}], "completion": "a {draft}\n</think>\n42", "think_prefix": "<think>\n"})
    text = rewrite_prompt(row)
    assert "Problem:\n6*7?\n" in text
    assert "Draft:\n<think>\na {draft}\n</think>\n42\n" in text
    with pytest.raises(R1Error, match="no field `completion`"):
        rewrite_prompt(Row({"prompt": "a"}))
