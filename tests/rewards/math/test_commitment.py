"""Which answer a completion commits to: boxes, tags, prose. Each case judged by hand."""

import pytest

from r1cli.rewards.math.judge import judge

RIGHT, WRONG = True, False
CASES = {
    "boxes": [
        ("5", r"\boxed{4} is wrong; it is \boxed{5}", RIGHT),
        ("5", r"\boxed{5}. Wait, \boxed{4}.", WRONG),
        ("5", r"\boxed{5} or \boxed{4}", WRONG),
        ("5", r"\boxed{4}, \boxed{5}", WRONG),
        ("4,5", r"\boxed{4} and \boxed{5}", RIGHT),
        ("4,5", r"\boxed{4}, \boxed{5}", RIGHT),
        ("4", r"\boxed{4} \boxed{4}", RIGHT),
        ("5", "$\\boxed{5}$\n\n$\\boxed{5}$", RIGHT),
        ("12", r"x=\boxed{3}, y=\boxed{4}, and the product is \boxed{12}.", RIGHT),
        ("5", r"\boxed{4\text{ or }5}", WRONG),
        ("5", "The answer is either 4 or 5.", WRONG),
    ],
    "r1_tags": [
        ("12", "<think>12</think>", WRONG),
        ("12", r"<think>\boxed{12}</think> I don't know", WRONG),
        ("12", r"<think>\boxed{12}", WRONG),
        ("12", "<think>x</think><answer>12", RIGHT),
        ("12", "</think><answer>12</answer>", RIGHT),
        ("12", "<think>a</think>The answer is 12.", RIGHT),
        ("12", "<think>a</think><answer>The answer is $12$.</answer>", RIGHT),
        ("12", "<think>a</think><answer>x = 12</answer>", RIGHT),
        ("12", "<think>a</think> <answer> 12 apples </answer>", RIGHT),
        ("12", r"<think>a</think><answer>13</answer> \boxed{12}", WRONG),
        ("12", "<answer>12</answer><think>so 13</think>", WRONG),
        ("12", "<think>a</think><answer>12</answer>\n\nHope this helps!", RIGHT),
        (r"\frac{3}{4}", "<think>a</think><answer>3/4</answer>", RIGHT),
        ("12", "<think>a</think><answer></answer>", WRONG),
        ("12", "<think>a</think><answer>Let me think. 3*4 = 12</answer>", RIGHT),
        ("12", "<think>a<think>b</think>c</think>12", RIGHT),
    ],
    "prose": [
        ("7", "So the final answer is: 7", RIGHT),
        ("7", "**Answer:** 7", RIGHT),
        ("7", "Answer: **7**", RIGHT),
        ("7", "The answer is 7 because 3+4=7.", RIGHT),
        ("7", "I get 7.", RIGHT),
        ("7", "= 7", RIGHT),
        ("-7", "The result is -7.", RIGHT),
        (r"\frac{1}{2}", r"Thus the probability is $\frac{1}{2}$.", RIGHT),
        ("18", "She makes 9 * 2 = $18 every day.\n#### 18", RIGHT),
        ("70000", "He made $70,000 profit.", RIGHT),
        ("7", "7", RIGHT),
        ("x+1", "$x+1$", RIGHT),
        ("7", "The answer is not 7.", WRONG),
        ("7", "the answer is 7, I think.", RIGHT),
        ("3.5", "It is 3.5 hours.", RIGHT),
        ("1/4", "The probability is 1/4.", RIGHT),
        ("20", "20 minutes", RIGHT),
        ("2", "There are **2** solutions.", RIGHT),
        ("5", "Final Answer\n5", RIGHT),
        ("5", "## Final Answer: $5$", RIGHT),
        ("5", r"The final answer is $\mathbf{5}$", RIGHT),
        ("-3", "x = -3", RIGHT),
        ("15", "3 x 5 = 15", RIGHT),
        ("0.5", "The value is .5", RIGHT),
        ("1,2", "The answer is 1 and 2.", RIGHT),
        ("(1,2)", "The answer is (1, 2).", RIGHT),
        (r"\sqrt{2}", r"The answer is \sqrt{2}.", RIGHT),
        (r"2\pi", r"Answer: 2\pi", RIGHT),
    ],
}


@pytest.mark.parametrize(("kind", "gold", "completion", "expected"), [(kind, *case) for kind, cases in CASES.items() for case in cases])
def test_is_judged_as_a_careful_reader_would(kind: str, gold: str, completion: str, expected: bool) -> None:
    assert judge(completion, gold).verdict is expected, kind
