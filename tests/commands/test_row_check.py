"""Whether every row has what the rewards read of it: each kind of broken row is found before sampling, and declared gaps are none."""

from typing import Any

import pytest

from r1cli.commands.preflight import FAIL, OK, Finding
from r1cli.commands.row_check import RowCheck, check_rows
from r1cli.rewards.registry import parse_specs
from r1cli.row import Row

PLAIN = {"prompt": "What is 1 + 1?", "answer": "2"}
CHOICE = {"prompt": "Which one?", "choices": ["red", "green"], "answer": "A"}
CODE = {"prompt": "Write f.", "tests": ["assert f(1) == 2"], "answer": None}


def rows_of(good: dict[str, Any], *bad: dict[str, Any]) -> list[Row]:
    """Good rows with bad ones from the fourth place on."""
    fields = [good] * 3 + list(bad) + [good] * 3
    return [Row({"id": f"r{n}", **row}, where=f"p.jsonl:{n + 1}") for n, row in enumerate(fields)]


def checked(rewards: str, rows: list[Row], about: str = "") -> RowCheck:
    return check_rows(parse_specs(rewards), rows, 5.0, about)


def failed(found: RowCheck) -> list[Finding]:
    return [finding for finding in found.findings if finding.level == FAIL]


@pytest.mark.parametrize(
    ("rewards", "good", "bad", "name", "said", "fix"),
    [
        ("choice", CHOICE, {**CHOICE, "answer": "purple"}, "rows for choice", "`answer` 'purple' names no option", "labels are A, B"),
        ("choice", CHOICE, PLAIN, "rows for choice", "it has fewer than two options", "give `choices`"),
        ("choice", CHOICE, {"prompt": "?", "choices": ["a", "b"]}, "rows for choice", "has no field `answer`", "--map answer=COLUMN"),
        ("code", CODE, PLAIN, "rows for code", "it has no field `tests`", "docs/code-rewards.md"),
        ("code", CODE, {**CODE, "tests": ["assert f(1 =="]}, "rows for code", "are not valid Python", "docs/code-rewards.md"),
        ("accuracy", PLAIN, {**CODE, "tests": ["assert f(1 =="]}, "rows for accuracy", "are not valid Python", "docs/code-rewards.md"),
        ("accuracy", PLAIN, {**PLAIN, "answer_style": "bocks"}, "rows for accuracy", "`answer_style` cannot be `bocks`", "boxed"),
        ("accuracy", PLAIN, {**CHOICE, "answer": "purple"}, "gold answers", "names no option", "mend these rows"),
        ("accuracy,language", PLAIN, {**PLAIN, "language": "klingon"}, "rows for language", "unknown language `klingon`", "known: "),
        ("refusal", {"prompt": "?", "label": "safe"}, {"prompt": "?", "label": "odd"}, "rows for refusal", "safe or unsafe", "--map label"),
        ("length:max=64", PLAIN, {**PLAIN, "answer": "\\frac{1"}, "gold answers", "cannot be read", "mend these rows"),
        ("brevity:max=64", PLAIN, {"prompt": "?"}, "gold answers", "it has no field `answer`", "mend these rows"),
        ("brevity:max=64:by=choice", CHOICE, {**CHOICE, "answer": "purple"}, "rows for brevity", "names no option", "labels are"),
        ("length:max=64:by=code", CODE, PLAIN, "rows for length", "it has no field `tests`", "docs/code-rewards.md"),
    ],
)
def test_a_row_that_a_reward_could_not_score_is_named(
    rewards: str, good: dict[str, Any], bad: dict[str, Any], name: str, said: str, fix: str
) -> None:
    rows = rows_of(good, bad)
    found = checked(rewards, rows)
    (finding,) = failed(found)
    assert finding.name == name and said in finding.text and fix in finding.fix
    assert finding.text.startswith("1 of 7 rows") and "`r3`" in finding.text and "p.jsonl:4" in finding.text
    assert [row["id"] for row in found.sound] == ["r0", "r1", "r2", "r4", "r5", "r6"]
    assert not failed(checked(rewards, rows_of(good)))


@pytest.mark.parametrize(
    ("rewards", "good", "declared"),
    [
        ("accuracy,format", PLAIN, {"prompt": "Write a poem.", "answer": None}),
        ("choice", CHOICE, {"prompt": "Write a poem.", "answer": None}),
        ("code", CODE, {"prompt": "Write a poem.", "tests": None}),
        ("length:max=64,brevity:max=64", PLAIN, {"prompt": "Write a poem.", "answer": None}),
        ("accuracy,language", PLAIN, {"prompt": "12 + 7", "answer": "19", "language": None}),
        ("code:set=code,choice:set=mc", {**CODE, "set": "code"}, {**CHOICE, "set": "mc"}),
        ("choice:set=mc,format", {**CHOICE, "set": "mc"}, {"prompt": "Write a poem."}),
        ("overlong:max=64,repetition,format", PLAIN, {"prompt": "Write a poem."}),
    ],
)
def test_rows_that_declare_or_need_nothing_to_judge_are_sound(rewards: str, good: dict[str, Any], declared: dict[str, Any]) -> None:
    rows = rows_of(good, declared)
    found = checked(rewards, rows)
    assert not failed(found) and found.sound == rows


def test_one_fault_is_said_once_and_each_row_by_its_place() -> None:
    rows = rows_of(CODE, *[{**CODE, "tests": [f"assert f({n} =="]} for n in range(8)])
    (finding,) = failed(checked("accuracy,code,length:max=64", rows))
    assert finding.name == "rows for accuracy"
    assert all(f"p.jsonl:{line}" in finding.text for line in range(4, 12)) and finding.text.count("not valid Python") == 5
    bad = rows_of(PLAIN, {"prompt": "?"})
    assert [finding.name for finding in failed(checked("accuracy,length:max=64", bad))] == ["gold answers"]
    assert [finding.name for finding in failed(checked("accuracy,choice", bad))] == ["gold answers", "rows for choice"]


def test_what_was_looked_at_is_said() -> None:
    found = checked("choice,format,overlong:max=64,mine.py:accuracy", rows_of(CHOICE))
    assert [(finding.name, finding.level, finding.text) for finding in found.findings] == [("rows for choice", OK, "all 6 can be scored")]
    (named,) = failed(checked("accuracy", rows_of(PLAIN, {"prompt": "?"}), "--held-out held.jsonl"))
    assert named.name == "--held-out held.jsonl: gold answers"


def test_no_program_is_run_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from r1cli.rewards.code.judge import Local

    monkeypatch.setattr(Local, "judge", lambda *_, **__: pytest.fail("a program was run"))
    humaneval = {"prompt": "def f(x):\n", "entry_point": "f", "tests": "def check(candidate):\n    assert candidate(1) == 2\n"}
    assert not failed(checked("code,length:max=64:by=code", rows_of(CODE, humaneval)))
