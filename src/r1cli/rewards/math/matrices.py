"""Arithmetic of matrices as written: sums, multiples and products become one matrix of expressions."""

from r1cli.rewards.math.nodes import Add, Matrix, Mul, Node, Seq, TooBig

MAX_CELLS = 400
Rows = tuple[tuple[Node, ...], ...]


def as_matrix(node: Node) -> Node:
    """A sum of matrices of one shape, a number times a matrix, or a product of matrices, as one matrix; anything else as it is."""
    if isinstance(node, Add):
        parts = [as_matrix(term) for term in node.terms]
        shapes = {_shape(part.rows) if isinstance(part, Matrix) else None for part in parts}
        if len(shapes) == 1 and None not in shapes:
            stacks = zip(*(part.rows for part in parts if isinstance(part, Matrix)), strict=True)
            return Matrix(tuple(tuple(Add(cell) for cell in zip(*rows, strict=True)) for rows in stacks))
    if isinstance(node, Seq) and (node.left, node.right) == ("[", "]") and all(isinstance(i, Seq) and i.left == "[" for i in node.items):
        return Matrix(tuple(item.items for item in node.items if isinstance(item, Seq)))  # [[1, 2], [3, 4]]
    if isinstance(node, Mul) and any(isinstance(factor, Matrix) for factor in node.factors):
        return _product(node)
    return node


def _shape(rows: Rows) -> tuple[int, ...]:
    return tuple(len(row) for row in rows)


def _product(node: Mul) -> Node:
    matrices = [factor.rows for factor in node.factors if isinstance(factor, Matrix)]
    numbers = tuple(factor for factor in node.factors if not isinstance(factor, Matrix))
    rows = matrices[0]
    for right in matrices[1:]:
        if set(_shape(rows)) != {len(right)} or len(set(_shape(right))) != 1:
            return node
        if len(rows) * len(right) * len(right[0]) > MAX_CELLS:
            raise TooBig("a product of large matrices")
        rows = tuple(
            tuple(Add(tuple(Mul((cell, right[k][j])) for k, cell in enumerate(row))) for j in range(len(right[0]))) for row in rows
        )
    return Matrix(tuple(tuple(Mul((*numbers, cell)) for cell in row) for row in rows)) if numbers else Matrix(rows)
