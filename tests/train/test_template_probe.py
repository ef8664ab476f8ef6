"""Which chat templates put an assistant's text elsewhere than right behind the prompt, where rows are learnt."""

import json
from typing import Any

import pytest

from r1cli.commands.preflight import OK, WARN, check_model
from r1cli.commands.template_probe import written_before
from r1cli.text.prompts import PromptRenderer
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer


def template(turn: str, said: str, opening: str, *, first: str = "", end: str = "<|im_end|>") -> str:
    """turn: a user's, with %s for the text; said: the assistant's; opening: the generation prompt."""
    user, assistant = turn.split("%s"), said.split("%s")
    return (
        f"{first}{{% for message in messages %}}{{% if message['role'] == 'assistant' %}}"
        f"{assistant[0]}{{{{ message['content'] }}}}{assistant[1]}{end}{{% else %}}"
        f"{user[0]}{{{{ message['content'] }}}}{user[1]}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{opening}{{% endif %}}"
    )


LLAMA_3 = "<|start_header_id|>%s<|end_header_id|>\n\n"
CHATML = "<|im_start|>user\n%s<|im_end|>\n"
USUAL = {
    "ChatML": CHAT_TEMPLATE,
    "Llama 3": template(LLAMA_3 % "user" + "%s<|eot_id|>", LLAMA_3 % "assistant" + "%s<|eot_id|>", LLAMA_3 % "assistant", first="<|bos|>"),
    "Gemma": template("<start_of_turn>user\n%s<end_of_turn>\n", "<start_of_turn>model\n%s<end_of_turn>\n", "<start_of_turn>model\n"),
    "Mistral, no generation prompt": template("[INST] %s [/INST]", " %s", "", first="<|bos|>"),
    "blanks differ": template("### User:\n%s\n\n", "### Response:\n%s\n\n", "### Response:"),
    "DeepSeek-R1, the prompt opens reasoning": template("<|User|>%s", "<|Assistant|>%s", "<|Assistant|><think>\n"),
    "DeepSeek-V3.1, reasoning closed": template("<|User|>%s", "<|Assistant|></think>%s", "<|Assistant|></think>"),
    "Qwen 3, an empty block in the last turn": template(
        CHATML, "<|im_start|>assistant\n<think>\n\n</think>\n\n%s", "<|im_start|>assistant\n"
    ),
    "Qwen 3 Thinking, both": template(
        CHATML, "<|im_start|>assistant\n<think>\n\n</think>\n\n%s", "<|im_start|>assistant\n<think>\n"
    ),
    "GLM 4.5": template("<|user|>\n%s", "<|assistant|>\n<think></think>\n%s", "<|assistant|>"),
    "EXAONE Deep, reasoning in other tags": template("[|user|]%s\n", "[|assistant|]%s\n", "[|assistant|]<thought>\n"),
    "refuses": "{{ raise_exception('no') }}",
    "shows no assistant": "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}",
}  # fmt: skip
CHANNEL = "<|channel|>final<|message|>"
ODD = {
    "gpt-oss": (
        template("<|start|>user<|message|>%s<|end|>", f"<|start|>assistant{CHANNEL}%s<|return|>", "<|start|>assistant"),
        ("<|start|>assistant", CHANNEL),
    ),
    "gpt-oss, a channel in the prompt": (
        template("<|start|>user<|message|>%s<|end|>", f"<|start|>assistant{CHANNEL}%s<|return|>", "<|start|>assistant<|channel|>analysis"),
        ("<|start|>assistant<|channel|>analysis", f"<|start|>assistant{CHANNEL}"),
    ),
    "Command R7B": (
        template("<|USER|>%s", "<|CHATBOT|><|START_RESPONSE|>%s<|END_RESPONSE|>", "<|CHATBOT|>"),
        ("<|CHATBOT|>", "<|START_RESPONSE|>"),
    ),
    "ChatML without a generation prompt": (template(CHATML, "<|im_start|>assistant\n%s", ""), ("", "<|im_start|>assistant")),
}  # fmt: skip


def starts(text: str, **options: Any) -> list[Any]:
    """The findings about the start of a turn, of a tokenizer with this template."""
    tokenizer = tiny_tokenizer(chat_template=text)
    renderer = PromptRenderer(tiny_tokenizer() if "raise_exception" in text else tokenizer)
    return [found for found in check_model(tokenizer, renderer, tokenizer.eos_token_id, **options) if found.name == "start of turn"]


@pytest.mark.parametrize("name", USUAL)
def test_usual_templates_raise_no_alarm(name: str) -> None:
    assert written_before(tiny_tokenizer(chat_template=USUAL[name]))[1] == ""
    assert starts(USUAL[name]) == []


@pytest.mark.parametrize("name", ODD)
def test_what_a_template_writes_before_the_answer_is_found(name: str) -> None:
    text, expected = ODD[name]
    assert written_before(tiny_tokenizer(chat_template=text)) == expected
    (finding,) = starts(text)
    assert finding.level == WARN and json.dumps(expected[1])[1:-1] in finding.text and finding.fix


def test_a_model_that_learns_from_what_it_samples_writes_its_channels_itself() -> None:
    """Not where the prompt lacks the header: then it is sampled without it, too."""
    assert starts(ODD["gpt-oss"][0], sampled=True) == []
    assert len(starts(ODD["ChatML without a generation prompt"][0], sampled=True)) == 1


def test_a_plain_template_is_not_the_tokenizers(tmp_path: Any) -> None:
    tokenizer = tiny_tokenizer(chat_template=ODD["gpt-oss"][0])
    found = check_model(tokenizer, PromptRenderer(tokenizer, template="r1-zero"), tokenizer.eos_token_id)
    assert {finding.name for finding in found} == {"end of turn"} and found[0].level == OK
