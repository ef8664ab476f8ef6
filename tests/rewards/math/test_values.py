"""Values, sets and trees against numbers worked out by hand, and against sympy."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1cli.rewards.math.evaluate import Irrational, Numbers, exact
from r1cli.rewards.math.nodes import Num, Rel, Seq, TooBig, Unreadable
from r1cli.rewards.math.scalars import same_value
from r1cli.rewards.math.sets import Interval, as_set
from r1cli.rewards.math.structure import parse


def value(text: str) -> Fraction:
    return exact(parse(text).tree, {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\frac43", Fraction(4, 3)),
        (r"\frac{270}7", Fraction(270, 7)),
        (r"3\frac{1}{2}", Fraction(7, 2)),
        (r"-3 \frac{1}{2}", Fraction(-7, 2)),
        (r"2\frac{3}{2}", Fraction(3)),  # improper: a product
        ("1 1/2", Fraction(3, 2)),
        (r"0.1\overline{6}", Fraction(1, 6)),
        (r"\binom{5}{2}", Fraction(10)),
        ("2^{-3}", Fraction(1, 8)),
        ("2^3^2", Fraction(512)),
        ("-3^2", Fraction(-9)),
        ("1.5e3", Fraction(1500)),
        (r"\sum_{k=1}^{4} k^2", Fraction(30)),
        (r"\gcd(12,18)", Fraction(6)),
        (r"\lfloor 2.7 \rfloor", Fraction(2)),
        (r"|{-3}|", Fraction(3)),
        ("5!", Fraction(120)),
        (r"\sqrt{\frac{9}{4}}", Fraction(3, 2)),
        ("6/2/3", Fraction(1)),
        ("50\\%", Fraction(1, 2)),
    ],
)
def test_exact_values(text: str, expected: Fraction) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\sin 30^\circ", 0.5), (r"\log_2 8", 3.0), (r"\sqrt[3]{-8}", -2.0), (r"\tan^{-1} 1", math.pi / 4),
        (r"\cos^2 1", math.cos(1) ** 2),
        (r"2\sin\frac{\pi}{6}\cos 0", 1.0), (r"e^{\ln 5}", 5.0), ("\\ln 2x", None),
    ],
)  # fmt: skip
def test_numbers(text: str, expected: float | None) -> None:
    tree = parse(text).tree
    if expected is None:
        assert float(Numbers({"x": Fraction(3)}).value(tree)) == pytest.approx(math.log(6))
    else:
        assert float(Numbers({}).value(tree).real) == pytest.approx(expected, rel=1e-12)


@given(st.integers(-(10**6), 10**6), st.integers(1, 10**6))
def test_every_fraction_is_read_back(top: int, bottom: int) -> None:
    assert value(rf"\frac{{{top}}}{{{bottom}}}") == value(f"{top}/{bottom}") == Fraction(top, bottom)


@given(st.integers(0, 10**12))
def test_thousands_separators_change_nothing(n: int) -> None:
    from r1cli.rewards.math.verify import Side, equal

    for written in (f"{n:,}", f"{n:,}".replace(",", "{,}"), f"{n:,}".replace(",", r",\!"), f"{n:,}".replace(",", " ")):
        assert equal(Side(str(n)), Side(written)) is True


@pytest.mark.parametrize("text", ["x^2 + \\sin x", r"\frac{x^2-1}{x-1}", r"\sqrt{x^2+1}", r"e^{-x}\cos 2x", r"\ln(x+3)", r"(x+1)^3"])
def test_functions_have_sympys_values(text: str) -> None:
    import sympy
    from latex2sympy2_extended import latex2sympy

    oracle = latex2sympy(text)
    (symbol,) = oracle.free_symbols
    ours = Numbers({"x": Fraction(7, 3)}).value(parse(text).tree)
    assert float(ours) == pytest.approx(float(oracle.subs(symbol, sympy.Rational(7, 3)).evalf(30)), rel=1e-14)


@pytest.mark.parametrize("text", ["100001!", "9^{99999}", r"\binom{100000}{50000}", r"\sum_{k=1}^{5000} k"])
def test_what_grows_too_large_is_not_computed(text: str) -> None:
    with pytest.raises(TooBig):
        value(text)


def test_the_irrational_is_left_to_numbers() -> None:
    with pytest.raises(Irrational):
        value(r"\sqrt{2}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1,2)", [Interval(Fraction(1), True, Fraction(2), False)]),
        (r"(-\infty,3]", [Interval(None, False, Fraction(3), True)]),
        ("2x+1<5", [Interval(None, False, Fraction(2), False)]),
        ("-x>-1", [Interval(None, False, Fraction(1), False)]),
        (r"|x-2|\le 1", [Interval(Fraction(1), True, Fraction(3), True)]),
        (r"[0,1]\cup(1,2)", [Interval(Fraction(0), True, Fraction(2), False)]),
        (r"[0,2]\setminus\{1\}", [Interval(Fraction(0), True, Fraction(1), False), Interval(Fraction(1), False, Fraction(2), True)]),
        (r"\{x \mid x>0\}\cap(-1,1]", [Interval(Fraction(0), False, Fraction(1), True)]),
    ],
)
def test_sets_of_reals(text: str, expected: list[Interval]) -> None:
    assert as_set(parse(text).tree) == expected


def test_a_tuple_backwards_is_no_interval() -> None:
    with pytest.raises(Unreadable):
        as_set(parse("(3,1)").tree)


def test_trees() -> None:
    assert parse("(1,2]").tree == Seq("(", "]", (Num(Fraction(1)), Num(Fraction(2))))
    chain = parse(r"0 \le x < 1").tree
    assert isinstance(chain, Rel)
    assert chain.ops == ("<=", "<")
    assert parse(r"5\text{ cm}^2").units == ("cm^2",)


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("33.3", r"\frac{100}{3}", True),  # rounds to the gold's digits
        ("33.3", "33.4", False),
        ("33.30", "33.3", True),
        ("3.3", r"\frac{10}{3}", False),  # two digits are too few to stand for a value
        (r"\frac{1}{7}", "0.142857", True),
        (r"\frac{1}{7}", "0.142858", False),
        (r"\frac{1}{7}", "0.14", False),
        (r"\sqrt{2}", "1.41421", False),
        (r"\sqrt{2}", "1.41421356237", True),
        (r"\sqrt{x^2}", "x", False),
        (r"x\sqrt{x}", "x^{3/2}", True),
        (r"\frac{1}{1000!}", r"\frac{1}{1001!}", False),
        ("e^{-50}", "e^{-60}", False),
        (r"\sqrt{2}\sqrt{2}-2", "0", True),
        ("10^{-40}", "0", False),
    ],
)
def test_rounding_branches_and_cancellation(gold: str, answer: str, equal: bool) -> None:
    assert same_value(parse(gold).tree, parse(answer).tree) is equal
