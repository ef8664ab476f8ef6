"""The value of a tree: exact rationals where there are only whole powers, 60-digit complex numbers elsewhere.

`exact` is tried first and is a proof. `numeric` works at random points through mpmath, with limits on every operation that can grow, and
keeps account of cancellation (`noise`), so that 1/2004! and 1/2006! stay different and sqrt(2)^2 - 2 is zero.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from r1cli.rewards.math.nodes import (
    Add,
    Apply,
    BigOperator,
    Const,
    Degree,
    Func,
    Mul,
    Node,
    Num,
    Percent,
    Pow,
    Sym,
    TooBig,
    Unreadable,
)  # fmt: skip
from r1cli.rewards.math.precision import mpmath_context

MAX_BITS = 60_000  # of an exact number
MAX_SERIES_BITS = 8_000  # of a sum or product on its way
MAX_POWER = 20_000
MAX_FACTORIAL = 5_000
MAX_TERMS = 2_000  # of a sum or product, and of all sums inside each other
MAX_LOG10 = 10**7  # of a number's size
Point = Mapping[str, Fraction]


class Irrational(Exception):
    """Not a rational function: `exact` does not apply."""


def exact(node: Node, point: Point) -> Fraction:
    """The value at a rational point, exactly. Raises `Irrational`, `TooBig`, `Unreadable` or `ZeroDivisionError`."""
    if isinstance(node, Num):
        return node.value
    if isinstance(node, Sym | Apply):
        return point[symbol_name(node)]
    if isinstance(node, Add):
        total = Fraction(0)
        for term in node.terms:
            total = _bounded(total + exact(term, point))
        return total
    if isinstance(node, Mul):
        value = Fraction(1)
        for factor in node.factors:
            value = _bounded(value * exact(factor, point))
        return value
    if isinstance(node, Pow):
        return _exact_power(exact(node.base, point), exact(node.exponent, point))
    if isinstance(node, Percent):
        return exact(node.body, point) / 100
    if isinstance(node, Func):
        return _exact_function(node, point)
    if isinstance(node, BigOperator):
        return _exact_series(node, point)
    raise Irrational


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        raise TooBig("a number too long")
    return value


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise Irrational
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) > MAX_POWER or bits * abs(exponent) > MAX_BITS:
        if base in (0, 1, -1):
            return base ** (int(exponent) % 2 + 2) if base else _zero_power(exponent)
        raise TooBig("a power too large")
    return base ** int(exponent) if base or exponent > 0 else _zero_power(exponent)


def _zero_power(exponent: Fraction) -> Fraction:
    if exponent <= 0:
        raise ZeroDivisionError
    return Fraction(0)


def _exact_function(node: Func, point: Point) -> Fraction:
    args = [exact(arg, point) for arg in node.args]
    name = node.name
    if name == "abs":
        return abs(args[0])
    if name in ("floor", "ceil"):
        return Fraction(math.floor(args[0]) if name == "floor" else math.ceil(args[0]))
    if name in ("max", "min"):
        return max(args) if name == "max" else min(args)
    if name == "root":
        return _exact_root(args[0], args[1])
    if name == "binom" and args[1].denominator == 1 and 0 <= args[1] <= 20 and (args[0].denominator != 1 or args[0] < 0):
        top = args[0]
        return math.prod((top - k for k in range(int(args[1]))), start=Fraction(1)) / math.factorial(int(args[1]))
    if any(arg.denominator != 1 for arg in args):
        raise Irrational
    whole = [int(arg) for arg in args]
    if name == "factorial" and whole[0] >= 0:
        if whole[0] > MAX_FACTORIAL:
            raise TooBig("a factorial too large")
        return Fraction(math.factorial(whole[0]))
    if name == "binom" and whole[0] >= 0 and whole[1] >= 0:
        if whole[0] > 10 * MAX_FACTORIAL or min(whole[1], whole[0] - whole[1]) > MAX_FACTORIAL:
            raise TooBig("a binomial too large")
        return _bounded(Fraction(math.comb(whole[0], whole[1])))
    if name in ("gcd", "lcm"):
        return Fraction(math.gcd(*whole) if name == "gcd" else math.lcm(*whole))
    raise Irrational


def _exact_root(value: Fraction, index: Fraction) -> Fraction:
    """Square roots of squares; everything else is left to numbers."""
    if index != 2 or value < 0 or value.numerator.bit_length() > 4000:
        raise Irrational
    top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
    if top * top != value.numerator or bottom * bottom != value.denominator:
        raise Irrational
    return Fraction(top, bottom)


def _exact_series(node: BigOperator, point: Point) -> Fraction:
    low, high = exact(node.low, point), exact(node.high, point)
    if low.denominator != 1 or high.denominator != 1:
        raise Irrational
    budget = point.get("#terms", Fraction(MAX_TERMS)) - (high - low + 1)
    if budget < 0:
        raise TooBig("a sum too long")
    total = Fraction(0 if node.kind == "sum" else 1)
    for k in range(int(low), int(high) + 1):
        term = exact(node.body, {**point, node.variable: Fraction(k), "#terms": budget / max(1, int(high - low + 1))})
        total = total + term if node.kind == "sum" else total * term
        if total.denominator.bit_length() + total.numerator.bit_length() > MAX_SERIES_BITS:
            raise TooBig("a sum too long")
    return total


def symbol_name(node: Sym | Apply) -> str:
    """The name under which a symbol, or an unknown function at its arguments, is looked up in a point."""
    return node.name if isinstance(node, Sym) else f"{node.name}{node.args!r}"


# -- numbers ----------------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Numbers:
    """Evaluates at one point; `noise` is the largest error that cancellation may have left."""

    point: Point
    noise: Any = 0

    def value(self, node: Node) -> Any:
        """An mpmath number, real where it can be. Raises `Unreadable`, `TooBig` or `ZeroDivisionError`."""
        mp = mpmath_context()
        if isinstance(node, Num):
            return mp.mpf(node.value.numerator) / node.value.denominator
        if isinstance(node, Sym | Apply):
            value = self.point[symbol_name(node)]
            return mp.mpf(value.numerator) / value.denominator
        if isinstance(node, Const):
            return self._constant(node.name)
        if isinstance(node, Add):
            return self._sum([self.value(term) for term in node.terms])
        if isinstance(node, Mul):
            return _sized(mp.fprod([self.value(factor) for factor in node.factors]))
        if isinstance(node, Pow):
            return _power(self.value(node.base), self.value(node.exponent))
        if isinstance(node, Percent):
            return self.value(node.body) / 100
        if isinstance(node, Degree):
            return self.value(node.body) * mp.pi / 180
        if isinstance(node, Func):
            args = [self.value(arg) for arg in node.args]
            try:
                return _sized(self._function(node.name, args))
            except (ValueError, OverflowError):  # a pole, as of the factorial at -1
                raise ZeroDivisionError from None
        if isinstance(node, BigOperator):
            return self._series(node)
        raise Unreadable(type(node).__name__)

    def _constant(self, name: str) -> Any:
        mp = mpmath_context()
        if name in self.point:  # a summation index may be called i
            return mp.mpf(self.point[name].numerator) / self.point[name].denominator
        if name == "inf":
            raise Unreadable("infinity is no number")
        return {"pi": mp.pi, "e": mp.e, "i": mp.mpc(0, 1)}[name] * 1

    def _sum(self, terms: list[Any]) -> Any:
        mp = mpmath_context()
        total = mp.fsum(terms)
        largest = max(abs(term) for term in terms)
        self.noise = max(self.noise, largest * mp.mpf(10) ** (8 - mp.dps))
        return total if abs(total) > self.noise else mp.mpf(0)

    def _series(self, node: BigOperator) -> Any:
        mp = mpmath_context()
        low, high = self.value(node.low), self.value(node.high)
        if not (mp.isint(low) and mp.isint(high)):
            raise Unreadable("a sum without whole bounds")
        budget = self.point.get("#terms", Fraction(MAX_TERMS)) / max(1, int(high - low) + 1)
        if budget < 1:
            raise TooBig("a sum too long")
        outer = self.point
        terms = []
        for k in range(int(low), int(high) + 1):
            self.point = {**outer, node.variable: Fraction(k), "#terms": budget}
            terms.append(self.value(node.body))
        self.point = outer
        if not terms:
            return mp.mpf(0 if node.kind == "sum" else 1)
        return self._sum(terms) if node.kind == "sum" else _sized(mp.fprod(terms))

    def _function(self, name: str, args: list[Any]) -> Any:
        mp, x = mpmath_context(), args[0]
        if name == "root":
            return _root(x, args[1])
        if name in ("ln", "log", "log10"):
            if x == 0:
                raise ZeroDivisionError
            return mp.log(x) if len(args) == 1 and name != "log10" else mp.log(x) / mp.log(args[1] if len(args) > 1 else 10)
        if name == "abs":
            return abs(x)
        if name in ("floor", "ceil"):
            return getattr(mp, name)(x)
        if name == "factorial":
            if abs(x) > 10**9:
                raise TooBig("a factorial too large")
            return mp.factorial(x)
        if name in _ELEMENTARY:
            if abs(x) > 10**30:
                raise TooBig("an argument too large")
            return getattr(mp, _ELEMENTARY[name])(x)
        raise Unreadable(name)


_ELEMENTARY = {name: name for name in ["sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth"]} | {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh",
}  # fmt: skip


def _sized(value: Any) -> Any:
    mp = mpmath_context()
    if not mp.isfinite(value):
        raise ZeroDivisionError
    if value and abs(mp.mag(value)) > 3.33 * MAX_LOG10:
        raise TooBig("a number too large")
    return value


def _power(base: Any, exponent: Any) -> Any:
    mp = mpmath_context()
    if base == 0:
        if mp.re(exponent) <= 0:
            raise ZeroDivisionError
        return mp.mpf(0)
    if abs(exponent) * (abs(mp.mag(base)) + 1) > MAX_LOG10:
        raise TooBig("a power too large")
    return _sized(mp.power(base, exponent))


def _root(value: Any, index: Any) -> Any:
    """The principal root; an odd root of a negative real number is the real one, as in school."""
    mp = mpmath_context()
    if index == 0:
        raise ZeroDivisionError
    if mp.im(value) == 0 and mp.re(value) < 0 and mp.isint(index) and int(index) % 2 == 1:
        return -_power(-value, 1 / index)
    return mp.sqrt(value) if index == 2 else _power(value, 1 / index)
