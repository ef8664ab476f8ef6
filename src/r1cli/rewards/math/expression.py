r"""Recursive descent over the tokens of one expression: sums, products, powers, functions, fractions, roots, numbers with units.

    sum     := term (("+" | "-" | "+-" | "-+") term)*
    term    := factor (("*" | "/" | nothing) factor)*        words after a value are its unit
    factor  := ("+" | "-" | "+-" | "-+")? power
    power   := primary postfix* ("^" exponent)?              postfix: ! % ' _subscript
`structure.py` builds lists, relations, brackets and sets on top of it.
"""

from r1cli.rewards.math.cursor import MINUS_ONE, name_of, number, proper_fraction, signed, times_ten_to
from r1cli.rewards.math.functions import NAMED_SETS, FunctionParser
from r1cli.rewards.math.lexer import Token
from r1cli.rewards.math.nodes import (
    Add,
    Apply,
    Based,
    Const,
    Degree,
    Func,
    Mul,
    Node,
    Num,
    Percent,
    Pow,
    Seq,
    Sym,
    Text,
    Unreadable,
)  # fmt: skip
from r1cli.rewards.math.numerals import MAGNITUDES

_UNKNOWN_FUNCTIONS = frozenset(["f", "g", "h", "F", "G", "H", "P", "Q", "W", "p", "q"])
_SIGNS = frozenset(("+", "-", "+-", "-+"))
_STARTS = frozenset(("num", "sym", "const", "func", "open", "macro", "bigop"))
_PERCENT_WORDS = frozenset(("percent", "pct", "percentage", "per cent"))
_DEGREE_WORDS = frozenset(("degrees", "degree", "deg"))


class ExpressionParser(FunctionParser):
    """The levels of the grammar below lists and relations."""

    # -- sums and products ----------------------------------------------------------------------------------------------------

    def sum(self) -> Node:
        """term (+ term)*"""
        sign = self.next().value if self.peek().kind == "op" and self.peek().value in _SIGNS else "+"
        terms = [signed(sign, self.term())]
        while self.peek().kind == "op" and self.peek().value in _SIGNS:
            sign = self.next().value
            terms.append(signed(sign, self.term()))
        return terms[0] if len(terms) == 1 else Add(tuple(terms))

    def term(self) -> Node:
        """factor (* factor)*, with the unit words after it"""
        factors = [self.factor()]
        while True:
            token = self.peek()
            if token.value == "*" and self.units and self._unit_follows(self.at + 1) and self.tokens[self.at - 1].kind == "text":
                self.at += 1
                self._unit(factors, "*")
            elif token.kind == "op" and token.value in ("*", "/"):
                if token.value == "/" and self._unit_follows(self.at + 1):
                    self.at += 1
                    self._unit(factors, "/")
                    continue
                self.at += 1
                right = self.factor()
                factors.append(right if token.value == "*" else Pow(right, MINUS_ONE))
            elif token.kind == "text":
                self._unit(factors, "")
            elif token.kind in _STARTS and token.value not in (
                "[",
                "end",
                "over",
                "choose",
            ):  # [ opens an interval or closes ]a, b[; end: an environment's
                self._juxtaposed(factors)
            elif token.kind == "bar" and self.bars == 0:
                factors.append(self.power())
            else:
                return factors[0] if len(factors) == 1 else Mul(tuple(factors))

    def _juxtaposed(self, factors: list[Node]) -> None:
        """A factor written without a sign: a mixed number when it is one, else a product."""
        before, last = self.at, factors[-1]
        if isinstance(last, Degree) and self.peek().kind == "sym" and self.peek().value in ("C", "F"):
            self.units.append("degrees " + self.next().value)
            return
        right = self.power()
        if isinstance(last, Num) and last.places is None and last.value >= 0 and (part := proper_fraction(right)) is not None:
            factors[-1] = Num(last.value + part)
            return
        if (
            isinstance(right, Percent)
            and isinstance(last, Num)
            and last.places is None
            and (part := proper_fraction(right.body)) is not None
        ):
            factors[-1] = Percent(Num(last.value + part))  # 12\frac{1}{2}\%
            return
        if isinstance(last, Num) and isinstance(right, Num) and last.places is None and right.places is None:
            if self.accept("op", "/") and isinstance(bottom := self.power(), Num) and 0 < right.value < bottom.value and last.value >= 0:
                factors[-1] = Num(last.value + right.value / bottom.value)  # 1 1/2
                return
            raise Unreadable("two numbers beside each other")
        if isinstance(right, Num) and self.tokens[before].kind == "num" and isinstance(last, Num | Based):
            raise Unreadable("two numbers beside each other")
        factors.append(right)

    def _unit_follows(self, at: int) -> bool:
        return self.tokens[at].kind == "text"

    def _unit(self, factors: list[Node], prefix: str) -> None:
        """Take a word after a value: percent and degrees change it, other words are kept aside."""
        word = self.next().value
        magnitude, _, rest = word.partition(" ")
        if magnitude in MAGNITUDES:
            factors[-1] = times_ten_to(factors[-1], MAGNITUDES[magnitude])
            word = rest
            if not word:
                return
        if word in _PERCENT_WORDS:
            factors[-1] = Percent(factors[-1])
            return
        if word in _DEGREE_WORDS:
            factors[-1] = Degree(factors[-1])
            return
        if isinstance(factors[-1], Text):
            factors[-1] = Text(f"{factors[-1].words} {word}")
            return
        if self.accept("op", "^"):
            exponent = self._argument()
            word += f"^{exponent.value}" if isinstance(exponent, Num) else ""
        self.units.append(prefix + word)

    def factor(self) -> Node:
        """An optional sign and a power."""
        token = self.peek()
        if token.kind == "op" and token.value in _SIGNS:
            self.at += 1
            return signed(token.value, self.factor())
        return self.power()

    # -- powers and postfixes -----------------------------------------------------------------------------------------------------

    def power(self) -> Node:
        """primary, its postfixes, and exponents"""
        node = self.primary()
        while True:
            if self.accept("op", "^"):
                node = self._raised(node)
            elif self.accept("op", "!"):
                node = Func("factorial", (node,))
            elif self.accept("op", "%"):
                node = Percent(node)
            elif self.accept("op", "'"):
                node = Sym(f"{name_of(node)}'")
            elif self.accept("op", "_"):
                node = self._lowered(node)
            elif self.accept("macro", "degree"):
                node = Degree(node)
            else:
                return node

    def _raised(self, base: Node) -> Node:
        if self.accept("macro", "circ") or self.accept("macro", "degree"):
            return Degree(base)
        mark = self.at
        braced = self.accept("open", "{") and (self.accept("macro", "circ") or self.accept("macro", "degree"))
        if braced and self.accept("close", "}"):
            return Degree(base)
        self.at = mark
        if self.accept("op", "'") or self.accept("sym", "\\prime"):
            return Sym(f"{name_of(base)}'")
        sign = self.accept("op", "-")
        exponent = self._argument(whole_number=True)
        if self.accept("op", "^"):
            exponent = self._raised(exponent)
        return Pow(base, signed("-", exponent) if sign else exponent)

    def _lowered(self, node: Node) -> Node:
        """A subscript: the base of a number, or a part of a variable's name."""
        written = self.written()
        if isinstance(node, Num) and node.places is None:
            return Based(str(node.value), written)
        return Sym(f"{name_of(node)}_{written}")

    # -- primaries ------------------------------------------------------------------------------------------------------------

    def primary(self) -> Node:
        """A number, a name, a function, a bracket or a macro."""
        token = self.next()
        kind, value = token.kind, token.value
        if kind == "num":
            return self._repeating(number(value))
        if kind == "sym":
            return self._named(value)
        if kind == "const":
            return Const(value)
        if kind == "func":
            return self._function(value)
        if kind == "open":
            return self.bracket(value)
        if kind == "bar":
            return self._absolute("bar", "|")
        if kind == "macro":
            return self.macro(value)
        if kind == "text":
            return NAMED_SETS.get(value) or Text(value)
        if kind == "bigop" and value in ("sum", "prod"):
            return self._big(value)
        raise Unreadable(f"{value or 'the end'!r}")

    def macro(self, name: str) -> Node:
        """What a macro with arguments stands for; `structure.py` writes it."""
        raise NotImplementedError

    def _named(self, name: str) -> Node:
        following = self.peek()
        if following.kind == "open" and following.value == "(" and not following.spaced and name in _UNKNOWN_FUNCTIONS:
            self.at += 1
            inside = self.bracket("(")
            return Apply(name, inside.items if isinstance(inside, Seq) else (inside,))
        if following.value == "(" and not following.spaced and name.isupper():
            self.at += 1
            inside = self.bracket("(")
            return Apply(name, inside.items) if isinstance(inside, Seq) else Mul((Sym(name), inside))  # the point A(1, 2)
        return Sym(name)

    def _argument(self, whole_number: bool = False) -> Node:
        """The argument of a macro or an exponent: a group, or one token; of a number only its first digit unless `whole_number`."""
        token = self.next()
        if token.kind == "open" and token.value in ("{", "("):
            return self.bracket(token.value)
        if token.kind == "num" and not whole_number and len(token.value) > 1:
            self.at -= 1
            self.tokens[self.at : self.at + 1] = [Token("num", token.value[0]), Token("num", token.value[1:])]
            token = self.next()
        self.at -= 1
        return self.primary()
