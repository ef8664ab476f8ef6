"""Splitting completions at the tags: every shape, and linear time on hostile ones."""

import time

import pytest

from r1cli.text.think import last_pair, opened_by, split

SHAPES = [
    # completion, opened, reasoning, rest, answer, closed, well formed
    ("<think>a</think><answer>4</answer>", False, "a", "<answer>4</answer>", "4", True, True),
    ("<think>a</think> so 4", False, "a", " so 4", None, True, True),
    ("a</think>4", True, "a", "4", None, True, True),
    ("a</think>4", False, "a", "4", None, True, False),  # closes what nobody opened
    ("<think>a</think>4", True, "<think>a", "4", None, True, False),  # opened twice
    ("no tags, 4", False, "", "no tags, 4", None, True, False),
    ("<think>a", False, "a", "", None, False, False),
    ("a", True, "a", "", None, False, False),
    ("<think></think>4", False, "", "4", None, True, False),
    ("<think> \n</think>4", False, " \n", "4", None, True, False),
    ("<think>a</think>", False, "a", "", None, True, False),
    ("hm <think>a</think>4", False, "a", "4", None, True, False),
    ("<think>a<think>b</think>c</think>4", False, "a<think>b</think>c", "4", None, True, False),
    ("<think>a</think>4<think>b", False, "a</think>4<think>b", "", None, False, False),
    ("<think>a</think>x</think>4", False, "a</think>x", "4", None, True, False),
    ("<think>a</think><answer>1</answer><answer>2</answer>", False, "a", "<answer>1</answer><answer>2</answer>", "2", True, True),
    ("<think><answer>1</answer></think>4", False, "<answer>1</answer>", "4", None, True, True),
    ("", False, "", "", None, True, False),
    ("", True, "", "", None, False, False),
]


@pytest.mark.parametrize(("completion", "opened", "reasoning", "rest", "answer", "closed", "well_formed"), SHAPES)
def test_parts(completion: str, opened: bool, reasoning: str, rest: str, answer: str | None, closed: bool, well_formed: bool) -> None:
    parts = split(completion, opened)
    assert (parts.reasoning, parts.rest, parts.answer, parts.closed, parts.well_formed) == (reasoning, rest, answer, closed, well_formed)


def test_other_tags() -> None:
    parts = split("[r]a[/r][a]4[/a]", think=("[r]", "[/r]"), answer=("[a]", "[/a]"))
    assert (parts.reasoning, parts.answer, parts.well_formed) == ("a", "4", True)


def test_the_last_pair_begins_at_the_nearest_opening() -> None:
    assert last_pair("<answer>1<answer>2</answer>") == "2"
    assert last_pair("2</answer>") is None
    assert last_pair("<answer>2") is None


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [(None, False), ("", False), ("<think>\n", True), ("<think>x</think>", False), (True, True), (False, False), (1, False)],
)
def test_a_prefix_opens_the_reasoning(prefix: object, expected: bool) -> None:
    assert opened_by(prefix) is expected


@pytest.mark.parametrize("piece", ["<think>", "</think>", "<answer>", "</answer>", "<think></think>"])
def test_time_is_linear(piece: str) -> None:
    started = time.process_time()
    split(piece * 200_000)
    assert time.process_time() - started < 1.0
