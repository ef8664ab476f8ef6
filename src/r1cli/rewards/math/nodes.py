"""The tree of an answer: what the parser makes and the comparison reads. Plain immutable values, equal when written alike."""

from dataclasses import dataclass
from fractions import Fraction


class Unreadable(Exception):
    """The text is not in the grammar: another stage may still know it."""


class TooBig(Exception):
    """Reading or computing it would pass a limit: it is nobody's answer, and no other stage may try."""


@dataclass(frozen=True, slots=True)
class Node:
    """Base of all nodes."""


@dataclass(frozen=True, slots=True)
class Num(Node):
    """A number as written. places: digits after the decimal point, None for an integer; significant: digits that carry value."""

    value: Fraction
    places: int | None = None
    significant: int = 0


@dataclass(frozen=True, slots=True)
class Sym(Node):
    """A variable with its subscript, or a macro that stands for itself."""

    name: str


@dataclass(frozen=True, slots=True)
class Const(Node):
    """pi, e, i or inf."""

    name: str


@dataclass(frozen=True, slots=True)
class Add(Node):
    terms: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Mul(Node):
    factors: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Pow(Node):
    base: Node
    exponent: Node


@dataclass(frozen=True, slots=True)
class Func(Node):
    """A known function: sin, ln, abs, factorial, binom, root (radicand, index), log (argument, base), ..."""

    name: str
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Apply(Node):
    """An unknown function at some arguments, as in f(2)."""

    name: str
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class BigOperator(Node):
    """A finite sum or product: kind is "sum" or "prod", over integers from `low` to `high`."""

    kind: str
    variable: str
    low: Node
    high: Node
    body: Node


@dataclass(frozen=True, slots=True)
class PlusMinus(Node):
    """Both signs of a term; `sign` is +1 for plus-minus and -1 for minus-plus."""

    body: Node
    sign: int


@dataclass(frozen=True, slots=True)
class Percent(Node):
    body: Node


@dataclass(frozen=True, slots=True)
class Degree(Node):
    body: Node


@dataclass(frozen=True, slots=True)
class Based(Node):
    """Digits in a written base, as in 204_5."""

    digits: str
    base: str


@dataclass(frozen=True, slots=True)
class Seq(Node):
    """Items between brackets: "(" ")" "[" "]" "{" "}", or "" and "" for a bare list; joiner is "," or "or" or "and"."""

    left: str
    right: str
    items: tuple[Node, ...]
    joiner: str = ","


@dataclass(frozen=True, slots=True)
class SetOp(Node):
    """Union "cup", intersection "cap" or difference "minus" of sets."""

    op: str
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Rel(Node):
    """A chain of relations: sides[0] ops[0] sides[1] ...; ops are = != < <= > >= in equiv."""

    ops: tuple[str, ...]
    sides: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Ratio(Node):
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Matrix(Node):
    rows: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True, slots=True)
class Builder(Node):
    """A set by its condition: {variable | condition}."""

    variable: Node
    condition: Node


@dataclass(frozen=True, slots=True)
class Text(Node):
    """Words, lower case, single spaces."""

    words: str
