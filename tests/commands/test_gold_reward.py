"""What the gold answer earns, and what is wrong when it earns nothing."""

from pathlib import Path

import pytest

from r1cli.commands.gold_reward import MOST, check_gold_reward
from r1cli.commands.preflight import FAIL, OK, WARN, Finding
from r1cli.rewards.registry import parse_specs
from r1cli.row import Row

ROWS = [Row({"id": n, "prompt": f"What is {n} + 1?", "answer": str(n + 1), "language": "en"}) for n in range(4)]


def found(rewards: str, template: str = "chat", rows: list[Row] | None = None, think_prefix: str = "") -> list[Finding]:
    return check_gold_reward(ROWS if rows is None else rows, parse_specs(rewards), template, think_prefix, 5.0)


@pytest.mark.parametrize("template", ["chat", "boxed", "r1-zero", "raw"])
@pytest.mark.parametrize("think_prefix", ["", "<think>\n"])
def test_the_usual_rewards_are_earned_by_the_gold(template: str, think_prefix: str) -> None:
    (finding,) = found("accuracy,format=0.5,language", template, think_prefix=think_prefix)
    assert finding.level == OK and "earns 2.50 (accuracy 1.00, format 1.00, language 1.00), none 1.50" in finding.text


@pytest.mark.parametrize(
    ("rewards", "template", "reward"),
    [
        ("accuracy=boxed", "r1-zero", "accuracy"),
        ("accuracy=tag", "boxed", "accuracy"),
        ("accuracy,format:style=r1-zero", "boxed", "format"),
    ],
)
def test_a_template_that_asks_for_what_the_reward_does_not_read_fails(rewards: str, template: str, reward: str) -> None:
    first = found(rewards, template)[0]
    assert (
        (first.name, first.level) == ("gold reward", FAIL) and f"reward `{reward}` gives 0.00" in first.text and "row `0` 0" in first.text
    )
    assert "--template" in first.fix
    assert [finding.level for finding in found(rewards, "chat")] == [OK]  # nobody asked for a form: the one that is read counts


def test_some_golds_that_earn_nothing_are_a_warning() -> None:
    odd = Row({"id": "odd", "prompt": "?", "answer": "0/0"})  # equal to nothing
    (finding,) = found("accuracy", rows=[*ROWS, odd])
    assert finding.level == WARN and "gives 0.80" in finding.text and "row `odd` 0" in finding.text


def test_a_function_that_forgets_what_the_prompt_opened_is_found(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def shape(row):\n    return 0.0 if row['completion'].startswith('<think>') else -2.0\n")
    rewards = f"accuracy,{file}:shape"
    assert [finding.level for finding in found(rewards)] == [OK]
    (opened,) = found(rewards, think_prefix="<think>\n")
    assert opened.level == OK and "shape -2.00" in opened.text  # said; what a user's function is worth is the user's


def test_a_right_answer_must_be_worth_more_than_none(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def humble(row):\n    return 2.0 if 'unknown' in row['completion'] else 0.0\n")
    (finding,) = found(f"accuracy,{file}:humble")
    assert finding.level == FAIL and "a right answer earns 1.00" in finding.text and "no more than none (2.00)" in finding.text
    assert [one.level for one in found(f"accuracy=3,{file}:humble")] == [OK]


def test_choices_and_solutions_are_answers_too() -> None:
    choice = Row({"id": "c", "prompt": "Which?", "choices": ["red", "green"], "answer": "green"})
    solution = Row({"id": "s", "prompt": "?", "answer": "First 3 + 4 = 7. #### 7"})
    boxed = Row({"id": "b", "prompt": "?", "answer": ["So it is \\boxed{9}.", "9"]})
    assert [finding.level for finding in found("accuracy,format", "boxed", [choice, solution, boxed])] == [OK]


def test_without_golds_or_rules_that_compare_nothing_is_said() -> None:
    assert found("format,language") == []
    assert (
        found("accuracy", rows=[Row({"id": 1, "prompt": "x", "answer": None}), Row({"id": 2, "prompt": "x", "tests": ["assert f()"]})])
        == []
    )
    assert found("accuracy:set=hard") == []


def test_a_reward_that_begins_late_is_tried_as_well_and_few_rows_are_enough(tmp_path: Path) -> None:
    many = [Row({"id": n, "prompt": "?", "answer": "1"}) for n in range(1000)]
    counting = tmp_path / "counting.py"
    counting.write_text(f"def tried(row):\n    open({str(tmp_path / 'rows')!r}, 'a').write(str(row['id']) + '\\n')\n    return 0.0\n")
    (finding,) = found(f"accuracy,format:style=r1@50,{counting}:tried", "r1-zero", many)
    assert finding.level == OK and "format 1.00" in finding.text
    rows = (tmp_path / "rows").read_text().split()
    assert len(set(rows)) == MOST and len(rows) == 2 * MOST  # with the gold, and without an answer
    assert max(map(int, rows)) > 900  # from all of the file
