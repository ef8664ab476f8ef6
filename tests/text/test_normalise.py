"""Characters of many scripts as plain LaTeX."""

import pytest

from r1cli.text.normalise import plain_characters


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("x^2+1", "x^2+1"),
        ("－３", "-3"),
        ("（1，2）", "(1,2)"),
        ("x²", "x^{2}"),
        ("10⁻³", "10^{-3}"),
        ("x₁", "x_{1}"),
        ("√2", r"\sqrt{2}"),
        ("√(x+1)", r"\sqrt{x+1}"),
        ("∛8", r"\sqrt[3]{8}"),
        ("½", r"\frac{1}{2}"),
        ("2½", r"2\frac{1}{2}"),
        ("𝟒𝟐", "42"),
        ("5\u200b", "5"),
        ("60度", r"60^{\circ}"),
        ("百分之25", "25%"),
        ("2或3", "2 or 3"),
        ("4\ud8002", "4\ufffd2"),
    ],
)
def test_plain(written: str, plain: str) -> None:
    assert plain_characters(written) == plain


@pytest.mark.parametrize(
    ("written", "word"), [("π", r"\pi"), ("∞", r"\infty"), ("≤", r"\le"), ("∪", r"\cup"), ("×", r"\times"), ("±", r"\pm")]
)
def test_operators(written: str, word: str) -> None:
    assert plain_characters(f"1{written}2") == f"1{word} 2"
