"""When an output is right: standard output as LiveCodeBench compares it, values as Python's `==` compares plain data.

LiveCodeBench (lcb_runner/evaluation/testing_util.py): both outputs are stripped and split into lines, each line is stripped; the numbers
of lines must be equal; a line is right when it is the same string, or when both lines are sequences of decimal numbers and these are
equal as decimals. Nothing is compared up to the shorter of two lengths, no order is ignored, no tolerance is given.
"""

import re
from decimal import Decimal, InvalidOperation
from typing import Any

_DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,6})?", re.ASCII)


def same_output(output: str, expected: str) -> bool:
    """Whether a program's standard output is the expected one."""
    got, want = (_lines(text) for text in (output, expected))
    return len(got) == len(want) and all(a == b or _same_decimals(a, b) for a, b in zip(got, want, strict=True))


def same_value(value: Any, expected: Any) -> bool:
    """Whether a function's value is the expected one, both plain data. A tuple counts as the list that JSON makes of it.

    Sizes are equal where values are, so nothing passes by being short; True is 1, as in Python.
    """
    try:
        return bool(_as_lists(value) == _as_lists(expected))
    except RecursionError:
        return False


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _same_decimals(a: str, b: str) -> bool:
    first, second = a.split(), b.split()
    if len(first) != len(second) or not all(_DECIMAL.fullmatch(token) for token in (*first, *second)):
        return False
    try:
        return all(Decimal(x) == Decimal(y) for x, y in zip(first, second, strict=True))
    except InvalidOperation:
        return False


def _as_lists(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_as_lists(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_lists(item) for key, item in value.items()}
    return value
