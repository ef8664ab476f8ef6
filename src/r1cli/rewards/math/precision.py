"""How many digits inexact values are computed with, and when two of them are equal."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

DIGITS = 60
MANY_DIGITS = 400


@cache
def mpmath_context() -> Any:
    import mpmath  # 60 ms: only when something irrational is compared

    context = mpmath.mp.clone()  # its precision is ours: the caller's own mpmath stays as it is
    context.dps = DIGITS
    return context


@contextmanager
def more_digits() -> Iterator[None]:
    """Compute with 400 digits inside: what is equal there too is no near miss such as 7 + e^-200."""
    context = mpmath_context()
    context.dps = MANY_DIGITS
    try:
        yield
    finally:
        context.dps = DIGITS


def close(a: Any, b: Any) -> bool:
    """Equal up to the digits computed with."""
    mp = mpmath_context()
    return bool(abs(a - b) <= mp.mpf(10) ** (20 - mp.dps) * max(abs(a), abs(b)))
