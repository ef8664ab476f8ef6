"""The text of a completion, by the same rule for every engine: all its tokens decoded at once, special tokens left out, and cut right
after the first stop string.

vLLM's own text comes from piecewise decoding, which holds back bytes that are not yet a character, also when no more will come.
"""

from collections.abc import Sequence
from typing import Any


def completion_text(tokenizer: Any, token_ids: Sequence[int], stop: Sequence[str]) -> str:
    """The text of these tokens up to and including the first stop string."""
    text = _decode(tokenizer, token_ids)
    ends = [text.find(word) + len(word) for word in stop if word in text]
    return text[: min(ends)] if ends else text


def completes_stop(tokenizer: Any, token_ids: Sequence[int], stop: Sequence[str]) -> bool:
    """Whether the newest token has completed a stop string. Looks at the tail: a stop string has no more tokens than bytes."""
    if not stop:
        return False
    reach = max(len(word.encode()) for word in stop) + 4  # a character of up to 4 bytes may be open where the tail begins
    tail = _decode(tokenizer, token_ids[-reach:])
    return any(word in tail for word in stop)


def _decode(tokenizer: Any, token_ids: Sequence[int]) -> str:
    return tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
