"""Group separators of numbers: `1,234`, `1{,}234`, `1\\,234`, `1 234`, taken out before anything is read."""

import re

_THOUSANDS_TOP = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d]|,\d)")
_THOUSANDS_LATEX = re.compile(r"(?<=\d)(?:\{,\}|,\s?\\!\s?|\\[,;: ]|\\!|\{\\,\}|~)\s?(?=\d{3}(?!\d))")
_THOUSANDS_ZERO = re.compile(r"(?<=\d),(?=0\d{2}(?!\d))")  # (1,000, 2): no value is written 000
_THOUSANDS_SPACE = re.compile(r"(?<![\d.,\\}])\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?!\d)")


def join_thousands(text: str, commas: bool) -> str:
    r"""Numbers with their group separators taken out: `{,}`, `,\!`, `\,` and blanks always, bare commas when `commas`."""
    if "," in text or "\\" in text:
        text = _THOUSANDS_LATEX.sub("", text)
        if commas:
            text = _THOUSANDS_TOP.sub(lambda m: m[0] if _inside_bracket(text, m.start()) else m[0].replace(",", ""), text)
        text = _THOUSANDS_ZERO.sub("", text)
    if " " in text or "\u00a0" in text or "\u202f" in text:
        text = _THOUSANDS_SPACE.sub(lambda m: re.sub(r"\s", "", m[0]), text)
    return text


def _inside_bracket(text: str, at: int) -> bool:
    """Whether a bracket is open at a place, so that a comma there parts two values."""
    return text.count("(", 0, at) + text.count("[", 0, at) + text.count("{", 0, at) > text.count(")", 0, at) + text.count(
        "]", 0, at
    ) + text.count("}", 0, at)
