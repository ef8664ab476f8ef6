r"""Functions at their arguments (`\sin 2x`, `\log_2 8`, `|x|`), repeating decimals, sums over integers, sets named in words."""

from fractions import Fraction

from r1cli.rewards.math.cursor import MINUS_ONE, Cursor, signed
from r1cli.rewards.math.nodes import BigOperator, Const, Func, Mul, Node, Num, Pow, Seq, Sym, Unreadable

_EVERYTHING, _NOTHING = Sym("\\R"), Seq("{", "}", ())
NAMED_SETS: dict[str, Node] = dict.fromkeys(
    ("all real numbers", "all reals", "real numbers", "all real", "全体实数", "任意实数"), _EVERYTHING
)
NAMED_SETS |= dict.fromkeys(
    ("no solution", "no solutions", "no real solution", "no real solutions", "empty set", "the empty set", "空集"), _NOTHING
)


class FunctionParser(Cursor):
    """What stands between the cursor and the grammar of expressions."""

    def sum(self) -> Node:
        """A sum of terms; `expression.py` writes these."""
        raise NotImplementedError

    def term(self) -> Node:
        raise NotImplementedError

    def power(self) -> Node:
        raise NotImplementedError

    def bracket(self, left: str) -> Node:
        """What a bracket opens; `structure.py` writes it."""
        raise NotImplementedError

    def _argument(self, whole_number: bool = False) -> Node:
        raise NotImplementedError

    def _absolute(self, kind: str, closing: str) -> Node:
        self.bars += 1
        inside = self.sum()
        self.bars -= 1
        self.expect(kind, closing)
        return Func("abs", (inside,))

    def _repeating(self, value: Num) -> Node:
        r"""0.1\overline{6}: the digits under the bar repeat for ever."""
        if value.places is None or self.peek().value not in ("overline", "dot", "bar"):
            return value
        self.at += 1
        digits = self._argument()
        if not isinstance(digits, Num) or digits.places is not None:
            raise Unreadable("what repeats is no number")
        length = len(self.tokens[self.at - 2].value if self.tokens[self.at - 1].value == "}" else self.tokens[self.at - 1].value)
        return Num(value.value + digits.value / ((10**length - 1) * Fraction(10) ** value.places))

    def _function(self, name: str) -> Node:
        exponent = base = None
        while True:
            if self.accept("op", "^"):
                exponent = self._argument(whole_number=True) if not self.accept("op", "-") else MINUS_ONE
            elif self.accept("op", "_"):
                base = self._argument(whole_number=True)
            else:
                break
        args = self._function_argument()
        if name in ("sqrt", "root"):
            node: Node = Func("root", (args[0], Num(Fraction(2))))
        elif name == "log" and base is not None:
            node = Func("log", (args[0], base))
        elif name == "exp":
            node = Pow(Const("e"), args[0])
        elif exponent == MINUS_ONE and not name.startswith("arc"):
            return Func("arc" + name, args)
        else:
            node = Func(name, args)
        return node if exponent is None else Pow(node, exponent)

    def _function_argument(self) -> tuple[Node, ...]:
        """A bracket, or the product that follows, up to the next function or sign."""
        if self.peek().kind == "open" and self.peek().value in ("(", "[", "{", "\\{"):
            self.at += 1
            inside = self.bracket(self.tokens[self.at - 1].value)
            return inside.items if isinstance(inside, Seq) else (inside,)
        factors = [signed("-", self.power()) if self.accept("op", "-") else self.power()]
        while self.peek().kind in ("num", "sym", "const", "macro") or self.sees("op", "/"):
            if self.accept("op", "/"):
                factors.append(Pow(self.power(), MINUS_ONE))
            else:
                factors.append(self.power())
        return (factors[0] if len(factors) == 1 else Mul(tuple(factors)),)

    def _big(self, kind: str) -> Node:
        r"""\sum_{k=a}^{b} body"""
        self.expect("op", "_")
        self.expect("open", "{")
        variable = self.next()
        if variable.kind not in ("sym", "const"):
            raise Unreadable("a sum over no variable")
        self.expect("rel", "=")
        low = self.sum()
        self.expect("close", "}")
        self.expect("op", "^")
        high = self._argument(whole_number=True)
        return BigOperator(kind, variable.value, low, high, self.term())
