"""The words of a reasoning without what belongs to no language: mathematics, LaTeX, code, URLs and tags.

    prose_of("So $x^2 = 4$ gives `x = 2`, see https://example.org")        # "So   gives  , see "

Every pattern is linear in the length of the text: no delimiter is searched for past the next one of its kind, so that a megabyte of
opening brackets costs no more than a megabyte of words.
"""

import re
import unicodedata

_CODE = re.compile(
    r"(?P<fence>```|~~~)(?:(?!(?P=fence)).)*(?:(?P=fence)|\Z)"  # a fence that never closes is code to the end: a truncated completion
    r"|(?P<ticks>``?)(?:(?!`).)+(?P=ticks)",
    re.DOTALL,
)
_DISPLAY = re.compile(
    r"\$\$(?:(?!\$\$).)*\$\$"
    r"|\\\[(?:(?!\\[\[\]]).)*\\\]"
    r"|\\\((?:(?!\\[()]).)*\\\)",
    re.DOTALL,
)
# Not `$5 and $10`: as in pandoc, the opening dollar touches what follows, the closing one what precedes, and no digit follows it.
_INLINE = re.compile(r"(?<!\\)\$(?=\S)(?:[^$\n\\]|\\.|\n(?!\s*\n))*+(?<=\S)\$(?!\d)", re.DOTALL)
_ENVIRONMENT = re.compile(
    r"\\begin\{(?!itemize|enumerate|center|quote|proof|document)[a-zA-Z]+\*?\}(?:(?!\\begin\{|\\end\{).)*\\end\{[a-zA-Z]+\*?\}", re.DOTALL
)
_COMMAND = re.compile(r"\\[A-Za-z]+\*?(?:\[[^\[\]]*\])?(?:\s?\{[^{}]*\})+")
_BARE_COMMAND = re.compile(r"\\[A-Za-z]+\*?")
_URL = re.compile(r"(?:https?://|ftp://|www\.)[^\s<>\"'）】」，。]+|(?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)+")
_TAG = re.compile(r"</?[A-Za-z!][^<>\n]{0,200}>")
# Letters that touch a digit, an underscore or an exponent (2x, x1, my_name, a^n), and the name before a call's bracket (sin(30), f(x)).
# `term(s)` is a word; a Han character next to a digit is one too, so only ASCII letters count here.
_IDENTIFIER = re.compile(
    r"(?<![A-Za-z])[A-Za-z]*+[0-9_^][\w^]*+(?:(?<=[_^])\{[^{}]*\})?"
    r"|(?<![A-Za-z])[A-Za-z]++(?=\((?!e?s\)))"
    r"|(?<![\w])[A-Za-z](?=[ ]?[=<>≤≥+*/×÷])",
    re.ASCII,
)
_NESTING = 4  # deepest nesting of braces and environments that is taken out


def prose_of(text: str) -> str:
    """`text` with mathematics, LaTeX, code, URLs, e-mail addresses, tags and identifiers replaced by spaces, in NFKC form."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    for pattern in (_CODE, _URL, _DISPLAY, _INLINE):
        text = pattern.sub(" ", text)
    for pattern in (_ENVIRONMENT, _COMMAND):
        for _ in range(_NESTING):
            text, replaced = pattern.subn(" ", text)
            if not replaced:
                break
    for pattern in (_BARE_COMMAND, _TAG, _IDENTIFIER):
        text = pattern.sub(" ", text)
    return text
