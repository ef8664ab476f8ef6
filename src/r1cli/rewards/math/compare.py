"""Is an answer's tree the gold's: lists, tuples, sets, intervals, equations, inequalities, ratios, matrices, and single values.

The gold decides what kind of thing is asked for; an answer that offers several values for one gold is never right.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import product

from r1cli.rewards.math.matrices import as_matrix
from r1cli.rewards.math.nodes import (
    Add,
    Apply,
    Based,
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
from r1cli.rewards.math.relations import name_and_value, same_relation
from r1cli.rewards.math.scalars import same_value, symbols
from r1cli.rewards.math.sets import as_set, same_set
from r1cli.rewards.math.signs import both_signs, has_signs

MAX_ITEMS = 64
_ONE = Fraction(1)
_ROUND = ("(", "<")
_UNKNOWNS = frozenset(("x", "z", "t", "r", "\\lambda"))


def same_answer(gold: Node, answer: Node) -> bool:
    """Whether the answer is the gold. Raises `Unreadable` when this stage cannot tell, `TooBig` when no stage should."""
    if isinstance(gold, Text) or isinstance(answer, Text):
        return gold == answer
    if _is_set(gold) or _is_set(answer):
        return _same_brackets(_unnamed_set(gold), _unnamed_set(answer))
    gold_items, answer_items = _alternatives(gold), _alternatives(answer)
    if len(gold_items) == 1 and len(answer_items) == 1:
        return _same_one(gold_items[0], answer_items[0])
    return _same_list(gold, gold_items, answer, answer_items)


# -- several values -----------------------------------------------------------------------------------------------------------


def _alternatives(node: Node) -> list[Node]:
    """The values a node lists: items of a bare list or of braces, both signs of plus-minus; one item for anything else."""
    if isinstance(node, Rel) and node.ops == ("in",) and isinstance(node.sides[1], Seq) and node.sides[1].left == "{":
        return _alternatives(node.sides[1])
    if isinstance(node, Rel) and set(node.ops) == {"="} and isinstance(node.sides[-1], Seq) and node.sides[-1].left == "{":
        return _alternatives(node.sides[-1])
    if isinstance(node, Seq) and (node.left, node.right) in (("", ""), ("{", "}")):
        whole = node.left == "{" or len(node.items) > 1  # a set among others, or within one, is a member
        return [value for item in node.items for value in ([item] if whole and _in_braces(item) else _alternatives(item))]
    return both_signs(node) if has_signs(node) else [node]


def _in_braces(node: Node) -> bool:
    return isinstance(node, Seq) and node.left == "{"


def _grouped(items: list[Node]) -> list[Node]:
    """`p = 5, q = 2, p = 7, q = 2` as the tuples (5, 2), (7, 2); other lists as they are."""
    named = [name_and_value(item) if isinstance(item, Rel) else (None, item) for item in items]
    names = [name for name, _ in named]
    width = names.index(names[0], 1) if names and names[0] is not None and names[0] in names[1:] else 0
    if width < 2 or len(names) % width or names != names[:width] * (len(names) // width):
        return items
    return [Seq("(", ")", tuple(value for _, value in named[n : n + width])) for n in range(0, len(items), width)]


def _roots(items: list[Node]) -> list[Node] | None:
    """`x_1 = 3, x_2 = -2` as `x = 3, x = -2`: numbered solutions of one unknown, whose order says nothing; None for other lists."""
    named = [name_and_value(item) if isinstance(item, Rel) else (None, item) for item in items]
    parts = [(name or "").partition("_") for name, _ in named]
    bases, numbers = {base for base, _, _ in parts}, {number for _, _, number in parts}
    if len(items) < 2 or len(bases) != 1 or not bases <= _UNKNOWNS or len(numbers) < len(items) or not all(map(str.isdigit, numbers)):
        return None
    return [Rel(("=",), (Sym(next(iter(bases))), value)) for _, value in named]


def _same_list(gold: Node, gold_items: list[Node], answer: Node, answer_items: list[Node]) -> bool:
    gold_items, answer_items = _grouped(gold_items), _grouped(answer_items)
    roots = _roots(gold_items), _roots(answer_items)
    if (roots[0] is None) != (roots[1] is None):
        gold_items, answer_items = roots[0] or gold_items, roots[1] or answer_items
    if max(len(gold_items), len(answer_items)) > MAX_ITEMS:
        return len(gold_items) == len(answer_items) and gold_items == answer_items
    opened = _as_tuple(gold), _as_tuple(answer)
    if any(opened):  # one side is a tuple, the other a list: the same values in the same order
        g, a = (tuple_items or items for tuple_items, items in zip(opened, (gold_items, answer_items), strict=True))
        if not any(isinstance(x, Seq) and x.left == "{" for x in (gold, answer)) and len(g) == len(a) and len(g) > 1:
            return _same_in_order(g, a)
    if _sets_apply(gold) or _sets_apply(answer):
        return same_set(as_set(_as_conditions(gold)), as_set(_as_conditions(answer)))
    ordered = _ordered(gold_items, answer_items) or _words_in_order(gold)
    gold_set, answer_set = (items if ordered else _distinct(items) for items in (gold_items, answer_items))
    if len(gold_set) != len(answer_set):
        return False
    if ordered:
        return _same_in_order(gold_set, answer_set)
    return _matched(gold_set, answer_set)


def _as_conditions(node: Node) -> Node:
    """A relation with plus-minus as both: x is neither 1 nor -1."""
    return Seq("", "", tuple(both_signs(node)), "and") if isinstance(node, Rel) and has_signs(node) else node


def _sets_apply(node: Node) -> bool:
    """Whether a list is one set written in parts: inequalities or intervals."""
    if isinstance(node, SetOp | Builder):
        return True
    if isinstance(node, Rel):
        return bool(set(node.ops) - {"=", "in"})
    return (
        isinstance(node, Seq)
        and not node.left
        and all(isinstance(i, Rel) and set(i.ops) - {"="} and i.ops != ("notin",) for i in node.items)
    )


def _distinct(items: list[Node]) -> list[Node]:
    return list(dict.fromkeys(items))


def _ordered(gold: list[Node], answer: list[Node]) -> bool:
    """Whether order tells the values apart: named values of different names against bare ones, or a list that is cut by dots."""
    if any(item == Sym("…") for item in (*gold, *answer)):
        return True
    named = [[name_and_value(item)[0] if isinstance(item, Rel) else None for item in items] for items in (gold, answer)]
    return any(_all_named(one) and not any(other) for one, other in (named, named[::-1]))


def _words_in_order(gold: Node) -> bool:
    """Whether a gold lists three words or more with commas only, as a sorted list does."""
    return isinstance(gold, Seq) and gold.joiner == "," and sum(isinstance(item, Text) for item in gold.items) > 2


def _all_named(names: list[str | None]) -> bool:
    return None not in names and len(set(names)) == len(names)


def _matched(gold: list[Node], answer: list[Node]) -> bool:
    left = list(answer)
    for g in gold:
        found = next((n for n, a in enumerate(left) if _same_member(g, a)), None)
        if found is None:
            return False
        del left[found]
    return True


def _same_in_order(gold: Sequence[Node], answer: Sequence[Node]) -> bool:
    return len(gold) == len(answer) and all(_same_member(g, a) for g, a in zip(gold, answer, strict=True))


def _same_member(gold: Node, answer: Node) -> bool:
    """Two members of lists; what has no value equals only what is written alike."""
    try:
        return same_answer(gold, answer)
    except Unreadable:
        return gold == answer


# -- one value ----------------------------------------------------------------------------------------------------------------


def _same_one(gold: Node, answer: Node) -> bool:
    gold, answer = _unwrapped(_unnamed_set(gold)), _unwrapped(_unnamed_set(answer))
    if isinstance(gold, Rel) or isinstance(answer, Rel):
        return _with_relations(gold, answer)
    for kind, same in ((Matrix, _same_matrix), (Ratio, _same_ratio), (Based, _same_digits)):
        if isinstance(gold, kind) or isinstance(answer, kind):
            return same(gold, answer)
    if isinstance(gold, Seq | SetOp | Builder) or isinstance(answer, Seq | SetOp | Builder):
        return _same_brackets(gold, answer)
    return same_value(gold, answer)


def _unnamed_set(node: Node) -> Node:
    """`x in A` as A."""
    if isinstance(node, Rel) and node.ops == ("in",):
        return node.sides[1]
    return node


def _is_set(node: Node) -> bool:
    return isinstance(node, SetOp | Builder)


def _unwrapped(node: Node) -> Node:
    """The only item of a pair of braces or square brackets."""
    return node.items[0] if isinstance(node, Seq) and len(node.items) == 1 and node.left in ("[", "{") else node


def _with_relations(gold: Node, answer: Node) -> bool:
    if isinstance(gold, Rel) and isinstance(answer, Rel):
        gold_name, answer_name = name_and_value(gold), name_and_value(answer)
        if gold_name[0] is not None and answer_name[0] is not None and gold_name[0] == answer_name[0]:
            return same_answer(gold_name[1], answer_name[1])
        if _graph(gold_name) and _graph(answer_name):
            return same_answer(gold_name[1], answer_name[1])
        return same_relation(gold, answer)
    relation, other = (gold, answer) if isinstance(gold, Rel) else (answer, gold)
    assert isinstance(relation, Rel)
    name, value = name_and_value(relation)
    if name is not None:
        return same_answer(value, other) if relation is gold else same_answer(other, value)
    if set(relation.ops) - {"="} and isinstance(other, Seq | SetOp | Builder | Sym):
        return same_set(as_set(gold), as_set(answer))
    return False


def _graph(named: tuple[str | None, Node]) -> bool:
    """Whether `y = value` or `f(x) = value` gives a function of x."""
    if named[0] is None or not (named[0] == "y" or named[0] == repr(Apply("f", (Sym("x"),)))):
        return False
    try:
        return symbols(named[1]) == {"x"}
    except Unreadable:
        return False


def _as_tuple(node: Node) -> list[Node] | None:
    """The items of a tuple or of a column or row, None for anything else."""
    if isinstance(node, Seq) and node.left in _ROUND and node.right in (")", ">"):
        return list(node.items)
    if isinstance(node, Apply) and node.name.isupper() and len(node.args) > 1:
        return list(node.args)  # the point P(3, -4)
    if isinstance(node, Matrix) and len(node.rows) == 1:
        return list(node.rows[0])
    if isinstance(node, Matrix) and all(len(row) == 1 for row in node.rows):
        return [row[0] for row in node.rows]
    if isinstance(node, Rel) and (value := name_and_value(node))[0] is not None and isinstance(value[1], Seq):
        return _as_tuple(value[1])
    return None


def _same_brackets(gold: Node, answer: Node) -> bool:
    gold_tuple, answer_tuple = _as_tuple(gold), _as_tuple(answer)
    if gold_tuple is not None and answer_tuple is not None:
        return _same_in_order(gold_tuple, answer_tuple)
    if isinstance(gold, Seq) and isinstance(answer, Seq) and (gold.left, gold.right) == (answer.left, answer.right):
        return _same_in_order(gold.items, answer.items)
    if isinstance(gold, Builder) and gold == answer:
        return True
    if any(isinstance(x, Num | Add | Mul | Pow | Func) for x in (gold, answer)):
        return False
    return same_set(as_set(gold), as_set(answer))


def _same_matrix(gold: Node, answer: Node) -> bool:
    gold, answer = as_matrix(gold), as_matrix(answer)
    if isinstance(gold, Matrix) and isinstance(answer, Matrix):
        if [len(row) for row in gold.rows] != [len(row) for row in answer.rows]:
            return False
        pairs = (pair for rows in zip(gold.rows, answer.rows, strict=True) for pair in zip(*rows, strict=True))
        return all(_same_member(g, a) for g, a in pairs)
    gold_tuple, answer_tuple = _as_tuple(gold), _as_tuple(answer)
    if gold_tuple is None or answer_tuple is None:
        if isinstance(gold, Add | Mul | Pow) or isinstance(answer, Add | Mul | Pow):
            raise Unreadable("arithmetic of matrices")
        return False
    return _same_in_order(gold_tuple, answer_tuple)


def _same_ratio(gold: Node, answer: Node) -> bool:
    """a:b equals c:d when the quotients agree; a clock's minutes (two digits after the colon) are read the same way."""
    sides = [list(n.parts) if isinstance(n, Ratio) else [n, Num(_ONE)] for n in (gold, answer)]
    if len(sides[0]) != len(sides[1]):
        return False
    if any(isinstance(part, Num) and part.value == 0 for parts in sides for part in parts):
        return all(same_value(g, a) for g, a in zip(*sides, strict=True))  # 12:00 is no quotient
    return all(
        same_value(Mul((sides[0][i], sides[1][j])), Mul((sides[0][j], sides[1][i]))) for i, j in product(range(1), range(1, len(sides[0])))
    )


def _same_digits(gold: Node, answer: Node) -> bool:
    """Digits in a base: the same digits, and the same base where both name it; base ten is any number's own."""
    if isinstance(gold, Based) and isinstance(answer, Based):
        return gold == answer
    based, other = (gold, answer) if isinstance(gold, Based) else (answer, gold)
    assert isinstance(based, Based)
    return isinstance(other, Num) and other.places is None and str(other.value) == based.digits
