r"""Cut an answer, LaTeX or plain, into tokens.

One pass of one regular expression, every alternative of which is linear. Layout (`\left`, `\,`, `$`, `\displaystyle`, fonts) vanishes here;
words become functions, connectives, constants, text or single letters.
"""

import re
from typing import NamedTuple

from r1cli.rewards.math.nodes import TooBig, Unreadable
from r1cli.rewards.math.vocabulary import (
    BIG,
    CLOSERS,
    CONNECT,
    CONSTANTS,
    EMPTY,
    FONTS,
    FUNCTIONS,
    GREEK,
    IGNORED,
    OPENERS,
    OPERATORS,
    RELATIONS,
    RENAMED,
    SPACES,
    STRUCTURE,
    is_wordlike,
)

MAX_CHARACTERS = 2000
MAX_TOKENS = 1500
MAX_DEPTH = 24
MAX_DIGITS = 4000


class Token(NamedTuple):
    """kind: num sym const func op rel sep open close text macro bigop end; value: its text; spaced: blanks stood before it."""

    kind: str
    value: str
    spaced: bool = False


_TOKEN = re.compile(
    r"""
      (?P<blank>(?:[\s~$]|\\[,;:!>\ ]|\\\n)+)
    | (?P<num>(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,6}(?![\w.]))?\.?(?=[^\d]|$))
    | (?P<rel><=|>=|!=|==|=<|=>|->|[=<>:])
    | (?P<op>\*\*|\+\/?-|[-+*/^_!%'&])
    | \\(?P<macro>[A-Za-z]+\*?)
    | (?P<row>\\\\)
    | \\(?P<escaped>[{}%&\#_|"'$.\-()])
    | (?P<word>[A-Za-z]+)
    | (?P<bracket>[()\[\]{}])
    | (?P<bar>\|)
    | (?P<sep>[,;])
    | (?P<money>[€£¥₹])
    | (?P<other>[^\s])
    """,
    re.VERBOSE,
)
_ROW_GAP = re.compile(r"(?:\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm)\s*\])?")  # the space after a row: \\\\[4pt]
_REPEATING = ("\\overline", "\\bar", "\\dot")
_UNIT = re.compile(r"[A-Za-z]{1,4}(?:\^?\{?-?\d\}?)?(?:\s?[/*.]?\s?[A-Za-z]{1,4}(?:\^?\{?-?\d\}?)?){0,3}")
_UNIT_GAP = re.compile(r"\\[,;: ]|~|\\cdot\s*")
_CONNECTIVE = re.compile(r"\b(?:or|and)\b")
_MATHS = re.compile(r"[\d^_=+*/\\{}()|<>]")
_WORDS_ONLY = re.compile(r"[^\W\d_]{2}")
_LONG_NUMBER = re.compile(rf"\d{{{MAX_DIGITS}}}")


def tokens(text: str) -> list[Token]:
    """The tokens of an answer, `end` last. Raises `TooBig` when it is longer or deeper than any answer, `Unreadable` for odd characters."""
    if len(text) > MAX_CHARACTERS or _LONG_NUMBER.search(text):
        raise TooBig("too long")
    out: list[Token] = []
    _scan(text, out)
    if len(out) > MAX_TOKENS:
        raise TooBig("too many tokens")
    _check_depth(out)
    out.append(Token("end", ""))
    return out


def _check_depth(out: list[Token]) -> None:
    depth = 0
    for token in out:
        if token.kind == "open":
            depth += 1
            if depth > MAX_DEPTH:
                raise TooBig("nested too deep")
        elif token.kind == "close":
            depth -= 1


def _scan(text: str, out: list[Token]) -> None:
    position, spaced = 0, False
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise Unreadable(f"character {text[position]!r}")
        position, kind = match.end(), match.lastgroup or "other"
        value = match[kind]
        if kind == "blank":
            spaced = True
            continue
        if kind == "num" and value[-1] == "." and text.startswith(_REPEATING, position):
            out.append(Token("num", value, spaced))
        elif kind == "macro":
            position = _macro(value, text, position, out, spaced)
        elif kind == "row":
            out.append(Token("sep", "row"))
            position = _ROW_GAP.match(text, position).end()  # type: ignore[union-attr]
        elif kind == "word":
            _word(value, out, spaced)
        else:
            _plain(kind, value, out, spaced)
        spaced = False


def _plain(kind: str, value: str, out: list[Token], spaced: bool) -> None:
    if kind == "num":
        out.append(Token("num", value.rstrip("."), spaced))
    elif kind == "rel":
        out.append(Token("rel", {"==": "=", "=<": "<=", "=>": "to", "->": "to"}.get(value, value), spaced))
    elif kind == "op":
        out.append(Token("sep", "&") if value == "&" else Token("op", {"**": "^", "+/-": "+-"}.get(value, value), spaced))
    elif kind == "bracket":
        out.append(Token("open" if value in "([{" else "close", value, spaced))
    elif kind == "bar":
        out.append(Token("bar", "|", spaced))
    elif kind == "sep":
        out.append(Token("sep", value))
    elif kind == "escaped":
        _escaped(value, out, spaced)
    elif kind == "other":
        _other(value, out)


def _escaped(value: str, out: list[Token], spaced: bool) -> None:
    if value in "{}":
        out.append(Token("open" if value == "{" else "close", "\\" + value, spaced))
    elif value == "%":
        out.append(Token("op", "%", spaced))
    elif value == "&":
        out.append(Token("sep", "and"))
    elif value == "|":
        out.append(Token("bar", "|", spaced))


def _other(value: str, out: list[Token]) -> None:
    if value == ".":
        return
    if not value.isalpha():
        raise Unreadable(f"character {value!r}")
    if out and out[-1].kind == "text" and not out[-1].value.isascii():
        out[-1] = Token("text", out[-1].value + value)  # a run of Han or other letters is one text
    else:
        out.append(Token("text", value))


def _word(word: str, out: list[Token], spaced: bool) -> None:
    if word in CONNECT and (spaced or not out or out[-1].kind in ("num", "close")):
        out.append(Token("sep", CONNECT[word]))
    elif word in FUNCTIONS:
        out.append(Token("func", RENAMED.get(word, word), spaced))
    elif word in CONSTANTS:
        out.append(Token("const", CONSTANTS[word], spaced))
    elif word in ("e", "i"):
        out.append(Token("const", word, spaced))
    elif len(word) == 1:
        out.append(Token("sym", word, spaced))
    elif is_wordlike(word):
        out.append(Token("text", word.lower(), spaced))
    else:
        out.extend(Token("const" if c in "ei" else "sym", c, spaced and n == 0) for n, c in enumerate(word))


def _macro(name: str, text: str, position: int, out: list[Token], spaced: bool) -> int:
    if name in FONTS or name.rstrip("*") in FONTS:
        return _font(text, position, out, spaced)
    if name in EMPTY:
        return max(position, closing_brace(text, position) + 1) if text.startswith("{", position) else position
    if name in IGNORED:
        if name in ("left", "right", "middle") and position < len(text) and text[position] == ".":
            return position + 1  # \left. is an empty bracket
    elif name in SPACES:
        if out and out[-1].kind not in ("sep", "op", "rel", "open"):
            out.append(Token("gap", name))
    elif name in OPENERS or name in CLOSERS:
        out.append(Token("open", OPENERS[name], spaced) if name in OPENERS else Token("close", CLOSERS[name], spaced))
    elif name in RELATIONS:
        out.append(Token("rel", RELATIONS[name], spaced))
    elif name in OPERATORS:
        out.append(Token("op", OPERATORS[name], spaced))
    elif name in CONSTANTS:
        out.append(Token("const", CONSTANTS[name], spaced))
    elif name in STRUCTURE:
        out.append(Token("macro", "frac" if name in ("dfrac", "tfrac", "cfrac") else "binom" if name.endswith("binom") else name, spaced))
    elif name in FUNCTIONS:
        out.append(Token("func", RENAMED.get(name, name), spaced))
    elif name in ("land", "wedge", "lor", "vee"):
        out.append(Token("sep", "and" if name in ("land", "wedge") else "or"))
    elif name in ("vert", "Vert"):
        out.append(Token("bar", "|", spaced))
    elif name in GREEK:
        out.append(Token("sym", "…" if name.endswith("dots") else "\\" + name, spaced))
    elif name in BIG:
        out.append(Token("bigop", name, spaced))
    else:
        return _unknown_macro(name, text, position, out, spaced)
    return position


def _unknown_macro(name: str, text: str, position: int, out: list[Token], spaced: bool) -> int:
    """A macro glued to the letters after it (`\\cdotx`, `\\quadx`), else unreadable."""
    for length in range(len(name) - 1, 1, -1):
        head = name[:length]
        if head in SPACES or head in OPERATORS or head in RELATIONS or head in GREEK or head in CONSTANTS:
            _macro(head, text, position, out, spaced)
            _word(name[length:], out, False)
            return position
    raise Unreadable(f"macro \\{name}")


def _font(text: str, position: int, out: list[Token], spaced: bool) -> int:
    """The argument of a font macro: formula when it reads as one, words when it reads as words."""
    start = position
    while start < len(text) and text[start] in " *":
        start += 1
    if start >= len(text) or text[start] != "{":
        return position  # \bf style or a single letter: what follows speaks for itself
    end = closing_brace(text, start)
    if end < 0:
        raise Unreadable("a font macro that does not close")
    inside = text[start + 1 : end]
    words = inside.strip().strip(".,;:!?").strip()
    low = words.lower()
    if low in CONNECT:
        out.append(Token("sep", CONNECT[low]))
    elif _unit_may_follow(out) and _UNIT.fullmatch(unit := _UNIT_GAP.sub(" ", words).strip()) and not _CONNECTIVE.search(unit):
        out.append(Token("text", unit, spaced))
    elif _MATHS.search(words) or not _WORDS_ONLY.search(words):
        _scan(inside, out)
    elif low in CONSTANTS or low in FUNCTIONS:
        _word(low, out, spaced)
    elif words:
        _text(words, out, spaced)
    return end + 1


def _unit_may_follow(out: list[Token]) -> bool:
    """Whether a letter here may be a unit: after a value, or after a unit and a sign."""
    if not out or out[-1].kind in ("num", "close"):
        return bool(out)
    return len(out) > 1 and out[-1].kind == "op" and out[-1].value in "*/" and out[-2].kind == "text"


def _text(words: str, out: list[Token], spaced: bool) -> None:
    """Words in a font macro, with the connectives inside them kept apart."""
    for n, part in enumerate(re.split(r"\b(or|and)\b", words)):
        if n % 2:
            out.append(Token("sep", part))
        elif part.strip():
            out.append(Token("text", " ".join(part.lower().split()), spaced))


def closing_brace(text: str, start: int) -> int:
    """The index of the brace that closes the one at `start`, or -1. Escaped braces do not count."""
    depth, i = 0, start
    while i < len(text):
        c = text[i]
        if c == "\\":
            i += 2
            continue
        if c == "{":
            depth += 1
        elif c == "}":
            depth -= 1
            if depth == 0:
                return i
        i += 1
    return -1
