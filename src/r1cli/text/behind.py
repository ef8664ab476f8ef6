"""The tokens of what is written behind a prompt.

Some tokenizers put a space in front of any text that they are given (Llama 2, Mistral 7B, TinyLlama). Behind a prompt that ends with a
line or another blank no sampled answer begins with it: there an answer is cut into tokens behind a text that does not join with it.
Where the prompt ends with no blank the space stays: after `[/INST]` these models write it, and the text of what is sampled does not show
it. Behind a special token an answer is cut as in a whole conversation, where one tokenizer puts the space (Phi-3) and another does not.
"""

from functools import lru_cache
from typing import Any

_BEFORE = ("\u241e", "\n", "a", "0")  # the first is in few vocabularies: its bytes join with nothing


def ids_behind(tokenizer: Any, prompt: list[int], text: str) -> list[int]:
    """The tokens of a text behind those of a prompt, without a space that only stands there because the text was given alone."""
    alone = _ids(tokenizer, text)
    if not prompt or not text or not puts_space(tokenizer):
        return alone
    if prompt[-1] in tokenizer.added_tokens_decoder:
        whole = _ids(tokenizer, tokenizer.added_tokens_decoder[prompt[-1]].content + text)
        return whole[1:] if whole[:1] == prompt[-1:] else alone
    if not _ends_blank(tokenizer, prompt[-1]):
        return alone
    wanted = {text, _decoded(tokenizer, alone)}  # a tokenizer may write a text in another form (NFC)
    for before in _BEFORE:
        head = _ids(tokenizer, before)
        whole = _ids(tokenizer, before + text)
        if whole[: len(head)] == head and _decoded(tokenizer, whole).removeprefix(_decoded(tokenizer, head)) in wanted:
            return whole[len(head) :]
    return alone


@lru_cache(maxsize=8)
def puts_space(tokenizer: Any) -> bool:
    """Whether a text that is cut into tokens alone begins with a space that is not its own."""
    one = _ids(tokenizer, "a")
    return _decoded(tokenizer, [*one, *one]).strip() != "aa"


def _ends_blank(tokenizer: Any, token: int) -> bool:
    return _decoded(tokenizer, [*_ids(tokenizer, "a"), token])[-1:].isspace()


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
