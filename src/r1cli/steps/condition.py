"""Conditions over rows, the language of `--keep`:  accuracy == 1 and language > 0.9 and row.domain in ["math", "code"]

    comparisons   ==  !=  <  <=  >  >=  in  not in, also in a chain: 0.5 < reward <= 1
    joined by     and, or, not, ( )
    values        numbers, "strings" or 'strings', true, false, null, lists [a, b] of them
    names         a reward by its name (`accuracy`), else a field of the row (`num_tokens`, `meta.level`); `rewards.x` and `row.x` say which

A null is smaller or larger than nothing: `accuracy < 1` is false when accuracy is null; `accuracy == null` asks for it. A name that a row
does not have is an error, not false. The text is parsed here into closures; nothing is ever evaluated as Python.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from r1cli.errors import Exit, R1Error, nearest
from r1cli.row import Row

Term = Callable[[Row], Any]
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])
          |(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
          |(?P<name>[^\W\d]\w*(?:\.\w+)*)
          |(?P<symbol>==|!=|<=|>=|&&|\|\||[<>()\[\],=!]))""",
    re.VERBOSE,
)
_ORDER: dict[str, Callable[[Any, Any], bool]] = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_LITERALS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_FOREIGN = {"=": "==", "&&": "and", "||": "or", "!": "not"}
_DEEPEST = 50
_MISSING = object()


@dataclass(frozen=True)
class Token:
    """A word of the condition; `column` counts from 1."""

    kind: str  # "number", "string", "name", "symbol" or "end"
    text: str
    column: int


def parse(text: str) -> Callable[[Row], bool]:
    """The condition as a function of a row. Raises `R1Error` (exit 2) with the column where the text makes no sense.

    The function raises `R1Error` (exit 2) for a name the row does not have and for a comparison of unlike types.
    """
    return _Parser(text).whole()


def _tokens(text: str) -> list[Token]:
    found = []
    position = 0
    end = len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            column = position + len(text[position:]) - len(text[position:].lstrip()) + 1
            raise _error(column, f"cannot read `{text[column - 1 : column + 9].strip()}`")
        kind = str(match.lastgroup)
        found.append(Token(kind, match[kind], match.start(kind) + 1))
        position = match.end()
    return [*found, Token("end", "", end + 1)]


class _Parser:
    """Recursive descent: either -> both -> negation -> comparison -> value."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0

    def whole(self) -> Callable[[Row], bool]:
        test = self._either()
        if self._now.kind != "end":
            raise self._unexpected("`and`, `or` or the end")
        return lambda row: bool(test(row))

    @property
    def _now(self) -> Token:
        return self._tokens[self._next]

    def _take(self, *texts: str) -> bool:
        """Step over the current token if it is one of these words or symbols."""
        if self._now.kind in ("name", "symbol") and self._now.text in texts:
            self._next += 1
            return True
        return False

    def _either(self) -> Term:
        terms = [self._both()]
        while self._take("or"):
            terms.append(self._both())
        return terms[0] if len(terms) == 1 else lambda row: any(term(row) for term in terms)

    def _both(self) -> Term:
        terms = [self._negation()]
        while self._take("and"):
            terms.append(self._negation())
        return terms[0] if len(terms) == 1 else lambda row: all(term(row) for term in terms)

    def _negation(self) -> Term:
        negated = False
        while self._take("not"):
            negated = not negated
        term = self._comparison()
        return (lambda row: not term(row)) if negated else term

    def _comparison(self) -> Term:
        first = self._value()
        links: list[tuple[Callable[[Any, Any], bool], Term]] = []
        while (compare := self._operator()) is not None:
            links.append((compare, self._value()))
        if not links:
            return first

        def test(row: Row) -> bool:
            left = first(row)
            for compare, term in links:
                right = term(row)
                if not compare(left, right):
                    return False
                left = right
            return True

        return test

    def _operator(self) -> Callable[[Any, Any], bool] | None:
        token = self._now
        if token.text in _FOREIGN and token.kind == "symbol":
            raise _error(token.column, f"`{token.text}` is not part of a condition", f"write `{_FOREIGN[token.text]}`")
        if self._take("=="):
            return _equal
        if self._take("!="):
            return lambda left, right: not _equal(left, right)
        if self._take(*_ORDER):
            return _ordering(token)
        if self._take("in"):
            return _containing(token)
        if self._take("not"):
            if not self._take("in"):
                raise self._unexpected("`in`")
            inside = _containing(token)
            return lambda left, right: not inside(left, right)
        return None

    def _value(self) -> Term:
        token = self._now
        if self._take("("):
            return self._nested(self._either, ")")
        if self._take("["):
            return self._nested(self._list, "]")
        if token.kind == "symbol" and token.text == "!":
            raise _error(token.column, "`!` is not part of a condition", "write `not`")
        if token.kind in ("end", "symbol") or token.text in ("and", "or", "not", "in"):
            raise self._unexpected("a name, a number or a string")
        self._next += 1
        if token.kind == "name":
            return _constant(_LITERALS[token.text]) if token.text in _LITERALS else _lookup(token)
        if token.kind == "string":
            return _constant(re.sub(r"\\(.)", r"\1", token.text[1:-1]))
        try:
            return _constant(float(token.text) if re.search(r"[.eE]", token.text) else int(token.text))
        except ValueError:  # Python refuses to read thousands of digits
            raise _error(token.column, f"cannot read a number of {len(token.text)} digits") from None

    def _nested(self, inner: Callable[[], Term], closing: str) -> Term:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _error(self._now.column, f"more than {_DEEPEST} brackets inside each other")
        term = inner()
        if not self._take(closing):
            raise self._unexpected(f"`{closing}`")
        self._depth -= 1
        return term

    def _list(self) -> Term:
        items: list[Term] = []
        while self._now.text != "]" or self._now.kind != "symbol":
            items.append(self._value())
            if not self._take(","):
                break
        return lambda row: [item(row) for item in items]

    def _unexpected(self, expected: str) -> R1Error:
        found = f"`{self._now.text}`" if self._now.kind != "end" else "the end"
        return _error(self._now.column, f"expected {expected}, found {found}")


def _constant(value: Any) -> Term:
    return lambda row: value


def _lookup(token: Token) -> Term:
    """A reward or field of the row by its dotted name."""
    path = token.text.split(".")

    def find(row: Row) -> Any:
        rewards = row.get("rewards")
        if path[0] == "row" and "row" not in row:
            value = _follow(row, path[1:])
        elif isinstance(rewards, dict) and path[0] in rewards:
            value = _follow(rewards, path)
        else:
            value = _follow(row, path)
        if value is _MISSING:
            where = f"{row.where}: " if row.where else ""
            known = [*row, *(rewards if isinstance(rewards, dict) else ())]
            raise R1Error(
                f"{where}row `{row.get('id', '')}` has nothing named `{token.text}`", hint=nearest(token.text, known), code=Exit.USAGE
            )
        return value

    return find


def _follow(value: Any, path: list[str]) -> Any:
    for part in path:
        value = value.get(part, _MISSING) if isinstance(value, dict) else _MISSING
    return value


def _equal(left: Any, right: Any) -> bool:
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _ordering(token: Token) -> Callable[[Any, Any], bool]:
    compare = _ORDER[token.text]

    def test(left: Any, right: Any) -> bool:
        if left is None or right is None:
            return False
        numbers = all(isinstance(value, int | float) for value in (left, right))
        if not numbers and not (isinstance(left, str) and isinstance(right, str)):
            raise _error(token.column, f"`{token.text}` cannot compare {_kind(left)} with {_kind(right)}", "compare numbers, or strings")
        return compare(left, right)

    return test


def _containing(token: Token) -> Callable[[Any, Any], bool]:
    def test(left: Any, right: Any) -> bool:
        if isinstance(right, list):
            return any(_equal(left, item) for item in right)
        if isinstance(right, dict) or (isinstance(right, str) and isinstance(left, str)):
            return left in right
        raise _error(token.column, f"`in` cannot look for {_kind(left)} in {_kind(right)}", "look in a list [a, b] or in a string")

    return test


def _kind(value: Any) -> str:
    names = {bool: "a truth value", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return "null" if value is None else names[type(value)]


def _error(column: int, what: str, hint: str = "for example: accuracy == 1 and num_tokens < 4000") -> R1Error:
    return R1Error(f"condition, column {column}: {what}", hint=hint, code=Exit.USAGE)
