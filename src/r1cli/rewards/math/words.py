r"""Answers that are words, letters of choices, or times of day, and the units that may follow a number.

Words are compared by their letters and digits, lower case, without articles; units are compared only when both are known and differ in
size.
"""

import re
import unicodedata
from fractions import Fraction

from r1cli.rewards.math.vocabulary import is_wordlike

_MACROS = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mathrm|mathbf|mathit|mbox|hbox|operatorname|boxed|fbox|left|right|emph|bf|rm|bm|boldsymbol)\b\s*"
)
_SPACING = re.compile(r"\\[,;:! ]|\\q?quad\b|[${}~*]|\\[()\[\]]")
_NOT_WORDS = re.compile(r"[^\w\s%+-]+")
_ARTICLES = re.compile(r"\b(?:the|a|an)\s+(?=\w)")
_FORMULA = re.compile(r"\\(?!text|mathrm|mathbf|mbox|hbox|left|right|[,;:! (){}\[\]]|q?quad)[a-zA-Z]|[\d^_=<>|]")
_ONE_UNIT = r"(?:(?:k|c|m|M|n|d|\\mu\s?)?(?:m|g|s|L|l|N|J|W|V|A|K|Hz|Pa|C|F|T|eV|h|rad|mol|\\Omega|\\text\{\s?m\s?\}))(?:\^\{?-?\d\}?)?"
_PLAIN_UNIT = re.compile(rf"(?<=[\d}}])(?:\s+|\\[,;: ]|~)+{_ONE_UNIT}(?:\s?(?:/|\\cdot|\*)\s?{_ONE_UNIT}){{0,3}}\s*$")
_RUN = re.compile(r"[A-Za-z]+")
_CHOICE = re.compile(r"\(?\s*([A-J])\s*(?:\)|[.:、]|$)\s*(.*)", re.DOTALL)
_SEVERAL = re.compile(r"\(?[A-J]\)?(?:(?:\s|,|;|、|and)*\(?[A-J]\)?){1,9}")
_LETTER = re.compile("[A-J]")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})\s*([ap])?\.?\s*(?:m\b)?\.?")
_SYNONYMS = {
    "dne": "does not exist", "no solutions": "no solution", "none": "no solution", "无解": "no solution",
    "no real solutions": "no solution",
    "no real solution": "no solution", "true": "true", "correct": "true", "infinitely many solutions": "infinitely many",
}  # fmt: skip

_SIZES: dict[str, tuple[str, Fraction]] = {}
for _kind, _units in {
    "length": {
        "mm": 1,
        "millimeters": 1,
        "cm": 10,
        "centimeters": 10,
        "m": 1000,
        "meters": 1000,
        "metres": 1000,
        "km": 10**6,
        "kilometers": 10**6,
    },
    "us length": {"in": 1, "inches": 1, "ft": 12, "feet": 12, "yards": 36, "miles": 63360},
    "mass": {"mg": 1, "g": 1000, "grams": 1000, "kg": 10**6, "kilograms": 10**6},
    "time": {"seconds": 1, "sec": 1, "minutes": 60, "min": 60, "hours": 3600, "hr": 3600, "days": 86400, "weeks": 604800},
    "volume": {"ml": 1, "milliliters": 1, "liters": 1000},
    "money": {"cents": 1, "dollars": 100},
}.items():
    for _name, _size in _units.items():
        _SIZES[_name] = _SIZES[_name.rstrip("s")] = (_kind, Fraction(_size))


def unit_factor(gold_units: tuple[str, ...], answer_units: tuple[str, ...]) -> Fraction:
    """What an answer must be multiplied by to be in the gold's unit: 1 unless both units are known, of one kind and of different size."""
    if len(gold_units) != 1 or len(answer_units) != 1:
        return Fraction(1)
    gold, answer = _SIZES.get(gold_units[0]), _SIZES.get(answer_units[0])
    if gold is None or answer is None or gold[0] != answer[0]:
        return Fraction(1)
    return answer[1] / gold[1]


def plain_unit(text: str) -> str:
    """A text without the unit written in plain letters after its last number (`9.8 m/s^2`, `5 g`); a blank must stand between."""
    return _PLAIN_UNIT.sub("", text)


def word_key(text: str) -> str:
    """The words of an answer for comparison: "\\text{New York City!}" is "new york city"."""
    text = _SPACING.sub(" ", _MACROS.sub("", text))
    text = unicodedata.normalize("NFKC", text).lower()
    text = " ".join(_NOT_WORDS.sub(" ", text).split())
    text = _ARTICLES.sub("", text)
    return _SYNONYMS.get(text, text)


def is_words(text: str) -> bool:
    """Whether a text holds letters and nothing that only a formula has."""
    if _FORMULA.search(text):
        return False
    if word_key(text) in _SYNONYMS.values():
        return True
    return (not text.isascii() and any(c.isalpha() and not c.isascii() for c in text)) or any(
        map(is_wordlike, _RUN.findall(_MACROS.sub("", text)))
    )


def choice_of(text: str) -> tuple[str, str] | None:
    r"""(letter, what follows it) of `B`, `(B)`, `\textbf{(B)}\ 12`, `B. Paris`; None when it is no choice."""
    plain = _SPACING.sub(" ", _MACROS.sub("", text)).replace("\\", " ").strip()
    match = _CHOICE.fullmatch(plain)
    return (match[1], match[2].strip()) if match else None


def letters_of(text: str) -> frozenset[str] | None:
    """The letters of an answer that names several choices (`ABD`, `A, B, D`, `A and C`), or None."""
    plain = _SPACING.sub(" ", _MACROS.sub("", text)).strip()
    if not _SEVERAL.fullmatch(plain):
        return None
    letters = _LETTER.findall(plain)
    return frozenset(letters) if len(set(letters)) == len(letters) else None


def clock(text: str) -> tuple[int, int, str] | None:
    """(hours, minutes, "a" or "p" or "") of a time of day; None when it is none."""
    plain = _SPACING.sub(" ", _MACROS.sub("", text)).strip().lower()
    match = _CLOCK.fullmatch(" ".join(plain.split()))
    if match is None or int(match[2]) > 59 or int(match[1]) > 24:
        return None
    return int(match[1]), int(match[2]), match[3] or ""
