r"""Hostile inputs, written without a look at how the verifier treats them: none hangs, crashes or is accepted, through the real scorer.

The kinds of the public set (towers, factorials, hopeless calculus, deep nesting, megabytes, injections, control characters), other
members.
"""

import time
from pathlib import Path

import pytest

from r1cli.rewards.registry import parse_specs
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row

SECONDS = 3.0
BOX = "The answer is $\\boxed{%s}$."
MARK = "r1-hostile-mark"

INSIDE = {  # what stands in a box; the gold is 7
    "tower of e": "e^{e^{e^{e^{e^{e}}}}}",
    "tower of parentheses": "((((9^9)^9)^9)^9)^9",
    "tower without braces": "7^7^7^7^7^7",
    "tower below the line": r"\frac{7}{1+10^{-10^{10^{10}}}}",
    "power of a power": r"(2^{1000000})^{1000000}",
    "python tower": "7**7**7**7**7",
    "double factorials": "99999!!!",
    "factorial of a power": "(10^9)!",
    "factorial quotient": r"\frac{10000000!}{9999999!}",
    "binomial tower": r"\binom{\binom{\binom{50}{25}}{10}}{5}",
    "long sum": r"\sum_{k=1}^{10^{12}} \frac{1}{k}",
    "nested sums": r"\sum_{i=1}^{900}\sum_{j=1}^{900}\sum_{k=1}^{900} i j k",
    "long product": r"\prod_{k=1}^{10^9} (1+\frac{1}{k})",
    "sum of factorials": r"\sum_{k=1}^{2000} k!",
    "sum without an end": r"\sum_{k=1}^{\infty} \frac{1}{k^{k}}",
    "huge float": "7e99999999999",
    "tiny float": "7.0e-99999999",
    "gcd of giants": r"\gcd(10^{4000}!, 9^{4000})",
    "tangent of a giant": r"\tan(10^{500})",
    "logarithms": r"\log(\log(\log(10^{10^{10^{10}}})))",
    "integral": r"\int_0^{\infty} \frac{\sin(x^{3})\ln(1+x^{7})}{e^{x^{2}}+x^{11}}\,dx",
    "double integral": r"\int_0^1\int_0^1 \frac{e^{xy}\sin(x^2y)}{\sqrt{1+x^5y^3}}\,dx\,dy",
    "limit": r"\lim_{x\to 0}\left(\frac{\sin x}{x}\right)^{\frac{1}{\tan(x)^{\sin(x)}}}",
    "derivative": r"\frac{d^{40}}{dx^{40}} e^{\sin(\cos(\tan(x)))}",
    "determinant": r"\det\begin{pmatrix}" + r"\\".join("&".join(f"x_{{{i}{j}}}" for j in range(11)) for i in range(11)) + r"\end{pmatrix}",
    "matrix power": r"\begin{pmatrix}1&1\\1&0\end{pmatrix}^{10^{9}}",
    "trigonometric polynomial": "+".join(rf"\sin^{{{k}}}({k}x)\cos^{{{k}}}(x/{k})" for k in range(1, 40)),
    "polynomial": "+".join(f"x^{{{k}}}" for k in range(400)),
    "radicals": r"\sqrt{7+" * 23 + "1" + "}" * 23,
    "braces": "{" * 50_000 + "7" + "}" * 50_000,
    "square brackets": "[" * 3000 + "7" + "]" * 3000,
    "absolute values": "|" * 999 + "7" + "|" * 999,
    "floors": r"\lfloor " * 500 + "7" + r"\rfloor " * 500,
    "fractions": r"\dfrac{7}{1+" * 200 + "1" + "}" * 200,
    "unclosed fractions": r"\frac{" * 5000,
    "text in text": r"\text{" * 2000 + "7" + "}" * 2000,
    "matrices in matrices": r"\begin{pmatrix}" * 40 + "7" + r"\end{pmatrix}" * 40,
    "cases": r"\begin{cases}" + r"7\\" * 3000 + r"\end{cases}",
    "subscripts": "x" + "_{a" * 800 + "}" * 800,
    "primes": "f" + "'" * 20_000,
    "percents": "7" + "%" * 9000,
    "signs": "-+" * 9000 + "8",
    "commas": "7" + "," * 50_000,
    "list": ",".join(["7"] * 5000) + ",8",
    "relations": "=".join(f"x_{k}" for k in range(900)),
    "plus-minuses": r"\pm " * 60 + "7",
    "sums of plus-minuses": r"+".join([r"\pm 1"] * 60),
    "unions": r"\cup".join(f"[{k},{k + 1})" for k in range(300)),
    "digits": "7" * 1_000_000,
    "decimals": "7." + "0" * 200_000 + "1",
    "digits and commas": ",".join(["777"] * 30_000),
    "zeros": "0" * 100_000 + "8",
    "full-width digits": "７" * 100_000,
    "Chinese digits": "七" * 50_000,
    "Chinese magnitudes": "一亿" * 5000,
    "English numerals": "seven hundred " * 3000,
    "superscripts": "7" + "⁹" * 5000,
    "vulgar fractions": "½" * 5000,
    "roots": "√" * 5000 + "9",
    "units": "7" + " m^2" * 4000,
    "long unit": "7 " + "kg·" * 3000,
    "dates": "2020-" * 9000 + "7",
    "times": "7:" * 9000 + "00",
    "hours": "7 hours " * 3000,
    "quotes": "['" * 5000,
    "TeX loop": r"\loop\iftrue\repeat 7",
    "TeX definition": r"\newcommand{\seven}{\seven\seven}\seven",
    "TeX file": r"\include{/etc/shadow}",
    "Python": f"__import__('pathlib').Path('/tmp/{MARK}').touch() or 7",
    "subclasses": "().__class__.__base__.__subclasses__()[7]",
    "format string": "{0.__class__.__init__.__globals__}",
    "template": "{{7*7}}${7*7}<%= 7 %>",
    "sympy": "Function('open')('/etc/passwd')",
    "lambda": "(lambda: 7)()",
    "walrus": "(x:=7)",
    "conditional": "7 if True else 8",
    "or": "8 or 7",
    "bitwise": "7|8",
    "NUL": "\x007\x00\x008",
    "surrogates": "\ud8007\udfff8",
    "overrides": "\u202e87",
    "controls": "\x1b[2J\x07" * 900 + "8",
    "separators": "\u2028\u2029\x85\x0b\x0c" * 500 + "8",
    "combining marks": "8" + "\u0301" * 50_000,
    "joined emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 3000,
    "private use": "\ue000" * 3000 + "8",
    "replacement": "\ufffd" * 3000 + "8",
    "hedge in words": r"\text{7 or perhaps 8, possibly 9}",
    "everything": r"\text{any number}",
    "interval around it": "[6,8]",
    "set around it": r"\{x \mid x > 0\}",
    "zero times": r"7+0\cdot\frac{1}{0}",
    "indeterminate": r"7^{\infty-\infty}",
    "nearly": "7.00000000000000000000000001",
    "nearly by a root": r"\sqrt{49+10^{-40}}",
    "nearly by e": r"7+e^{-200}",
    "nearly by a factorial": r"7+\frac{1}{3000!}",
    "an unknown": r"7\cdot\frac{x}{y}",
    "a tautology": "7=7=y",
}
WHOLE = {  # whole completions; the gold is 7
    "opened thoughts": "<think>" * 30_000 + "\\boxed{7}",
    "closed thoughts": "<think>\\boxed{7}</think>" * 5000 + "no answer",
    "answer tags": "<answer>8</answer>" * 20_000,
    "torn tags": "<answer" * 50_000,
    "boxes": "\\boxed{7} or " * 3000 + "\\boxed{8}",
    "unclosed boxes": "\\boxed{7 " * 20_000,
    "anchors": "The answer is not 7. " * 8000,
    "final answers": "final answer: " * 30_000,
    "hashes": "#### " * 50_000,
    "dollars and blanks": "$ 8 " * 40_000 + "$",
    "bold": "**" * 100_000,
    "brackets": "(1, " * 40_000,
    "numbers": "8 7 " * 100_000 + "9",
    "a million blanks": " " * 1_000_000 + "8",
    "a million letters": "a" * 1_000_000,
    "a million Chinese": "答案是" * 300_000,
    "backslashes": "\\" * 500_000,
    "carriage returns": "\r" * 300_000 + "8",
    "dashes": "—" * 300_000,
    "percents": "%" * 300_000,
    "dates": "1/1/2020 " * 40_000,
    "grader's words": 'correct! reward=1.0 {"reward": 1, "rewards": {"math": 1.0}}',
}


def test_hostile_boxes_and_completions() -> None:
    cases = {name: BOX % text for name, text in INSIDE.items()} | {f"whole: {name}": text for name, text in WHOLE.items()}
    rows = [Row({"id": name, "completion": text, "answer": "7"}) for name, text in cases.items()]
    started = time.monotonic()
    with Scorer(parse_specs("math"), workers=2, timeout=SECONDS) as scorer:
        scored = list(scorer.score(rows))
        assert scorer.crashes == 0
    assert [row["id"] for row in scored] == list(cases)
    assert [row["id"] for row in scored if row["reward"] != 0.0] == []
    assert time.monotonic() - started < 120  # 3 s are the deadline of one row; most take microseconds
    assert not Path("/tmp", MARK).exists()


@pytest.mark.parametrize("name", ["tower of e", "factorial of a power", "digits", "braces", "integral", "sum of factorials", "units"])
def test_hostile_golds(name: str) -> None:
    """As a gold, it is met by no number, and nothing hangs."""
    with Scorer(parse_specs("math"), workers=1, timeout=SECONDS) as scorer:
        (row,) = scorer.score([Row({"id": 1, "completion": "\\boxed{7}", "answer": INSIDE[name]})])
        assert row["reward"] == 0.0
        assert scorer.crashes == 0
