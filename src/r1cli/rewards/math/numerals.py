"""Numbers in words: `twenty-seven`, `三百二十`, `四分之三`, `12万` as digits. A text that is more than its number is left as it is."""

import re
from fractions import Fraction

_UP_TO_NINETEEN = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen
"""
_SMALL = {word: n for n, word in enumerate(_UP_TO_NINETEEN.split())}
_TENS = {word: 10 * n for n, word in enumerate(("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), 2)}
MAGNITUDES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_WORDS = re.compile(r"[a-z]+")
_HAN_DIGITS = {c: n for n, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_HAN_UNITS = {"十": 10, "百": 100, "千": 1000}
_HAN_BIG = {"万": 10**4, "亿": 10**8}
_HAN_NUMBER = re.compile("[零〇一二两三四五六七八九十百千万亿]{1,20}")
_HAN_FRACTION = re.compile(r"([零〇一二两三四五六七八九十百\d]{1,9})分之([零〇一二两三四五六七八九十百\d]{1,9})")
_HAN_CLASSIFIER = "个只人条本元米天年月岁次种名位件张块支台辆"
_MIXED = re.compile(r"(?<![\d.,])(\d+(?:,\d{3})*(?:\.\d+)?)\s*(万亿|亿|万)(?![\d一二三四五六七八九])")


def english(text: str) -> int | None:
    """The value of a whole number in English words, or None when the text is anything else."""
    low = text.lower().replace("-", " ")
    words = [word for word in low.split() if word != "and"]
    if not words or len(words) > 20 or low.replace(" ", "").isalpha() is False:
        return None
    total, group, seen = 0, 0, False
    for word in words:
        if word in _SMALL or word in _TENS:
            group += _SMALL.get(word, _TENS.get(word, 0))
            seen = True
        elif word == "hundred" and 0 < group < 100:
            group *= 100
        elif word in MAGNITUDES and word != "hundred" and group:
            total, group = total + group * 10 ** MAGNITUDES[word], 0
        else:
            return None
    return total + group if seen else None


def han(text: str) -> int | None:
    """The value of a whole number in Chinese characters, or None."""
    if not _HAN_NUMBER.fullmatch(text):
        return None
    if not any(c in _HAN_UNITS or c in _HAN_BIG for c in text):
        return int("".join(str(_HAN_DIGITS[c]) for c in text))
    total = section = digit = 0
    for c in text:
        if c in _HAN_DIGITS:
            digit = _HAN_DIGITS[c]
        elif c in _HAN_UNITS:
            section, digit = section + (digit or 1) * _HAN_UNITS[c], 0
        else:
            total, section, digit = (total + section + digit) * _HAN_BIG[c], 0, 0
    return total + section + digit


def spelled_out(text: str) -> str:
    """The text with its number in digits, when all of it is a number in words; `12万` anywhere becomes 120000."""
    if text.isascii():
        low = text.strip()
        value = english(low) if low[:1].isalpha() and len(low) <= 120 and (_WORDS.match(low.lower()) or [""])[0] in _FIRST else None
        return text if value is None else str(value)
    text = _MIXED.sub(_multiplied, text)
    bare = text.strip()
    if match := _HAN_FRACTION.fullmatch(bare):
        top, bottom = (int(part) if part.isdecimal() else han(part) for part in (match[2], match[1]))
        if top is not None and bottom:
            return f"{top}\\%" if match[1] in ("百", "一百") else f"\\frac{{{top}}}{{{bottom}}}"
    number = bare.rstrip(_HAN_CLASSIFIER) if len(bare) > 1 and bare[-1] in _HAN_CLASSIFIER else bare
    value = han(number) if len(bare) - len(number) <= 1 else None
    return text if value is None else str(value)


_FIRST = frozenset((*_SMALL, *_TENS))


def _multiplied(match: re.Match[str]) -> str:
    value = Fraction(match[1].replace(",", "")) * {"万": 10**4, "亿": 10**8, "万亿": 10**12}[match[2]]
    if value.denominator == 1:
        return str(value.numerator)
    return match[0] if value.denominator % 10 else f"{value.numerator / value.denominator:.10f}".rstrip("0")
