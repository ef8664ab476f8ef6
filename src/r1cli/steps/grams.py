"""Hashes of all runs of n words of many texts at once: what decontamination and near-duplicates are found by.

    words = hash_words(["What is 3 + 4?", "Four."])     # one 64-bit number a word, and where each text's words end
    grams, ends = windows(words, 3)                     # one 64-bit number for every three words in a row of one text

What a word is stands in `WORD`: a run of letters, digits and underscores, lower-cased; a Chinese, Japanese or Korean character is a word
of its own. Equal words have equal hashes in every process and on every machine; whoever must be certain compares the words themselves
when two hashes agree (`decontaminate` does).

A word is hashed by the bytes of its UTF-8, eight at a time, all words of many texts at once: no Python code runs for a single word.
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
_STEP = 0xD1342543DE82EF95  # odd, from PCG: of the words in a window
_MODULUS = 1 << 64
_LONG = 64  # bytes; longer words (base64, URLs) are hashed one by one
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
    lengths = [len(text) + 1 for text in lowered]
    if joined.isascii():
        data = joined.encode("ascii").translate(_ascii_letters())
        starts_N, ends_N = _borders_of_ascii(data)
        text_ends_B = np.cumsum(lengths, dtype=np.int64) - 1
    else:
        data = joined.encode("utf-8", "surrogatepass")
        codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
        at = np.zeros(len(codes) + 1, np.int64)  # where each character's bytes begin
        np.cumsum(1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000), out=at[1:])
        starts_N, ends_N = (at[borders] for borders in _borders(codes))
        text_ends_B = at[np.cumsum(lengths, dtype=np.int64) - 1]
    return Words(_hashes(data, starts_N, ends_N), np.searchsorted(starts_N, text_ends_B))


def _hashes(data: bytes, starts_N: Array, ends_N: Array) -> Array:
    """A hash of data[start:end] for every word."""
    import numpy as np
    import xxhash

    eights = np.frombuffer(data + bytes(16 - len(data) % 8), "<u8")
    lengths_N = ends_N - starts_N
    hashes_N = mix(lengths_N.astype(np.uint64) ^ _eight_bytes(eights, starts_N) & _masks()[np.minimum(lengths_N, 8)])
    some, done = np.flatnonzero((lengths_N > 8) & (lengths_N <= _LONG)), 8
    while len(some):
        more = _eight_bytes(eights, starts_N[some] + done) & _masks()[np.minimum(lengths_N[some] - done, 8)]
        hashes_N[some] = mix(hashes_N[some] ^ more)
        done += 8
        some = some[lengths_N[some] > done]
    for word in np.flatnonzero(lengths_N > _LONG).tolist():
        hashes_N[word] = xxhash.xxh3_64_intdigest(data[starts_N[word] : ends_N[word]])
    return hashes_N


def _eight_bytes(eights: Array, places: Array) -> Array:
    """The eight bytes from each place on, as a number: of the two aligned ones that they lie in."""
    import numpy as np

    numbers = places >> 3
    shifts = ((places & 7) << 3).astype(np.uint64)
    return eights[numbers] >> shifts | eights[numbers + 1] << (np.uint64(63) - shifts) << np.uint64(1)


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


def _borders_of_ascii(data: bytes) -> tuple[Array, Array]:
    """Where words begin and end (one past their last byte) in text whose other characters are spaces."""
    import numpy as np

    inside = np.zeros(len(data) + 2, bool)
    np.not_equal(np.frombuffer(data, np.uint8), 0x20, out=inside[1:-1])
    borders = np.flatnonzero(inside[1:] != inside[:-1])
    return borders[::2], borders[1::2]


def _borders(codes: Array) -> tuple[Array, Array]:
    """Where words begin and end (one past their last character) among code points."""
    import numpy as np

    kinds = np.zeros(len(codes) + 2, np.uint8)
    kinds[1:-1] = _kinds()[codes]
    before, here, after = kinds[:-2], kinds[1:-1], kinds[2:]
    starts = np.flatnonzero((here == _SINGLE) | ((here == _LETTER) & (before != _LETTER)))
    ends = np.flatnonzero((here == _SINGLE) | ((here == _LETTER) & (after != _LETTER))) + 1
    return starts, ends


@cache
def _ascii_letters() -> bytes:
    """For bytes.translate: letters, digits and the underscore as they are, everything else a space."""
    return bytes(code if code < 0x80 and WORD.fullmatch(chr(code)) else 0x20 for code in range(256))


@cache
def _masks() -> Array:
    """The lowest n bytes of a uint64, for n from 0 to 8."""
    import numpy as np

    return np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)


@cache
def _kinds() -> Array:
    """What each of the 0x110000 code points is, by the regular expression itself."""
    import numpy as np

    kinds = np.zeros(0x110000, np.uint8)
    for found in WORD.finditer("".join(map(chr, range(0x110000)))):
        kinds[found.start() : found.end()] = _SINGLE if re.match(f"[{_CJK}]", found[0]) else _LETTER
    return kinds
