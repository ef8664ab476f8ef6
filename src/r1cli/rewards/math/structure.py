r"""Read a whole answer: lists joined by commas and connectives, relations, ratios, unions, brackets, sets, matrices, macros.

answer   := clause (("," | ";" | "or" | "and") clause)*
clause   := ratio (relation ratio)*
ratio    := union (":" union)*
union    := sum ((cup | cap | minus) sum)*
"""

from dataclasses import dataclass
from fractions import Fraction

from r1cli.rewards.math.cursor import MINUS_ONE
from r1cli.rewards.math.expression import ExpressionParser
from r1cli.rewards.math.lexer import Token, tokens
from r1cli.rewards.math.nodes import (
    Builder,
    Func,
    Matrix,
    Mul,
    Node,
    Num,
    Pow,
    Ratio,
    Rel,
    Seq,
    SetOp,
    Sym,
    Text,
    Unreadable,
)  # fmt: skip

_PAIRS = {
    "(": (")", "]"),
    "[": ("]", ")"),
    "{": ("}",),
    r"\{": (r"\}",),
    "<": (">",),
    "floor": ("floor",),
    "ceil": ("ceil",),
    "|(": ("|)",),
}
_RELATIONS = frozenset(("=", "<", ">", "<=", ">=", "!=", "in", "notin", "subset", "approx", "to", "iff", "perp", "parallel"))
_SEPARATORS = {",": ",", ";": ",", "or": "or", "and": "and"}


@dataclass(frozen=True, slots=True)
class Parsed:
    """A tree, the unit words that stood in the text, and whether a comma was read as a decimal point."""

    tree: Node
    units: tuple[str, ...]
    comma: bool = False


def parse(text: str) -> Parsed:
    """The tree of an answer. Raises `Unreadable` when it is not in the grammar, `TooBig` when it passes a limit."""
    found = tokens(text)
    while (len(found) > 1 and found[-2].kind in ("sep", "gap")) or (len(found) > 1 and found[-2].value in ("=", "\\")):
        del found[-2]
    parser = AnswerParser(found)
    try:
        tree = parser.answer(("end",))
    except RecursionError:
        raise Unreadable("nested too deep") from None
    if parser.peek().kind != "end":
        raise Unreadable(f"{parser.peek().value!r} is left over")
    return Parsed(tree, tuple(parser.units))


class AnswerParser(ExpressionParser):
    """The outer levels of the grammar, brackets and macros."""

    def answer(self, stops: tuple[str, ...]) -> Node:
        """A list of clauses, or the only one; ends before a token of a kind in `stops`."""
        items: list[Node] = []
        joiner = ","
        while True:
            self._skip_gaps()
            if self.peek().kind in stops:
                break
            items.append(self.clause())
            separated = False
            while self.peek().kind in ("sep", "gap") and self.peek().value in (
                *_SEPARATORS,
                "quad",
                "qquad",
                "enspace",
                "thinspace",
                "space",
            ):
                word = _SEPARATORS.get(self.next().value, ",")
                joiner = word if word != "," else joiner
                separated = True
            if not separated:
                break
        if not items:
            raise Unreadable("nothing")
        return items[0] if len(items) == 1 else Seq("", "", tuple(items), joiner)

    def _skip_gaps(self) -> None:
        while self.accept("gap"):
            pass

    def clause(self) -> Node:
        """A relation chain, or one side alone."""
        ops: list[str] = []
        self.accept("rel", "approx")
        sides: list[Node] = [self.ratio()]
        while self.peek().kind == "rel" and self.peek().value in _RELATIONS:
            op, right = self.next().value, self.ratio()
            if op == "approx" and not isinstance(sides[-1], Sym | Text):
                continue  # a rounded value beside the exact one says nothing more
            ops.append("=" if op == "approx" else op)
            sides.append(right)
        if ops and self.accept("rel", "pmod"):
            ops.append("mod")
            sides.append(self._argument(whole_number=True))
        return Rel(tuple(ops), tuple(sides)) if ops else sides[0]

    def ratio(self) -> Node:
        """a:b:c"""
        parts = [self.union()]
        while self.accept("rel", ":"):
            parts.append(self.union())
        return parts[0] if len(parts) == 1 else Ratio(tuple(parts))

    def union(self) -> Node:
        """Sets joined by union, intersection or difference; all the same within one level."""
        node = self.sum()
        while self.peek().kind == "op" and self.peek().value in ("cup", "cap", "minus"):
            op = self.next().value
            right = self.sum()
            node = SetOp(op, (*node.parts, right)) if isinstance(node, SetOp) and node.op == op == "cup" else SetOp(op, (node, right))
        return node

    # -- brackets -----------------------------------------------------------------------------------------------------------

    def bracket(self, left: str) -> Node:
        """What stands from an opening bracket (already taken) to its closing one."""
        if left == "{" and self.accept("close", "}"):
            raise Unreadable("an empty group")
        if left == r"\{":
            return self._set()
        bars, self.bars = self.bars, 0
        inside = self.answer(("close",))
        if left == "{" and self.accept("macro", "over"):
            inside = Mul((inside, Pow(self.answer(("close",)), MINUS_ONE)))
        elif left == "{" and self.accept("macro", "choose"):
            inside = Func("binom", (inside, self.answer(("close",))))
        self.bars = bars
        closing = self.next()
        if closing.kind != "close" or closing.value not in _PAIRS[left]:
            raise Unreadable(f"{left!r} closed by {closing.value!r}")
        if left in ("floor", "ceil"):
            return Func(left, (inside,))
        if left == "|(":
            return Func("abs", (inside,))
        if isinstance(inside, Seq) and not inside.left:
            return Seq(left, closing.value, inside.items, inside.joiner)
        if left == "[" and closing.value == "]" and not isinstance(inside, Matrix):
            return Seq("[", "]", (inside,))
        return inside

    def _set(self) -> Node:
        if self.accept("close", r"\}"):
            return Seq("{", "}", ())
        self.bars += 1
        inside = self.answer(("close",))
        self.bars -= 1
        if self.peek().kind == "bar" or self.peek().value in (":", "mid"):
            self.at += 1
            condition = self.answer(("close",))
            self.expect("close", r"\}")
            return Builder(inside, condition)
        self.expect("close", r"\}")
        if isinstance(inside, Ratio) and len(inside.parts) == 2:
            return Builder(inside.parts[0], inside.parts[1])
        if isinstance(inside, Rel) and inside.ops[0] == "in" and isinstance(domain := inside.sides[1], Ratio) and len(inside.ops) > 1:
            condition = Rel(inside.ops[1:], (domain.parts[1], *inside.sides[2:]))  # {x in R : x > 2}
            return Builder(Rel(("in",), (inside.sides[0], domain.parts[0])), condition)
        if isinstance(inside, Rel) and isinstance(inside.sides[0], Ratio) and len(inside.sides[0].parts) == 2:  # {x : x > 2}
            return Builder(inside.sides[0].parts[0], Rel(inside.ops, (inside.sides[0].parts[1], *inside.sides[1:])))
        if isinstance(inside, Seq) and not inside.left:
            return Seq("{", "}", inside.items)
        return Seq("{", "}", (inside,))

    # -- macros -------------------------------------------------------------------------------------------------------------

    def macro(self, name: str) -> Node:
        """A macro with arguments."""
        if name == "frac":
            top, bottom = self._argument(), self._argument()
            return Mul((top, Pow(bottom, MINUS_ONE)))
        if name == "sqrt":
            return self._root()
        if name == "binom":
            return Func("binom", (self._argument(), self._argument()))
        if name in ("emptyset", "varnothing"):
            return Seq("{", "}", ())
        if name in ("mathbb", "mathcal"):
            return Sym("\\" + self.written())
        if name in ("overline", "bar", "vec", "hat", "widehat", "tilde", "overrightarrow", "dot"):
            return Sym(f"\\{'vec' if name == 'overrightarrow' else name} {self.written()}")
        if name in ("color", "textcolor"):
            self.written()
            return self._argument() if self.sees("open", "{") else self.power()
        if name == "begin":
            return self._environment()
        if name in ("circ", "degree"):
            raise Unreadable("a degree sign alone")
        raise Unreadable(f"macro \\{name}")

    def _root(self) -> Node:
        index: Node = Num(Fraction(2))
        if self.accept("open", "["):
            index = self.sum()
            self.expect("close", "]")
        return Func("root", (self._argument(), index))

    def _environment(self) -> Node:
        r"""\begin{pmatrix} a & b \\ c & d \end{pmatrix}; cases and aligned are lists of their rows."""
        name = self.written().rstrip("*")
        if name == "array" and self.sees("open", "{"):
            self.written()
        gridded = name.endswith("matrix") or name in ("array", "smallmatrix", "cases")
        rows: list[tuple[Node, ...]] = []
        row: list[Node] = []
        if not gridded:
            self._without_alignment()
        while not self.sees("macro", "end"):
            if self.accept("sep", "row"):
                rows.append(tuple(row))
                row = []
            elif not self.accept("sep", "&") and not self.accept("sep", ","):
                row.append(self.clause())
        self.at += 1
        self.written()
        rows = [r for r in (*rows, tuple(row)) if r]
        if not rows:
            raise Unreadable("an empty environment")
        if gridded and name != "cases":
            if name == "array" and len(rows) == len(rows[0]) == 1:
                return rows[0][0]
            matrix: Node = Matrix(tuple(rows))
            return Func("det", (matrix,)) if name == "vmatrix" else matrix
        return Seq("", "", tuple(item for r in rows for item in r), "and")

    def _without_alignment(self) -> None:
        """`x &= 8` in an aligned environment is x = 8: the marks up to its end are taken out."""
        end = next(
            (n for n in range(self.at, len(self.tokens)) if self.tokens[n].value == "end" and self.tokens[n].kind == "macro"), self.at
        )
        self.tokens[self.at : end] = [token for token in self.tokens[self.at : end] if token != Token("sep", "&")]
