r"""Answers that are words or letters of choices, and the units written in plain letters after a number.

Words are compared by their letters and digits, lower case, without articles.
"""

import re
import unicodedata

from r1cli.rewards.math.vocabulary import FUNCTIONS, is_wordlike

_MACROS = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mathrm|mathbf|mathit|mbox|hbox|operatorname|boxed|fbox|left|right|emph|bf|rm|bm|boldsymbol)\b\s*"
)
_SPACING = re.compile(r"\\[,;:! ]|\\q?quad\b|[${}~*]|\\[()\[\]]")
_NOT_WORDS = re.compile(r"[^\w\s%+-]+")
_ARTICLES = re.compile(r"\b(?:the|a|an)\s+(?=\w)")
_FORMULA = re.compile(r"\\(?!text|mathrm|mathbf|mbox|hbox|left|right|[,;:! (){}\[\]]|q?quad)[a-zA-Z]|[\d^_=<>|]")
_ONE_UNIT = r"(?:(?:k|c|m|M|n|d|\\mu\s?)?(?:m|g|s|L|l|N|J|W|V|A|K|Hz|Pa|C|F|T|eV|h|rad|mol|\\Omega|\\text\{\s?m\s?\}))(?:\^\{?-?\d\}?)?"
_PLAIN_UNIT = re.compile(rf"(?<=[\d}}])(?:\s+|\\[,;: ]|~)+{_ONE_UNIT}(?:\s?(?:/|\\cdot|\*)\s?{_ONE_UNIT}){{0,3}}\s*$")
_CURRENCY = r"(?:\\text\{\s*)?(?:USD|EUR|GBP|INR|RMB|CNY|JPY|US|Rs)\b\.?\s*\}?\s*"
_CURRENCY_BEFORE = re.compile(rf"^{_CURRENCY}(?=\\?\$?\s*[\d.])")
_CURRENCY_AFTER = re.compile(rf"(?<=\d)\s*{_CURRENCY}$")
_SIGNS = re.compile(r"[\^_=<>|+*/\\]")
_RUN = re.compile(r"[A-Za-z]+")
_CHOICE = re.compile(r"(?:(?:[Oo]ption|[Cc]hoice|选项)\s*)?\(?\s*([A-J])\s*(?:\)|[.:、]|$)\s*(.*)", re.DOTALL)
_SEVERAL = re.compile(r"\(?[A-J]\)?(?:(?:\s|,|;|、|and)*\(?[A-J]\)?){1,9}")
_LETTER = re.compile("[A-J]")
_SYNONYMS = {
    "dne": "does not exist", "no solutions": "no solution", "none": "no solution", "无解": "no solution",
    "no real solutions": "no solution",
    "no real solution": "no solution", "true": "true", "correct": "true", "infinitely many solutions": "infinitely many",
}  # fmt: skip


def plain_unit(text: str) -> str:
    """A text without the unit in plain letters after its last number (`9.8 m/s^2`, `5 g`; a blank must stand between) or its currency's
    name before or after it (`Rs. 1200`, `1,200 USD`).
    """
    return _CURRENCY_AFTER.sub("", _CURRENCY_BEFORE.sub("", _PLAIN_UNIT.sub("", text)))


def named_with_digits(text: str) -> bool:
    """Whether an answer is a name that holds a number, such as `Apollo 11`: it begins with a word and has nothing of a formula."""
    match = _RUN.match(_MACROS.sub("", text).lstrip("{ "))
    return match is not None and match[0].lower() not in FUNCTIONS and is_wordlike(match[0]) and _SIGNS.search(text) is None


def glued_letters(text: str) -> str | None:
    """The letters of an answer that is nothing but two or more capitals (`ABCD`, `RRLL`) or a run of five letters and more, which is no
    product of variables: their order counts. None for others.
    """
    plain = _SPACING.sub("", _MACROS.sub("", text)).strip()
    if not (2 <= len(plain) <= 40 and plain.isascii() and plain.isalpha()) or " " in text.strip():
        return None
    return plain.lower() if len(plain) >= 5 else plain if plain.isupper() else None


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
