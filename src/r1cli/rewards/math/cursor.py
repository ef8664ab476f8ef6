"""The place in a list of tokens, and the small readings that need no grammar: numbers, signs, names, proper fractions."""

from fractions import Fraction

from r1cli.rewards.math.lexer import Token
from r1cli.rewards.math.nodes import Apply, Const, Func, Mul, Node, Num, PlusMinus, Pow, Sym, Text, TooBig, Unreadable

MINUS_ONE = Num(Fraction(-1))
MAX_EXPONENT_DIGITS = 4


def number(text: str) -> Num:
    """A number literal with the precision it was written in."""
    if text.isdecimal():
        return Num(Fraction(int(text)))
    mantissa, _, exponent = text.lower().partition("e")
    if len(exponent.lstrip("+-")) > MAX_EXPONENT_DIGITS:
        raise TooBig("exponent")
    whole, point, decimals = mantissa.partition(".")
    value = Fraction(int(whole + decimals or "0"), 10 ** len(decimals)) * Fraction(10) ** int(exponent or 0)
    if not point and not exponent:
        return Num(value)
    return Num(value, len(decimals) - int(exponent or 0), len((whole + decimals).lstrip("0")))


class Cursor:
    """Tokens, the last of them `end`, and the place reached. units: the words that followed values. bars: how many |...| are open."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.units: list[str] = []
        self.bars = 0

    def peek(self) -> Token:
        return self.tokens[self.at]

    def next(self) -> Token:
        token = self.tokens[self.at]
        if token.kind == "end":
            raise Unreadable("it ends too early")
        self.at += 1
        return token

    def accept(self, kind: str, value: str | None = None) -> bool:
        token = self.tokens[self.at]
        if token.kind == kind and (value is None or token.value == value):
            self.at += 1
            return True
        return False

    def sees(self, kind: str, value: str) -> bool:
        """Whether the next token is this one."""
        token = self.tokens[self.at]
        return token.kind == kind and token.value == value

    def expect(self, kind: str, value: str) -> None:
        if not self.accept(kind, value):
            raise Unreadable(f"{self.peek().value!r} where {value!r} belongs")

    def written(self) -> str:
        """An argument as it is written: the text of a group's tokens, or of one token."""
        if not self.accept("open", "{"):
            return self.next().value
        depth = 1
        parts: list[str] = []
        while True:
            token = self.next()
            if token.kind == "end":
                raise Unreadable("an argument that does not close")
            depth += (token.value == "{") - (token.value == "}")
            if not depth:
                return "".join(parts)
            parts.append(token.value)


def signed(sign: str, node: Node) -> Node:
    if sign == "+":
        return node
    if sign == "-":
        return Num(-node.value, node.places, node.significant) if isinstance(node, Num) else Mul((MINUS_ONE, node))
    return PlusMinus(node, 1 if sign == "+-" else -1)


def name_of(node: Node) -> str:
    if isinstance(node, Sym | Const):
        return node.name
    if isinstance(node, Text):
        return node.words
    if isinstance(node, Func | Apply) and node.args:
        return f"{node.name}({','.join(map(repr, node.args))})"
    raise Unreadable("a mark on something that is no name")


def proper_fraction(node: Node) -> Fraction | None:
    """The value of \\frac{a}{b} with whole 0 < a < b, else None."""
    if isinstance(node, Mul) and len(node.factors) == 2 and isinstance(node.factors[1], Pow) and node.factors[1].exponent == MINUS_ONE:
        top, bottom = node.factors[0], node.factors[1].base
        if (
            isinstance(top, Num)
            and isinstance(bottom, Num)
            and top.places is None
            and bottom.places is None
            and 0 < top.value < bottom.value
        ):
            return top.value / bottom.value
    return None


def times_ten_to(node: Node, power: int) -> Node:
    """A value times a power of ten, a number with the precision it was written in."""
    if isinstance(node, Num):
        return Num(node.value * 10**power, None if node.places is None else node.places - power, node.significant)
    return Mul((node, Num(Fraction(10**power))))
