"""The format reward: each shape that earns it, and each that does not."""

import pytest

from r1cli.rewards.format import FormatReward
from r1cli.row import Row

ZERO = "<think>a</think><answer>4</answer>"
SUMMARY = "<think>a</think>\nSo it is 4."


def score(completion: str, style: str = "any", **fields: object) -> float:
    return FormatReward(style).score(Row({"completion": completion, **fields}))


@pytest.mark.parametrize(
    ("completion", "zero", "r1", "either"),
    [
        (ZERO, 1, 1, 1),
        (" <think>a</think>\n<answer>4</answer>\n", 1, 1, 1),
        (SUMMARY, 0, 1, 1),
        ("<think>a</think> so <answer>4</answer>", 0, 1, 1),
        (ZERO + " bye", 0, 1, 1),
        ("<think>a</think>", 0, 0, 0),
        ("<think></think><answer>4</answer>", 0, 0, 0),
        ("<think>a</think><answer> </answer>", 0, 0, 0),
        ("hello " + ZERO, 0, 0, 0),
        (ZERO + ZERO, 0, 0, 0),
        ("<think>a<think>b</think></think><answer>4</answer>", 0, 0, 0),
        ("<think>a</think><answer>4</answer><answer>5</answer>", 0, 0, 0),
        ("<think>a<answer>4</answer></think>", 0, 0, 0),
        ("<think>a<answer>3</answer></think><answer>4</answer>", 0, 0, 0),
        ("<think>a</think><answer>4", 0, 0, 0),
        ("<think>a<answer>4</answer>", 0, 0, 0),
        ("<answer>4</answer>", 0, 0, 0),
        ("4", 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_shapes(completion: str, zero: int, r1: int, either: int) -> None:
    assert [score(completion, style) for style in ("r1-zero", "r1", "any")] == [zero, r1, either]


def test_the_prompt_may_have_opened_the_reasoning() -> None:
    assert score("a</think><answer>4</answer>", think_prefix="<think>\n") == 1.0
    assert score("a</think><answer>4</answer>") == 0.0
    assert score(ZERO, think_prefix="<think>\n") == 0.0


def test_what_was_cut_off_has_no_format() -> None:
    assert score(SUMMARY, finish_reason="length") == 0.0


def test_other_tags() -> None:
    row = Row({"completion": "<reasoning>a</reasoning><result>4</result>"})
    assert FormatReward("r1-zero", "reasoning", "result").score(row) == 1.0
    assert FormatReward("r1-zero").score(row) == 0.0
