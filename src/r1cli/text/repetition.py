"""How much of a text repeats what stood in it before: repeated n-grams of words, in linear time."""

import re

_WORD = re.compile(r"[\u3005-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\s\u3005-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case: runs of non-blanks, a Han or kana character by itself."""
    return _WORD.findall(text.lower())


def repeated_share(text: str, n: int) -> float:
    """The share of a text's n-grams that are repeats of earlier ones, in [0, 1); 0 when it has fewer than n words."""
    words = words_of(text)
    total = len(words) - n + 1
    if total < 1:
        return 0.0
    return 1.0 - len(set(zip(*(words[i:] for i in range(n)), strict=False))) / total
