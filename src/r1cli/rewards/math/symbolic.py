r"""The last stage: sympy, for answers the grammar does not hold (integrals, limits, derivatives, matrix arithmetic).

It runs in worker processes only, where a deadline and an address-space limit hold it. Text becomes a sympy object through the grammar of
latex2sympy2_extended, which evaluates nothing (no `eval`, no `parse_expr`), and only the whole text counts: a piece of a gold is not a
gold.
"""

import re
from functools import lru_cache
from typing import Any

MAX_CHARACTERS = 300
MAX_NESTING = 6  # the cost of its ANTLR grammar grows steeply with depth
_DANGER = re.compile(r"\d{6,}|!|\^\s*\{?[^{}]*\^|\d{4,}\s*\}?\s*$")
_BARE_FRACTION = re.compile(r"\\[dt]?frac\s?(\w)\s?(\w)(?!\w*\})")  # \frac12, which its grammar reads otherwise
_POWER = re.compile(r"\^\s*\{?\s*-?(\d+)")


def warm_up() -> None:
    """Import sympy and build the parser's tables."""
    _parsed(r"\int_0^1 x dx")


def readable_by_sympy(text: str) -> bool:
    """Whether the whole of a text becomes a sympy object."""
    return _parsed(text) is not None


def same_by_sympy(gold: str, answer: str) -> bool:
    """Whether two texts are equal as sympy objects; False when either cannot be read."""
    gold_value, answer_value = _parsed(gold), _parsed(answer)
    return gold_value is not None and answer_value is not None and _same(gold_value, answer_value)


def _nested_too_deep(text: str) -> bool:
    depth = deepest = 0
    for c in text:
        depth += (c in "{([") - (c in "})]")
        deepest = max(deepest, depth)
    return deepest > MAX_NESTING


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Any | None:
    """A sympy object for the whole of a text, or None."""
    text = _BARE_FRACTION.sub(r"\\frac{\1}{\2}", text)
    if not text or len(text) > MAX_CHARACTERS or _nested_too_deep(text) or _DANGER.search(text):
        return None
    if any(len(m[1]) > 3 for m in _POWER.finditer(text)):
        return None
    from antlr4.error.Errors import ParseCancellationException
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy

    config = NormalizationConfig(basic_latex=True, units=False, malformed_operators=False, nits=True, boxed="none", equations=False)
    try:
        return latex2sympy(text, normalization_config=config, conversion_config=ConversionConfig(lowercase_symbols=False))
    except (ParseCancellationException, ValueError, TypeError, AttributeError, KeyError, IndexError, NotImplementedError, ArithmeticError):
        return None
    except Exception as error:  # its own exception classes are no subclass of anything above; a syntax error is a bare Exception
        if type(error) is Exception or type(error).__module__.startswith(("latex2sympy2_extended", "sympy", "antlr4")):
            return None
        raise


def _same(gold: Any, answer: Any) -> bool:
    import sympy

    if isinstance(gold, sympy.MatrixBase) or isinstance(answer, sympy.MatrixBase):
        return (
            isinstance(gold, sympy.MatrixBase)
            and isinstance(answer, sympy.MatrixBase)
            and gold.shape == answer.shape
            and gold.equals(answer) is True
        )
    if isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr):
        if gold == answer:
            return True
        difference = sympy.simplify((gold - answer).doit())
        return difference == 0 or difference.equals(0) is True
    return type(gold) is type(answer) and bool(gold == answer)
