"""Multiple choice: what commits to an option and what does not; options in their many shapes; shuffling."""

from typing import Any

import pytest

from r1cli.errors import Exit, R1Error
from r1cli.rewards.choice import ChoiceReward
from r1cli.row import Row
from r1cli.text.choices import gold_of, options_of, shuffled

METALS = ["copper", "tin", "iron", "iron oxide"]


def score(completion: str, answer: Any = "C", choices: Any = METALS, **fields: Any) -> float | None:
    row = Row({"id": 1, "prompt": "Which one?", "choices": choices, "answer": answer, "completion": completion, **fields})
    return ChoiceReward().score(row)


@pytest.mark.parametrize(
    "completion",
    [
        "C",
        "(C)",
        "c",
        "C.",
        "C. iron",
        "(C) iron",
        "**C**",
        r"\boxed{C}",
        r"\boxed{\text{C}}",
        r"\boxed{\textbf{(C)}\ iron}",
        r"$\boxed{\mathrm{(C)}}$",
        r"\boxed{\text{iron}}",
        "Iron.",
        "Answer: C",
        "**Answer:** (C) iron",
        "The answer is C.",
        "The answer is (C), because copper does not rust.",
        "So the correct answer is therefore option C",
        "The answer to this question is iron.",
        "The best choice is **iron**, since copper and tin do not rust.",
        "Option C is correct.",
        "(C) is the right answer: A and B do not rust.",
        "I would go with C.",
        "答案是C。",
        "正确答案为（Ｃ）",
        "故选：C",
        "因此选C",
        "<think>It could be A or B, \\boxed{A}.</think>The answer is C",
        "<think>Hm.</think> <answer>C</answer>",
        "<think>Hm.</think> <answer> (C) iron </answer>",
        "<think>Hm.</think> <answer>\\boxed{C}</answer>",
        "<think>Hm.</think> Not A. <answer>The answer is C</answer>",
        "Copper and tin do not rust in water.\n\nC",
        "C\n\nCopper and tin do not rust.",
        "The answer is A. Wait, tin is meant.\nThe answer is C.",
        r"\boxed{C} and once more \boxed{\text{C}}",
        "Answer: C) iron",
        "Final answer: C - iron",
        "ANSWER: C",
        "The answer is:\n\nC",
    ],
)
def test_commits_to_iron(completion: str) -> None:
    assert score(completion) == 1.0
    assert score(completion, answer="A") == 0.0


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "A, B, C or D",
        "A or C",
        "(A) or (C)",
        "C or A",
        "C and D",
        "The answer is C or D.",
        "The answer is either C or D.",
        "Answer: A/C",
        "Answer: C, A",
        "The answer is A, B, C, D",
        r"\boxed{A} \boxed{C}",
        r"\boxed{A, C}",
        r"\boxed{A \text{ or } C}",
        "<answer>A</answer>",
        "<answer>A or C</answer>",
        "The answer is not C.",
        "The answer is C. No wait, the answer is D.",
        "(C) copper",
        "Answer: C. copper",
        "A. copper\nB. tin\nC. iron\nD. iron oxide",
        "The options are:\nA. copper\nB. tin\nC. iron",
        "Neither B nor C is correct",
        "<think>The answer is C",
        "<think>The answer is C</think>",
        "<think>\\boxed{C}</think> I do not know.",
        "It may be iron, or tin.",
        "iron or tin",
        "The answer is iron or tin.",
        "The answer is iron oxide.",
        "B and C are correct",
        "A cat sat on the C.",
        "CC",
        "iron oxide",
        r"\boxed{C",
        "Vitamin C is good.",
    ],
)
def test_does_not_commit_to_iron(completion: str) -> None:
    assert score(completion) == 0.0


def test_an_article_is_not_option_a() -> None:
    assert score("A metal that rusts.", answer="A") == 0.0
    assert score("The answer is a metal that rusts.", answer="A") == 0.0
    assert score("The answer is A because copper does not rust.", answer="A") == 1.0


def test_a_prompt_that_opened_the_reasoning() -> None:
    assert score("Answer: A, no.</think>Answer: C", think_prefix="<think>\n") == 1.0
    assert score("Answer: C", think_prefix="<think>\n") == 0.0


@pytest.mark.parametrize(
    ("answer", "choices"),
    [
        (2, METALS),
        ("iron", METALS),
        ("(C)", METALS),
        ("C", {"A": "copper", "B": "tin", "C": "iron"}),
        ("C", {"text": ["copper", "tin", "iron"], "label": ["A", "B", "C"]}),
    ],
)
def test_shapes_of_gold_and_choices(answer: Any, choices: Any) -> None:
    assert score("Answer: C", answer, choices) == 1.0
    assert score("Answer: B", answer, choices) == 0.0


def test_numbered_labels_and_options_that_are_numbers() -> None:
    arc = {"text": ["copper", "tin", "iron"], "label": ["1", "2", "3"]}
    assert score("The answer is 3.", "3", arc) == 1.0
    assert score("The answer is 3.", "1", arc) == 0.0
    assert score(r"\boxed{12}", "B", ["3", "12", "7", "0"]) == 1.0
    assert score("The answer is 3.5", "A", ["3", "12", "7", "0"]) == 0.0


def test_options_are_read_from_the_prompt() -> None:
    prompt = "Which rusts?\nA. copper\nB. tin\nC) iron\n"
    row = Row({"id": 1, "prompt": prompt, "answer": "C", "completion": "iron"})
    assert [option.text for option in options_of(row)] == ["copper", "tin", "iron"]
    assert ChoiceReward().score(row) == 1.0


def test_rows_that_cannot_be_judged() -> None:
    assert score("C", answer=None) is None
    for answer, choices in (("Z", METALS), (7, METALS), ("C", []), ("C", "copper")):
        with pytest.raises(R1Error, match="row `1`") as error:
            score("C", answer, choices)
        assert error.value.code == Exit.USAGE


def question(**fields: Any) -> Row:
    return Row({"id": "q", "prompt": "Which rusts?\nA. copper\nB. tin\nC. iron\nD. iron oxide", "choices": METALS, "answer": "C", **fields})


def test_shuffling_permutes_prompt_choices_and_answer_together() -> None:
    orders = set()
    for seed in range(30):
        row = shuffled(question(), seed)
        assert gold_of(row, options_of(row)).text == "iron"
        assert row["prompt"] == "Which rusts?\n" + "\n".join(f"{o.label}. {o.text}" for o in options_of(row))
        assert shuffled(question(), seed) == row
        orders.add(tuple(row["choices"]))
    assert len(orders) > 12  # of 24
    assert question()["choices"] == METALS


def test_shuffling_depends_on_the_row_and_keeps_an_index_an_index() -> None:
    assert len({tuple(shuffled(question(id=n), 0)["choices"]) for n in range(30)}) > 12
    row = shuffled(question(answer=2), 3)
    assert row["choices"][row["answer"]] == "iron"


def test_shuffling_adds_lines_to_a_prompt_without_options() -> None:
    row = shuffled(question(prompt=[{"role": "user", "content": "Which metal rusts?"}]), 1)
    assert row["prompt"][0]["content"].startswith("Which metal rusts?\nA. ")
    with pytest.raises(R1Error, match="not as one line"):
        shuffled(question(prompt="Is it copper, tin, iron or iron oxide?"), 1)


def test_shuffling_respects_options_about_options() -> None:
    above = [*METALS[:3], "None of the above"]
    assert all(shuffled(Row({"id": n, "choices": above, "answer": "D"}), 0)["answer"] == "D" for n in range(20))
    both = Row({"id": 1, "choices": ["copper", "tin", "both A and B", "iron"], "answer": "C"})
    assert all(shuffled(both, seed) == both for seed in range(20))
