"""Hashes of all runs of n words of many texts at once: what decontamination and near-duplicates are found by.

    words = hash_words(["What is 3 + 4?", "Four."])     # one 64-bit number a word, and where each text's words end
    grams, ends = windows(words, 3)                     # one 64-bit number for every three words in a row of one text

What a word is stands in `WORD`: a run of letters, digits and underscores, lower-cased; a Chinese, Japanese or Korean character is a word
of its own. Equal words have equal hashes in every process and on every machine; whoever must be certain compares the words themselves
when two hashes agree (`decontaminate` does).

A text is an array of code points. The hash of a word is a polynomial of its characters modulo 2**64; the sums of all words come out of one
running sum, because an odd base can be divided out again. No Python code runs for a single word: about 40 us for a text of 5 kB.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")
_BASE, _STEP = 0x9E3779B97F4A7C15, 0xD1342543DE82EF95  # odd, from splitmix64 and PCG: characters in a word, words in a window
_MODULUS = 1 << 64
_OTHER, _LETTER, _SINGLE = 0, 1, 2
Array = Any  # numpy.ndarray


@dataclass(frozen=True)
class Words:
    """hashes_N: uint64, one a word. ends_B: how many words there are up to the end of each text."""

    hashes_N: "np.ndarray"
    ends_B: "np.ndarray"


class RowWords:
    """The words of rows that have several texts each: hashed once, for everything that asks about runs of them."""

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        import numpy as np

        self._words = hash_words([text for of_row in texts for text in of_row])
        self._last_B = np.cumsum([len(of_row) for of_row in texts], dtype=np.int64)  # how many texts there are up to the end of each row

    def windows(self, n: int) -> "tuple[np.ndarray, np.ndarray]":
        """The hashes of all n words in a row of one text (see `windows`), and how many there are up to the end of each row."""
        import numpy as np

        grams, ends = windows(self._words, n)
        return grams, np.concatenate([[0], ends])[self._last_B]


def words_of(text: str) -> list[str]:
    """The lower-cased words of a text."""
    return WORD.findall(text.lower())


def hash_words(texts: Sequence[str]) -> Words:
    """The words of these texts as numbers. The texts are worked through together: hand over some 100 kB at a time."""
    import numpy as np

    lowered = [text.lower() for text in texts]
    joined = "\n".join(lowered)
    if not joined:
        return Words(np.zeros(0, np.uint64), np.zeros(len(texts), np.int64))
    text_ends_B = np.cumsum(np.array([len(text) for text in lowered], np.int64) + 1) - 1
    if joined.isascii():
        codes = np.frombuffer(joined.encode("ascii"), np.uint8)
    else:
        codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    starts_N, ends_N = _borders(codes)
    power, inverse = _powers(1 << (len(codes) - 1).bit_length())
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(_values(codes) * power[: len(codes)], out=sums[1:])
    hashes_N = mix((sums[ends_N] - sums[starts_N]) * inverse[starts_N])
    return Words(hashes_N, np.searchsorted(starts_N, text_ends_B))


def windows(words: Words, n: int) -> tuple["np.ndarray", "np.ndarray"]:
    """The hashes of all n words in a row that stand in one text, and how many there are up to the end of each text.

    A text of fewer than n words (and at least one) has one window: all its words.
    """
    import numpy as np

    starts_B = np.concatenate([[0], words.ends_B[:-1]]) if len(words.ends_B) else words.ends_B
    counts_B = words.ends_B - starts_B
    wide_N = mix(_rolled(words.hashes_N, n))
    inside = np.ones(len(wide_N), bool)
    borders = (words.ends_B[:, None] - np.arange(1, n)).ravel()
    inside[borders[(borders >= 0) & (borders < len(wide_N))]] = False
    full_B = np.maximum(counts_B - n + 1, 0)
    short_B = np.flatnonzero((counts_B < n) & (counts_B > 0))
    if not len(short_B):
        return wide_N[inside], np.cumsum(full_B)
    alone = [mix(_rolled(words.hashes_N[starts_B[i] : words.ends_B[i]], int(counts_B[i]))) for i in short_B]
    at = np.cumsum(full_B)[short_B]
    full_B[short_B] = 1
    return np.insert(wide_N[inside], at, np.concatenate(alone)), np.cumsum(full_B)


def mix(values: "np.ndarray") -> "np.ndarray":
    """Every bit of each uint64 depends on all of its bits (the finaliser of splitmix64)."""
    import numpy as np

    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _rolled(hashes_N: Array, n: int) -> Array:
    """sum over k < n of hash[i + k] * STEP**(n - 1 - k): windows of 1, 2, 4 ... words, put together by the binary digits of n."""
    import numpy as np

    size = max(len(hashes_N) - n + 1, 0)
    result, width = np.zeros(size, np.uint64), 0
    part, length = hashes_N, 1
    while length <= n and size:
        if n & length:
            result = result * np.uint64(pow(_STEP, length, _MODULUS)) + part[width : width + size]
            width += length
        if 2 * length <= n:
            part = part[:-length] * np.uint64(pow(_STEP, length, _MODULUS)) + part[length:]
        length *= 2
    return result


def _borders(codes: Array) -> tuple[Array, Array]:
    """Where words begin and end (one past their last character)."""
    import numpy as np

    kinds = np.zeros(len(codes) + 2, np.uint8)
    np.take(_kinds(), codes, out=kinds[1:-1])
    if codes.dtype == np.uint8:  # ASCII has letters and others: borders alternate
        borders = np.flatnonzero(kinds[1:] != kinds[:-1])
        return borders[::2], borders[1::2]
    before, here, after = kinds[:-2], kinds[1:-1], kinds[2:]
    starts = np.flatnonzero((here == _SINGLE) | ((here == _LETTER) & (before != _LETTER)))
    ends = np.flatnonzero((here == _SINGLE) | ((here == _LETTER) & (after != _LETTER))) + 1
    return starts, ends


@cache
def _kinds() -> Array:
    """What each of the 0x110000 code points is, by the regular expression itself."""
    import numpy as np

    kinds = np.zeros(0x110000, np.uint8)
    for found in WORD.finditer("".join(map(chr, range(0x110000)))):
        kinds[found.start() : found.end()] = _SINGLE if re.match(f"[{_CJK}]", found[0]) else _LETTER
    return kinds


def _values(codes: Array) -> Array:
    """A 64-bit number for each character."""
    import numpy as np

    if codes.dtype == np.uint8:
        return np.take(_ascii_values(), codes)
    return mix((codes.astype(np.uint64) + np.uint64(1)) * np.uint64(_BASE))


@cache
def _ascii_values() -> Array:
    import numpy as np

    return mix((np.arange(256, dtype=np.uint64) + np.uint64(1)) * np.uint64(_BASE))


@cache
def _powers(size: int) -> tuple[Array, Array]:
    """_BASE**i and its inverse modulo 2**64, for i < size."""
    import numpy as np

    def up_to(base: int) -> Array:
        powers = np.full(size, base, np.uint64)
        powers[0] = 1
        return np.cumprod(powers)

    return up_to(_BASE), up_to(pow(_BASE, -1, _MODULUS))
