"""Equations and inequalities: named values, and relations that are the same up to a factor."""

from fractions import Fraction

from r1cli.rewards.math.evaluate import Numbers
from r1cli.rewards.math.nodes import Add, Apply, Const, Func, Mul, Node, Num, Pow, Ratio, Rel, Seq, Sym, Text, Unreadable
from r1cli.rewards.math.scalars import point, same_value, symbols
from r1cli.rewards.math.sets import FLIPPED, as_set, same_set

_NAMING_FUNCTIONS = frozenset(["abs", "sin", "cos", "tan", "cot", "sec", "csc", "det", "ln", "log"])


def name_and_value(node: Rel) -> tuple[str | None, Node]:
    """(name, value) of `x = value`, `f(x) = value`, `|AB| = value`, `A:B = value`, `(p, q) = value`, of chains that end in the value, and
    of arithmetic written out (`12 * 3 = 36`, named ""). (None, node) for other relations, such as `x + y = 3`, which name nothing.
    """
    if set(node.ops) != {"="}:
        return None, node
    first, last = node.sides[0], node.sides[-1]
    name = _name(first)
    if name is not None and _is_value_of(last, first):
        return name, last
    name = _name(last)
    if name is not None and len(node.sides) == 2 and _is_value_of(first, last):
        return name, first
    if _states_arithmetic(node):
        return "", last
    return None, node


def _is_value_of(value: Node, name: Node) -> bool:
    """A value does not hold the name it is given to."""
    try:
        return not symbols(value) & symbols(name) or not isinstance(name, Sym)
    except Unreadable:
        return True


def _states_arithmetic(node: Rel) -> bool:
    try:
        return all(not symbols(side) for side in node.sides) and same_value(node.sides[-1], node.sides[0])
    except Unreadable:
        return False


def _name(node: Node) -> str | None:
    """How a node reads as the name of a quantity, or None when it is more than that."""
    if isinstance(node, Sym | Text):
        return node.name if isinstance(node, Sym) else node.words
    if isinstance(node, Const) and node.name != "inf":
        return node.name
    if isinstance(node, Apply):
        return repr(node)
    if isinstance(node, Func) and node.name in _NAMING_FUNCTIONS and all(_name(arg) for arg in node.args):
        return repr(node)
    if isinstance(node, Pow) and isinstance(node.exponent, Num) and node.exponent.value == -1 and (inner := _name(node.base)):
        return f"1/{inner}"  # NO/BO
    parts: tuple[Node, ...] = ()
    if isinstance(node, Mul):
        parts = node.factors
    elif isinstance(node, Ratio):
        parts = node.parts
    elif isinstance(node, Seq) and node.left in ("(", ""):
        parts = node.items
    names = [_name(part) for part in parts]
    return " ".join(name or "" for name in names) if names and all(names) else None


def same_relation(gold: Rel, answer: Rel) -> bool:
    """Whether two relations say the same: written alike, mirrored, the same set of one variable, or one a multiple of the other."""
    if gold == answer or _mirrored(answer) == gold:
        return True
    if len(gold.ops) == 1 and len(answer.ops) == 1:
        verdict = _one_each(gold, answer)
        if verdict is not None:
            return verdict
    if len(gold.ops) == len(answer.ops) and (_same_sides(gold, answer) or _same_sides(gold, _mirrored(answer))):
        return True
    if set(gold.ops) == {"="} or set(answer.ops) == {"="}:
        return False
    try:
        if symbols_of(gold) != symbols_of(answer):
            return False
        return same_set(as_set(gold), as_set(answer))
    except Unreadable:
        return False


def symbols_of(relation: Rel) -> frozenset[str]:
    """Every free symbol of its sides."""
    return frozenset().union(*map(symbols, relation.sides))


def _mirrored(node: Rel) -> Rel:
    if not set(node.ops) <= set(FLIPPED):
        return node  # A in B says nothing of B in A
    return Rel(tuple(FLIPPED[op] for op in reversed(node.ops)), tuple(reversed(node.sides)))


def _same_sides(gold: Rel, answer: Rel) -> bool:
    try:
        return gold.ops == answer.ops and all(same_value(g, a) for g, a in zip(gold.sides, answer.sides, strict=True))
    except Unreadable:
        return False


def _one_each(gold: Rel, answer: Rel) -> bool | None:
    """Two relations of two sides: left minus right of one is a constant multiple of the other's; None when they are of another kind."""
    (g_op,), (a_op,) = gold.ops, answer.ops
    if g_op not in FLIPPED or a_op not in FLIPPED:
        return None
    named_gold, named_answer = name_and_value(gold), name_and_value(answer)
    if named_gold[0] and not symbols(named_gold[1]) and not (named_answer[0] and not symbols(named_answer[1])):
        return False  # x = 5 is asked for: 2x = 10 has not said it
    names = sorted(symbols_of(gold) | symbols_of(answer))
    if not names:
        return None
    ratios = []
    for k in range(3):
        at = point(names, k)
        try:
            g, a = (Numbers(at).value(_difference(relation)) for relation in (gold, answer))
        except ZeroDivisionError:
            continue
        if g == 0 or a == 0:
            if g != a:
                return False
            continue
        ratios.append(g / a)
    if not ratios or any(abs(r - ratios[0]) > 1e-40 * abs(ratios[0]) for r in ratios) or len(ratios) < 2:
        return False
    if g_op in ("=", "!="):
        return a_op == g_op
    return not ratios[0].imag and a_op == (g_op if ratios[0].real > 0 else FLIPPED[g_op])


def _difference(relation: Rel) -> Node:
    return Add((relation.sides[0], Mul((Num(Fraction(-1)), relation.sides[1]))))
