"""Are two expressions the same number, or the same function of their variables.

Expressions are compared at four points, one of them with mixed signs: exactly while they are rational, else with 60 digits. Where a value
leaves the real line without an i in the text it is a matter of branches (x^(2/3) of a negative x), and that point decides nothing.
"""

import zlib
from fractions import Fraction
from functools import lru_cache
from typing import Any

from r1cli.rewards.math.evaluate import Irrational, Numbers, exact, symbol_name
from r1cli.rewards.math.nodes import (
    Add,
    Apply,
    Based,
    BigOperator,
    Const,
    Degree,
    Func,
    Mul,
    Node,
    Num,
    Percent,
    PlusMinus,
    Pow,
    Sym,
    Unreadable,
)  # fmt: skip
from r1cli.rewards.math.precision import close, more_digits

GOLD_DIGITS = 3  # a decimal gold with so many digits is met by what rounds to it
RATIONAL_DIGITS = 6  # an answer with so many digits, rightly rounded, stands for a fraction
IRRATIONAL_DIGITS = 10  # and for a root, a logarithm, a multiple of pi
POINTS = 4
_PLACES = 999_983  # prime denominator of the points: no value of a question falls on one


def same_value(gold: Node, answer: Node) -> bool:
    """Whether two expressions are equal, with the conventions for percent, degrees and rounding.

    Raises `Unreadable` for what has no value here and `TooBig` for what must not be computed.
    """
    if not _same_value(gold, answer):
        return False
    if _rational(gold) and _rational(answer):
        return True
    with more_digits():
        return _same_value(gold, answer)


def _rational(node: Node) -> bool:
    """Whether `exact` computes it: then nothing was rounded."""
    if isinstance(node, Pow):
        return _rational(node.base) and isinstance(node.exponent, Num) and node.exponent.value.denominator == 1
    return isinstance(node, Num | Sym | Apply) or (isinstance(node, Add | Mul | Percent) and all(map(_rational, children(node))))


def _same_value(gold: Node, answer: Node) -> bool:
    gold, answer = _peeled(gold), _peeled(answer)
    if isinstance(gold, Percent) and isinstance(answer, Percent):
        return _same_value(gold.body, answer.body)
    if isinstance(gold, Percent) or isinstance(answer, Percent):
        g, a = (node.body if isinstance(node, Percent) else node for node in (gold, answer))
        return _equal(g, a) or _equal(gold, answer)
    if isinstance(gold, Degree) or isinstance(answer, Degree):
        g, a = (node.body if isinstance(node, Degree) else node for node in (gold, answer))
        return _equal(g, a) or _equal(gold, answer)
    return _equal(gold, answer)


def _peeled(node: Node) -> Node:
    """A sign taken inside percent or degrees: -(5%) is (-5)%."""
    if isinstance(node, Mul) and len(node.factors) == 2 and isinstance(node.factors[0], Num) and node.factors[0].value == -1:
        inner = node.factors[1]
        if isinstance(inner, Percent | Degree):
            return type(inner)(Mul((node.factors[0], inner.body)))
    return node


def _equal(gold: Node, answer: Node) -> bool:
    if isinstance(gold, Num) and isinstance(answer, Num):
        return gold.value == answer.value or _rounds(gold, answer.value, answer)
    if infinite(gold) or infinite(answer):
        return infinite(gold) == infinite(answer)
    if gold == answer:
        return _finite(gold)
    names = sorted(symbols(gold) | symbols(answer))
    if not names and isinstance(gold, Num):
        value = real_value(answer)
        return value is not None and (_near(gold.value, value) or _rounds(gold, value, answer))
    if not names and isinstance(answer, Num):
        value = real_value(gold)
        return value is not None and (_near(value, answer.value) or _stands_for(answer, value))
    return _same_function(gold, answer, names)


def _finite(node: Node) -> bool:
    """Whether an expression has a value at all: 0/0 equals nothing, itself included."""
    names = sorted(symbols(node))
    return any(_value_at(node, point(names, k)) is not None for k in range(POINTS))


def infinite(node: Node) -> int:
    """+1 or -1 for a signed infinity, else 0."""
    if node == Const("inf"):
        return 1
    if isinstance(node, Mul) and len(node.factors) == 2 and node.factors[1] == Const("inf") and isinstance(node.factors[0], Num):
        return 1 if node.factors[0].value > 0 else -1
    return 0


@lru_cache(maxsize=4096)
def symbols(node: Node) -> frozenset[str]:
    """The names of the free symbols (and of unknown functions at their arguments). Raises `Unreadable` for structure inside an
    expression.
    """
    if isinstance(node, Sym | Apply):
        return frozenset((symbol_name(node),))
    if isinstance(node, Num | Const):
        return frozenset()
    if isinstance(node, BigOperator):
        return (symbols(node.body) | symbols(node.low) | symbols(node.high)) - {node.variable}
    if isinstance(node, PlusMinus | Based) or not isinstance(node, Add | Mul | Pow | Func | Percent | Degree):
        raise Unreadable("not one value")
    return frozenset().union(*map(symbols, children(node)))


def children(node: Node) -> tuple[Node, ...]:
    """The parts of an expression."""
    if isinstance(node, Add):
        return node.terms
    if isinstance(node, Mul):
        return node.factors
    if isinstance(node, Pow):
        return (node.base, node.exponent)
    if isinstance(node, Func):
        return node.args
    return (node.body,) if isinstance(node, Percent | Degree | BigOperator) else ()


def point(names: list[str], k: int) -> dict[str, Fraction]:
    """The k-th point: a fixed rational for every name, between 1/3 and 7/3; at k = 2 the first and about half of the others are negative;
    at k = 3 all are four times as large, where polynomials under a root tend to be positive.
    """
    values = {}
    for n, name in enumerate(names):
        raw = zlib.crc32(f"{k}/{name}".encode("utf-8", "surrogatepass"))
        value = Fraction(_PLACES // 3 + raw % (2 * _PLACES), _PLACES) * (4 if k == 3 else 1)
        values[name] = -value if k == 2 and (n == 0 or raw & 64) else value
    return values


def _value_at(node: Node, at: dict[str, Fraction]) -> Any | None:
    """Exact where possible, else an mpmath number with its noise; None where there is no value."""
    try:
        return exact(node, at)
    except Irrational:
        pass
    except ZeroDivisionError:
        return None
    numbers = Numbers(at)
    try:
        return _Noisy(numbers.value(node), numbers.noise)
    except ZeroDivisionError:
        return None


class _Noisy:
    """An inexact value and how far it may be off."""

    __slots__ = ("noise", "value")

    def __init__(self, value: Any, noise: Any) -> None:
        self.value, self.noise = value, noise


def _same_function(gold: Node, answer: Node, names: list[str]) -> bool:
    if isinstance(gold, BigOperator) and isinstance(answer, BigOperator) and _same_series(gold, answer):
        return True
    compared = 0
    many_valued = bool(names) and not (_holds_i(gold) or _holds_i(answer))
    for k in range(POINTS):
        at = point(names, k)
        g, a = _value_at(gold, at), _value_at(answer, at)
        if g is None or a is None:
            if (g is None) != (a is None) and not names:
                return False
            continue
        verdict = _same_number(g, a, many_valued)
        if verdict is False:
            return False
        compared += verdict is True
        if not names:
            break
    return compared > 0


def _same_series(gold: BigOperator, answer: BigOperator) -> bool:
    """Two sums or products over the same name with equal bounds and terms, whatever the bounds are."""
    if (gold.kind, gold.variable) != (answer.kind, answer.variable):
        return False
    return all(_equal(g, a) for g, a in ((gold.low, answer.low), (gold.high, answer.high), (gold.body, answer.body)))


def _holds_i(node: Node) -> bool:
    """Whether the imaginary unit is written in it."""
    return node == Const("i") or any(map(_holds_i, children(node)))


def _same_number(g: Any, a: Any, many_valued: bool) -> bool | None:
    """Equal or not; None where the values are not real though no i was written: a branch of a root or a logarithm decides there."""
    if isinstance(g, Fraction) and isinstance(a, Fraction):
        return g == a
    noise = sum(x.noise for x in (g, a) if isinstance(x, _Noisy))
    left, right = (x.value if isinstance(x, _Noisy) else _as_number(x) for x in (g, a))
    if many_valued and (left.imag or right.imag):
        return None
    return bool(abs(left - right) <= noise) or close(left, right)


def _as_number(value: Fraction) -> Any:
    return Numbers({}).value(Num(value))


def real_value(node: Node) -> Any | None:
    """The real value of an expression without symbols (a Fraction when exact); None when it has none or is not real."""
    value = _value_at(node, {})
    if value is None or isinstance(value, Fraction):
        return value
    return None if abs(value.value.imag) > max(value.noise, abs(value.value) * 1e-45) else value.value.real


def _near(g: Any, a: Any) -> bool:
    if isinstance(g, Fraction) and isinstance(a, Fraction):
        return g == a
    g, a = (_as_number(x) if isinstance(x, Fraction) else x for x in (g, a))
    return close(g, a)


def _rounds(gold: Num, value: Any, answer: Node) -> bool:
    """Whether a value rounds to a decimal gold; a decimal answer must have at least the gold's digits."""
    if gold.places is None or gold.significant < GOLD_DIGITS:
        return False
    if isinstance(answer, Num) and (answer.places is None or answer.places < gold.places):
        return False
    return _within(value, gold.value, Fraction(10) ** -gold.places / 2)


def _stands_for(answer: Num, gold: Any) -> bool:
    """Whether a long decimal answer is the rightly rounded value of an exact gold."""
    needed = RATIONAL_DIGITS if isinstance(gold, Fraction) else IRRATIONAL_DIGITS
    if answer.places is None or answer.significant < needed:
        return False
    if isinstance(gold, Fraction) and gold.denominator == 1:
        return False
    return _within(gold, answer.value, Fraction(10) ** -answer.places * Fraction(51, 100))


def _within(value: Any, centre: Fraction, distance: Fraction) -> bool:
    if isinstance(value, Fraction):
        return abs(value - centre) <= distance
    return bool(abs(value - _as_number(centre)) <= _as_number(distance))
