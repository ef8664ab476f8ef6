"""Where an answer is found, by style."""

import pytest

from r1cli.text.answers import STYLES, find_answer, last_answer


@pytest.mark.parametrize(
    ("completion", "text", "style"),
    [
        ("<think>a</think><answer> 4 </answer>", "4", "tag"),
        (r"<think>a</think><answer>\boxed{4}</answer>", "4", "boxed"),
        (r"so \boxed{\frac{1}{2}} it is", r"\frac{1}{2}", "boxed"),
        (r"\boxed 7", "7", "boxed"),
        (r"\fbox{7}", "7", "boxed"),
        (r"\boxed{1}, no: \boxed{2}", "2", "boxed"),
        (r"\boxed{1} and \boxed{2}", "1, 2", "boxed"),
        (r"\boxed{1} or \boxed{2}", "1 or 2", "boxed"),
        (r"$x=\boxed{1}$ and $y=\boxed{2}$", "1, 2", "boxed"),
        (r"\boxed{1}\boxed{1}", "1", "boxed"),
        (r"\boxed{3}. The final answer is 4.", "4", "anchor"),
        ("9 * 2 = 18\n#### 18", "18", "hash"),
        ("The answer is $x+1$.", "x+1", "anchor"),
        ("The answer is $1$ and $2$.", "1, 2", "anchor"),
        ("Answer: 41 was wrong.\nAnswer: 42", "42", "anchor"),
        ("答案：12。", "12", "anchor"),
        ("It costs $5 each, so 30 in all.", "30", "last"),
        ("353 - 79 = 274", "353 - 79 = 274", "last"),
        ("It drops to -7.", "-7", "last"),
        ("Paris", "Paris", "last"),
    ],
)
def test_found(completion: str, text: str, style: str) -> None:
    found = find_answer(completion)
    assert found is not None
    assert found.text == text
    assert found.style == style or (style == "anchor" and found.style == "boxed")  # a stated answer after a box replaces it


@pytest.mark.parametrize(
    "completion",
    [
        r"<think>\boxed{4}</think>",
        r"<think>\boxed{4}",
        "",
        r"so \boxed{4",
        r"\boxed{}",
        "<answer>1<answer>2",
        "A long sentence about nothing in particular that names no value at all, then another one.",
    ],
)
def test_nothing_is_committed(completion: str) -> None:
    assert not last_answer(completion)


def test_the_prompt_may_have_opened_the_reasoning() -> None:
    assert last_answer(r"\boxed{3}", opened=True) is None
    assert last_answer(r"\boxed{3}</think>\boxed{4}", opened=True) == "4"


def test_a_tag_cut_by_a_stop_string_counts_and_one_cut_by_the_limit_does_not() -> None:
    assert last_answer("<think>a</think><answer>42") == "42"
    assert find_answer("<think>a</think><answer>42", styles=("tag",), finished=False) is None


@pytest.mark.parametrize(
    ("style", "completion"),
    [
        ("tag", "<answer>4</answer>"),
        ("boxed", r"\boxed{4}"),
        ("hash", "#### 4"),
        ("anchor", "the answer is 4"),
        ("last", "that makes 4 in all"),
    ],
)
def test_only_the_styles_that_are_allowed_are_read(style: str, completion: str) -> None:
    allowed = find_answer(completion, styles=(style,))
    assert allowed is not None
    assert allowed.text == "4"
    if style != "anchor":  # its value is also the last one
        others = tuple(s for s in STYLES if s != style and s != "last")
        assert find_answer(completion, styles=others) is None
