"""Sets of real numbers as sorted intervals: from brackets, unions, inequalities in one variable, and conditions in braces.

Only what has closed form bounds by linear steps is read (`2x + 1 < 5`, `|x - 2| <= 1`, `x != 0`); anything else is `Unreadable` here.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cmp_to_key
from typing import Any

from r1cli.rewards.math.evaluate import Irrational, Numbers, exact
from r1cli.rewards.math.nodes import Add, Builder, Func, Mul, Node, Num, Rel, Seq, SetOp, Sym, Unreadable
from r1cli.rewards.math.scalars import infinite, real_value, symbols

FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}


@dataclass(frozen=True, slots=True)
class Interval:
    """low < or <= x < or <= high; a bound is a number, or None for infinity."""

    low: Any | None
    low_in: bool
    high: Any | None
    high_in: bool


LINE = Interval(None, False, None, False)
RealSet = list[Interval]


def as_set(node: Node) -> RealSet:
    """The real numbers a node describes, as disjoint intervals in order. Raises `Unreadable` when it describes none in this way."""
    if isinstance(node, Seq) and node.left in ("(", "[", "]") and len(node.items) == 2:
        return [_interval(node)]
    if isinstance(node, Seq) and (node.left, node.right) == ("{", "}"):
        return _union([[Interval(v, True, v, True)] for v in map(_bound, node.items)])
    if isinstance(node, Seq) and not node.left:
        return _listed(node)
    if isinstance(node, SetOp):
        return _combined(node)
    if isinstance(node, Sym) and node.name in (r"\R", r"\Reals"):
        return [LINE]
    if isinstance(node, Builder):
        variable = node.variable.sides[0] if isinstance(node.variable, Rel) else node.variable
        if isinstance(variable, Sym) and isinstance(node.condition, Rel | Seq):
            return as_set(node.condition)
    if isinstance(node, Rel):
        return _of_relation(node)
    raise Unreadable("not a set of reals")


def _listed(node: Seq) -> RealSet:
    """Relations joined by `or` are a union, by `and` or a comma an intersection; sets are a union."""
    parts = [as_set(item) for item in node.items]
    if all(isinstance(item, Rel) and item.ops[0] != "in" for item in node.items) and node.joiner != "or":
        result = parts[0]
        for part in parts[1:]:
            result = _intersection(result, part)
        if not result:  # x < 1, x > 3: a comma between what excludes each other means or
            return _union(parts)
        return result
    return _union(parts)


def _combined(node: SetOp) -> RealSet:
    parts = [as_set(part) for part in node.parts]
    if node.op == "cup":
        return _union(parts)
    if node.op == "minus":
        return _intersection(parts[0], _complement(parts[1]))
    return _intersection(parts[0], parts[1])


def _interval(node: Seq) -> Interval:
    low, high = node.items
    left_in, right_in = node.left == "[", node.right == "]"
    low_bound = None if infinite(low) == -1 else _bound(low)
    high_bound = None if infinite(high) == 1 else _bound(high)
    if low_bound is not None and high_bound is not None and _number(low_bound) > _number(high_bound):
        raise Unreadable("an interval backwards")
    return Interval(low_bound, left_in, high_bound, right_in)  # a bracket that closes at infinity stays wrong


def _bound(node: Node) -> Any:
    if symbols(node):
        raise Unreadable("a bound with a symbol")
    value = real_value(node)
    if value is None:
        raise Unreadable("a bound without a value")
    return value


def variable_of(node: Rel) -> str:
    """The only symbol of a relation. Raises `Unreadable` when there is none or more than one."""
    names = frozenset().union(*(symbols(side) for side in node.sides))
    if len(names) != 1:
        raise Unreadable("not a relation in one variable")
    return next(iter(names))


def _of_relation(node: Rel) -> RealSet:
    if node.ops == ("in",):
        return as_set(node.sides[1])
    if not set(node.ops) <= set(FLIPPED):
        raise Unreadable("not an inequality")
    name, result = variable_of(node), [LINE]
    for left, op, right in zip(node.sides, node.ops, node.sides[1:], strict=False):
        result = _intersection(result, _solved(Add((left, Mul((Num(Fraction(-1)), right)))), op, name, left, right))
    return result


def _solved(difference: Node, op: str, name: str, left: Node, right: Node) -> RealSet:
    """{name : difference op 0} for a difference that is linear in the name or in one absolute value of it."""
    for side, other, relation in ((left, right, op), (right, left, FLIPPED[op])):
        if isinstance(side, Func) and side.name == "abs" and not symbols(other):
            return _absolute(side.args[0], relation, other, name)
    slope, offset = linear(difference, name)
    bound = -offset / slope
    return _half_line(bound, op if slope > 0 else FLIPPED[op])


def _absolute(inside: Node, op: str, bound: Node, name: str) -> RealSet:
    low = Add((inside, bound))
    high = Add((inside, Mul((Num(Fraction(-1)), bound))))
    if op in ("<", "<="):
        return _intersection(_solved(low, FLIPPED[op], name, low, bound), _solved(high, op, name, high, bound))
    if op in (">", ">="):
        return _union([_solved(low, FLIPPED[op], name, low, bound), _solved(high, op, name, high, bound)])
    raise Unreadable("an equation of an absolute value")


def linear(node: Node, name: str) -> tuple[Any, Any]:
    """(slope, offset) of slope * name + offset. Raises `Unreadable` for other functions."""
    try:
        values = [exact(node, {name: Fraction(x)}) for x in (0, 1, 2, 5)]
    except (Irrational, ZeroDivisionError):
        values = [_at(node, name, x) for x in (0, 1, 2, 5)]
    slope = values[1] - values[0]
    for x, value in ((2, values[2]), (5, values[3])):
        if abs(value - (values[0] + x * slope)) > abs(value) * 1e-30:
            raise Unreadable("not linear")
    if slope == 0:
        raise Unreadable("not a condition")
    return slope, values[0]


def _at(node: Node, name: str, x: int) -> Any:
    try:
        value = Numbers({name: Fraction(x)}).value(node)
    except ZeroDivisionError:
        raise Unreadable("not linear") from None
    if value.imag:
        raise Unreadable("not real")
    return value


def _half_line(bound: Any, op: str) -> RealSet:
    if op == "=":
        return [Interval(bound, True, bound, True)]
    if op == "!=":
        return [Interval(None, False, bound, False), Interval(bound, False, None, False)]
    if op in ("<", "<="):
        return [Interval(None, False, bound, op == "<=")]
    return [Interval(bound, op == ">=", None, False)]


# -- algebra ------------------------------------------------------------------------------------------------------------------


def same_number(a: Any, b: Any) -> bool:
    """Whether two bounds are equal, at 40 digits when inexact."""
    if a is None or b is None:
        return a is b
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    left, right = _number(a), _number(b)
    return bool(abs(left - right) <= 1e-40 * max(1, abs(left)))


def _number(x: Any) -> Any:
    return Numbers({}).value(Num(x)) if isinstance(x, Fraction) else x


def _low_first(a: Interval, b: Interval) -> int:
    if same_number(a.low, b.low):
        return b.low_in - a.low_in
    return -1 if a.low is None or (b.low is not None and _number(a.low) < _number(b.low)) else 1


def _union(parts: list[RealSet]) -> RealSet:
    merged: RealSet = []
    for interval in sorted((i for part in parts for i in part), key=cmp_to_key(_low_first)):
        if merged and _touches(merged[-1], interval):
            merged[-1] = _joined(merged[-1], interval)
        else:
            merged.append(interval)
    return merged


def _touches(a: Interval, b: Interval) -> bool:
    if a.high is None or b.low is None:
        return True
    if same_number(a.high, b.low):
        return a.high_in or b.low_in
    return bool(_number(b.low) < _number(a.high))


def _joined(a: Interval, b: Interval) -> Interval:
    if a.high is None or (b.high is not None and not same_number(a.high, b.high) and _number(b.high) < _number(a.high)):
        return a
    high_in = b.high_in or (a.high_in and same_number(a.high, b.high))
    return Interval(a.low, a.low_in, b.high, high_in)


def _complement(of: RealSet) -> RealSet:
    result, low, low_in, open_end = [], None, False, True
    for interval in of:
        if interval.low is not None:
            result.append(Interval(low, low_in, interval.low, not interval.low_in))
        low, low_in, open_end = interval.high, not interval.high_in, interval.high is not None
    return [*result, Interval(low, low_in, None, False)] if open_end else result


def _intersection(a: RealSet, b: RealSet) -> RealSet:
    return _complement(_union([_complement(a), _complement(b)]))


def same_set(a: RealSet, b: RealSet) -> bool:
    """Whether two sets have the same intervals."""
    return len(a) == len(b) and all(
        same_number(p.low, q.low) and same_number(p.high, q.high) and (p.low_in, p.high_in) == (q.low_in, q.high_in)
        for p, q in zip(a, b, strict=True)
    )
