"""What is written behind a prompt is learnt as it would be sampled, also with tokenizers that put a space in front of any text."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from r1cli.row import Row
from r1cli.text.behind import ids_behind, puts_space
from r1cli.text.conversation import turns
from r1cli.text.prompts import PromptRenderer
from tests.tiny import CHAT_TEMPLATE, LINES, tiny_tokenizer

TEXTS = [
    "It is 42.",
    "<think>\n12 + 30\n</think>\n42",
    "42",
    " two spaces  here",
    "\n\nlines",
    "a",
    "0",
    "é ☃ \u241e",
    "User asks",
]


def made_of(model: models.BPE, where: str) -> Tokenizer:
    """A tokenizer that puts its space in front of what follows special tokens, too ("everywhere"), or of a text ("first")."""
    tokenizer = Tokenizer(model)
    if where == "everywhere":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:  # `legacy=False` of transformers
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


@pytest.fixture(scope="module", params=["everywhere", "first"])
def llama(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    """As the tokenizers of Llama 2, Mistral 7B and TinyLlama: a space in front, bytes for what is in no vocabulary."""
    names = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", *(f"<0x{byte:02X}>" for byte in range(256))]
    learnt = made_of(models.BPE(unk_token="<unk>"), request.param)
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=names, initial_alphabet=["▁", "<", ">"], show_progress=False)
    learnt.train_from_iterator([*LINES, "Q: 1 + 1?\nA: 2", "Q\n<think>"], trainer)  # a line's end joins with what follows
    model = json.loads(learnt.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    tokenizer = made_of(models.BPE(model["vocab"], merges, byte_fallback=True, unk_token="<unk>"), request.param)
    special = {"eos_token": "<|im_end|>", "bos_token": "<s>", "pad_token": "</s>", "extra_special_tokens": ["<|im_start|>"]}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.chat_template = CHAT_TEMPLATE
    return fast


def lesson(tokenizer: PreTrainedTokenizerFast, text: str, template: str = "chat", prompt: str = "1 + 1?") -> tuple[list[int], list[int]]:
    row = Row({"id": "a", "prompt": prompt, "completion": text})
    (learnt,) = turns(row, PromptRenderer(tokenizer, template=template), tokenizer, tokenizer.eos_token_id)
    return learnt


@pytest.mark.parametrize("text", TEXTS)
def test_prompt_and_answer_are_the_text_that_they_were_made_of(llama: PreTrainedTokenizerFast, text: str) -> None:
    assert puts_space(llama)
    prompt, completion = lesson(llama, text, "raw", "Q: 1 + 1?\n")
    assert llama.decode(prompt + completion, clean_up_tokenization_spaces=False) == f"Q: 1 + 1?\n{text}<|im_end|>"
    prompt, completion = lesson(llama, text)
    whole = llama.decode(prompt + completion, clean_up_tokenization_spaces=False)
    assert whole == llama.decode(prompt, clean_up_tokenization_spaces=False) + f"{text}<|im_end|>"
    assert llama.decode(completion[:-1], clean_up_tokenization_spaces=False) == text.removeprefix(" "), "what sampling makes of them"


@pytest.mark.parametrize("text", ["It is 42.", "42", "User asks"])
def test_they_are_those_of_the_whole_conversation(llama: PreTrainedTokenizerFast, text: str) -> None:
    prompt, completion = lesson(llama, text)
    whole = llama.apply_chat_template(
        [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": text}], tokenize=False
    ).removesuffix("\n")
    assert prompt + completion == llama(whole, add_special_tokens=False)["input_ids"]


def test_the_space_stays_where_the_prompt_ends_with_no_blank(llama: PreTrainedTokenizerFast) -> None:
    """After [/INST] these models write it, and the text of what they write does not show it."""
    alone = llama("It is 42.", add_special_tokens=False)["input_ids"]
    assert ids_behind(llama, llama("Q [/INST]", add_special_tokens=False)["input_ids"], "It is 42.") == alone
    assert llama.decode(alone) == "It is 42."
    assert ids_behind(llama, [], "It is 42.") == alone


def test_behind_a_special_token_it_is_as_in_a_whole_conversation(llama: PreTrainedTokenizerFast) -> None:
    prompt = llama("Q <|im_start|>", add_special_tokens=False)["input_ids"]
    whole = llama("Q <|im_start|>It is 42.", add_special_tokens=False)["input_ids"]
    assert prompt + ids_behind(llama, prompt, "It is 42.") == whole


def test_a_special_token_in_front_is_one_behind_the_prompt_too(llama: PreTrainedTokenizerFast) -> None:
    _, completion = lesson(llama, "<s>x")
    assert completion == [*llama("<s>x", add_special_tokens=False)["input_ids"], llama.eos_token_id]


@pytest.mark.parametrize("text", TEXTS)
def test_nothing_changes_for_tokenizers_that_put_none(text: str) -> None:
    tokenizer = tiny_tokenizer()
    assert not puts_space(tokenizer)
    for template in ("chat", "raw", "r1-zero"):
        _, completion = lesson(tokenizer, text, template)
        assert completion == [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
