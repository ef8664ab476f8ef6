"""Plus-minus: one text for two values. All signs of one text go together, minus-plus against them."""

from collections.abc import Sequence
from fractions import Fraction

from r1cli.rewards.math.nodes import Add, Apply, Degree, Func, Mul, Node, Num, Percent, PlusMinus, Pow, Rel, Seq

_MINUS_ONE = Num(Fraction(-1))


def has_signs(node: object) -> bool:
    """Whether plus-minus stands anywhere in it."""
    if isinstance(node, PlusMinus):
        return True
    return any(has_signs(child) for child in _children(node))


def _children(node: object) -> Sequence[object]:
    if isinstance(node, tuple):
        return node
    if isinstance(node, Add):
        return node.terms
    if isinstance(node, Mul):
        return node.factors
    if isinstance(node, Pow):
        return (node.base, node.exponent)
    if isinstance(node, Func | Apply):
        return node.args
    if isinstance(node, Rel):
        return node.sides
    if isinstance(node, Seq):
        return node.items
    if isinstance(node, Percent | Degree):
        return (node.body,)
    return ()


def both_signs(node: Node) -> list[Node]:
    plus, minus = (_with_sign(node, sign) for sign in (1, -1))
    return [plus, minus]


def _with_sign(node: Node, sign: int) -> Node:
    """The node with plus-minus read as `sign`, and minus-plus as the other."""
    if isinstance(node, PlusMinus):
        body = _with_sign(node.body, sign)
        return body if node.sign * sign > 0 else Mul((_MINUS_ONE, body))
    if isinstance(node, Add):
        return Add(tuple(_with_sign(n, sign) for n in node.terms))
    if isinstance(node, Mul):
        return Mul(tuple(_with_sign(n, sign) for n in node.factors))
    if isinstance(node, Pow):
        return Pow(_with_sign(node.base, sign), _with_sign(node.exponent, sign))
    if isinstance(node, Func):
        return Func(node.name, tuple(_with_sign(n, sign) for n in node.args))
    if isinstance(node, Rel):
        return Rel(node.ops, tuple(_with_sign(n, sign) for n in node.sides))
    if isinstance(node, Seq):
        return Seq(node.left, node.right, tuple(_with_sign(n, sign) for n in node.items), node.joiner)
    if isinstance(node, Percent | Degree):
        return type(node)(_with_sign(node.body, sign))
    return node
