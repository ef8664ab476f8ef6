"""Hostile answers: each kind is told in bounded time, none is accepted, none raises."""

import time

import pytest

from r1cli.rewards.math.judge import judge, problem_of
from r1cli.rewards.math.lexer import MAX_DEPTH, tokens
from r1cli.rewards.math.nodes import TooBig

HOSTILE = {
    "power tower": "9^{9^{9^{9}}}",
    "python tower": "9**9**9**9",
    "reciprocal tower": r"\frac{1}{9^{9^9}}",
    "tiny": "10^{-10^{10}}",
    "float exponent": "1e999999999",
    "factorial tower": "((((3!)!)!)!)!",
    "long factorial": "100000000!",
    "huge binomial": r"\binom{10^9}{5 \cdot 10^8}",
    "long sum": r"\sum_{k=1}^{10^9} k",
    "nested sums": r"\sum_{a=1}^{900}\sum_{b=1}^{900}\sum_{c=1}^{900} abc",
    "long product": r"\prod_{k=1}^{10^8} k",
    "sine of a tower": r"\sin(10^{10^{10}})",
    "log of a tower": r"\log_2(9^{9^9})",
    "near one": "(1.0000001)^{10^{15}}",
    "nested braces": "{" * 100_000,
    "balanced braces": "{" * 3000 + "4" + "}" * 3000,
    "nested parentheses": "(" * 900 + "4" + ")" * 900,
    "nested fonts": r"\text{" * 280 + "4" + "}" * 280,
    "nested fractions": r"\frac{1}{" * 200 + "4" + "}" * 200,
    "absolute bars": "|" * 500,
    "digits": "7" * 1_000_000,
    "terms": "+".join(["x"] * 900),
    "minus signs": "-" * 1900 + "1",
    "import": "__import__('os').system('true')",
    "subclasses": "().__class__.__bases__[0].__subclasses__()",
    "macro bomb": r"\def\x{\x\x}\x",
    "nul inside": "4\x002",
    "lone surrogate": "4\ud8002",
    "override": "\u202e24",
    "combining": "e\u0301" * 2000,
    "division by zero": r"\frac{5}{0}",
    "infinity minus infinity": r"\infty-\infty",
    "every option": "0,1,2,3,4,5,6,7,8,9",
    "either": r"\text{either 5 or 6}",
    "tautology": "x=x",
    "blank": " ",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("shape", [r"The answer is $\boxed{%s}$.", "The final answer is %s", "<answer>%s</answer>", "%s"])
def test_is_refused_soon_and_without_an_error(name: str, shape: str) -> None:
    started = time.process_time()
    assert judge(shape.replace("%s", HOSTILE[name]), "5").verdict is not True
    assert time.process_time() - started < 2.0  # 1,000 times what it should take


@pytest.mark.parametrize("name", HOSTILE)
def test_as_a_gold_it_harms_nobody(name: str) -> None:
    judge(r"\boxed{5}", HOSTILE[name])


@pytest.mark.parametrize("opening", ["<answer>", "<think>", r"\boxed{", "$", r"\(", "The answer is ", "#### ", "```"])
def test_openings_that_never_close_are_read_in_linear_time(opening: str) -> None:
    started = time.process_time()
    assert judge(opening * 20_000 + "4", "5").verdict is not True
    assert time.process_time() - started < 2.0


def test_a_gold_that_is_a_tower_is_right_only_as_written() -> None:
    assert judge(r"\boxed{9^{9^9}}", "9^{9^9}").verdict is True
    assert judge(r"\boxed{9^{9^8}}", "9^{9^9}").verdict is False


def test_zero_over_zero_equals_nothing() -> None:
    assert judge(r"\boxed{\frac{0}{0}}", r"\frac{0}{0}").verdict is False


@pytest.mark.parametrize("gold", ["", " ", "$$", r"\boxed{}", r"\frac{1", r"x^2 +", r"\unknownmacro{3}"])
def test_a_gold_that_cannot_be_read_is_a_problem_of_the_data(gold: str) -> None:
    assert problem_of(gold) is not None


@pytest.mark.parametrize("gold", ["5", r"\frac{1}{2}", "Paris", "(B)", "x=1, y=2", "3:45 p.m.", "无解", "So 2+3 = 5 apples.\n#### 5"])
def test_a_gold_that_can_be_read_is_none(gold: str) -> None:
    assert problem_of(gold) is None


def test_depth_is_checked_before_parsing() -> None:
    tokens("(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH)
    with pytest.raises(TooBig):
        tokens("(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1))
