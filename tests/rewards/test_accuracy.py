"""The accuracy reward on rows: styles, several golds, null, unreadable golds, and the sympy stage in a worker."""

import pytest

from r1cli.errors import R1Error
from r1cli.rewards.accuracy import AccuracyReward, MathReward
from r1cli.rewards.registry import parse_specs
from r1cli.rewards.reward import UNDECIDED
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row


def quick(completion: str, answer: object, style: str = "auto", **fields: object) -> object:
    return MathReward(style).quick(Row({"completion": completion, "answer": answer, **fields}))


def test_right_wrong_and_nothing_to_judge_by() -> None:
    assert quick(r"\boxed{4}", "4") == 1.0
    assert quick(r"\boxed{5}", "4") == 0.0
    assert quick(r"\boxed{4}", None) is None
    assert quick(r"\boxed{4}", 4) == 1.0
    assert quick(r"\boxed{0.5}", 0.5) == 1.0


def test_one_of_several_golds() -> None:
    assert quick("Paris", ["Paris", "City of Light"]) == 1.0
    assert quick("City of Light", ["Paris", "City of Light"]) == 1.0
    assert quick("Rome", ["Paris", "City of Light"]) == 0.0


def test_the_style_may_come_from_the_option_or_the_row() -> None:
    assert quick("The answer is 4.", "4") == 1.0
    assert quick("The answer is 4.", "4", "boxed") == 0.0
    assert quick("The answer is 4.", "4", "strict") == 0.0
    assert quick("The answer is 4.", "4", "boxed", answer_style="anchor") == 1.0
    with pytest.raises(R1Error, match="answer_style"):
        quick("4", "4", answer_style="bxed")


def test_an_answer_in_the_reasoning_is_none() -> None:
    assert quick(r"\boxed{4}", "4", think_prefix="<think>\n") == 0.0
    assert quick(r"so </think> \boxed{4}", "4", think_prefix="<think>\n") == 1.0


def test_a_cut_completion_is_judged_by_what_it_closed() -> None:
    assert quick(r"\boxed{4} and then", "4", finish_reason="length") == 1.0
    assert quick("<think>a</think><answer>4", "4", style="tag", finish_reason="length") == 0.0


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        (r"\int_0^1 2x\,dx", "1", 1.0),
        (r"\int_0^1 2x\,dx", "2", 0.0),
        ("1", r"\lim_{x\to 0}\frac{\sin x}{x}", 1.0),
        (r"\int_0^1 2x\,dx", r"\int_0^1 2x\,dx", 1.0),
    ],
)
def test_what_only_sympy_knows_is_asked_of_a_worker(gold: str, answer: str, expected: float) -> None:
    row = Row({"id": 1, "completion": rf"\boxed{{{answer}}}", "answer": gold})
    assert MathReward().quick(row) is UNDECIDED
    with Scorer(parse_specs("math"), workers=1, timeout=60.0) as scorer:
        assert [r["reward"] for r in scorer.score([row])] == [expected]


def test_a_hopeless_integral_scores_0_in_time() -> None:
    row = Row({"id": 1, "completion": r"\boxed{\int_0^1 \frac{\sin(x^{x})}{\sqrt{1+x^{7}}}\,dx}", "answer": r"\int_0^1 x^{x^2} e^{x^3} dx"})
    with Scorer(parse_specs("math"), workers=1, timeout=2.0) as scorer:
        assert [r["reward"] for r in scorer.score([row])] == [0.0]


def test_accuracy_takes_the_kind_from_the_row() -> None:
    reward = AccuracyReward()
    choice = Row({"completion": "The answer is B.", "answer": "B", "choices": ["iron", "gold"]})
    assert reward.quick(choice) == 1.0
    assert reward.quick(Row({"completion": "The answer is 7.", "answer": "7"})) == 1.0


def test_unreadable_golds_are_counted_once_a_row() -> None:
    reward = MathReward()
    assert reward.quick(Row({"id": "r3", "completion": r"\boxed{4}", "answer": ""})) is None
    assert "r3" in reward.complaints()[0]
