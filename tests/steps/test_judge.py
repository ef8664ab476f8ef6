"""A judge in the stream: order, streaming, counting, and errors; the model is a function."""

import itertools
import queue
import random
import threading
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1cli.errors import R1Error
from r1cli.rewards.reward import RewardSpec
from r1cli.row import Row
from r1cli.steps.asking import WINDOW, Ask, asked
from r1cli.steps.judge import Judge, gold_of
from r1cli.steps.keep import Dropped, judge_of, keep_rows


def answering(says: Callable[[str], str]) -> Ask:
    """A model that answers each question as it comes."""
    return lambda questions, _: (Row({**q, "completion": says(q["prompt"][0]["content"]), "finish_reason": "stop"}) for q in questions)


def honest(text: str) -> str:
    """Correct when the answer holds the reference, as a careful judge would say."""
    parts = {name: text.partition(f"<{name} ")[2].partition("\n")[2].partition(f"\n</{name}")[0] for name in ("reference", "answer")}
    return "VERDICT: CORRECT" if parts["reference"] in parts["answer"] else "VERDICT: INCORRECT"


def row(n: int, accuracy: float | None, completion: str = "It is four.", **fields: object) -> Row:
    scores = {"accuracy": accuracy, "format": 1.0}
    return Row(
        {
            "id": f"q{n}",
            "sample": n,
            "prompt": "2+2?",
            "answer": None,
            "reference": "four",
            "completion": completion,
            "rewards": scores,
            "reward": 1.0 + (accuracy or 0.0),
            **fields,
        },
        where=f"f:{n}",
    )


def test_rows_without_a_rule_are_graded_and_the_others_left_alone() -> None:
    judge = Judge(answering(honest))
    rows = [row(0, 1.0), row(1, None), row(2, None, "It is five."), row(3, 0.0)]
    graded = list(judge.grade(rows))
    assert [found["id"] for found in graded] == ["q0", "q1", "q2", "q3"]
    assert [found["rewards"]["judge"] for found in graded] == [None, 1.0, 0.0, None]
    assert [found["reward"] for found in graded] == [2.0, 2.0, 1.0, 1.0]
    assert (judge.asked, judge.unreadable) == (2, 0)
    kept = keep_rows(graded, judge_of("passing", [RewardSpec("accuracy"), RewardSpec("format")]), dropped := Dropped())
    assert [found["id"] for found in kept] == ["q0", "q1"]
    assert dropped.reasons == {"judge below 1": 1, "accuracy below 1": 1}


def test_an_unreadable_verdict_is_null_counted_and_dropped_under_its_own_reason() -> None:
    judge = Judge(answering(lambda text: "I would say it is right"))
    graded = list(judge.grade([row(0, None), row(1, 1.0)]))
    assert graded[0]["rewards"]["judge"] is None and graded[0]["judge_reply"] == "I would say it is right"
    assert (judge.asked, judge.unreadable) == (1, 1)
    for keep in ("passing", "judge == 1", "accuracy == 1 or judge == 1"):
        dropped = Dropped()
        list(keep_rows(graded, judge_of(keep, [RewardSpec("accuracy"), RewardSpec("format")]), dropped))
        assert dropped.reasons["the judge's verdict could not be read"] == 1
    assert len(list(keep_rows(graded, judge_of("all", []), Dropped()))) == 2


def test_a_second_grading_replaces_the_first() -> None:
    failed = next(iter(Judge(answering(lambda text: "hm")).grade([row(0, None)])))
    again = next(iter(Judge(answering(honest)).grade([failed.with_fields(rewards={"accuracy": None, "format": 1.0})])))
    assert again["rewards"]["judge"] == 1.0 and "judge_reply" not in again


def test_a_reasoning_that_never_ends_has_no_answer_and_is_not_asked_about() -> None:
    def refuse(text: str) -> str:
        raise AssertionError("the judge was asked")

    assert next(iter(Judge(answering(refuse)).grade([row(0, None, "<think>so four")])))["rewards"]["judge"] == 0.0


def test_a_condition_may_choose_who_is_graded() -> None:
    judge = Judge(answering(honest), wants=lambda found: found["rewards"]["accuracy"] == 0.0)
    assert [found["rewards"]["judge"] for found in judge.grade([row(0, 0.0), row(1, None)])] == [1.0, None]


def test_what_does_not_fit_the_judge_is_unreadable_and_holds_nobody_up() -> None:
    def ask(questions: Iterable[Row], unanswered: Callable[[Row], None]) -> Iterator[Row]:
        for question in questions:
            if "five" in question["prompt"][0]["content"]:
                unanswered(question)
            else:
                yield from answering(honest)([question], unanswered)

    judge = Judge(ask)
    found = list(judge.grade([row(n, None, "It is five." if n % 2 else "It is four.") for n in range(3000)]))
    assert [one["rewards"]["judge"] for one in found[:4]] == [1.0, None, 1.0, None]
    assert (len(found), judge.unreadable) == (3000, 1500)


@pytest.mark.parametrize(
    ("fields", "gold"),
    [
        ({"reference": "r", "answer": "a"}, "r"),
        ({"answer": "a", "solution": "s"}, "a"),
        ({"answer": None, "solution": "s"}, "s"),
        ({"answer": 4}, "4"),
        ({"answer": True}, None),
        ({"answer": ["a"]}, None),
        ({}, None),
        ({"reference": "", "answer": "a"}, "a"),
    ],
)
def test_the_gold(fields: dict, gold: str | None) -> None:
    assert gold_of(Row(fields)) == gold


def shuffling(seed: int, size: int) -> Ask:
    """A model that works on `size` questions at a time and ends them in any order."""

    def ask(questions: Iterable[Row], unanswered: Callable[[Row], None]) -> Iterator[Row]:
        rng = random.Random(seed)
        source = iter(questions)
        while batch := list(itertools.islice(source, size)):
            rng.shuffle(batch)
            yield from (Row({**q, "completion": q["prompt"][0]["content"], "finish_reason": "stop"}) for q in batch)

    return ask


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=60), st.integers(0, 9), st.integers(1, 7))
def test_replies_find_their_question_whatever_order_they_end_in(counts: list[int], seed: int, size: int) -> None:
    rows = [(n, [f"{n}/{k}" for k in range(count)]) for n, count in enumerate(counts)]
    found = list(asked(rows, shuffling(seed, size), lambda each: [(text, [{"role": "user", "content": text}]) for text in each[1]]))
    assert [each for each, _ in found] == rows
    assert [[reply["completion"] for reply in replies] for _, replies in found] == [texts for _, texts in rows]


def test_row_one_comes_out_before_row_two_is_there() -> None:
    source: queue.Queue[Row | None] = queue.Queue()
    out = Judge(answering(honest)).grade(iter(source.get, None))
    for n, accuracy in enumerate([1.0, None, None, 1.0]):
        source.put(row(n, accuracy))
        assert next(out)["id"] == f"q{n}"  # the next row is not there yet
    source.put(None)
    assert list(out) == []


def test_a_slow_model_does_not_let_the_input_pile_up() -> None:
    taken = itertools.count()
    rows = (row(next(taken), None) for _ in range(5 * WINDOW))
    release = threading.Event()

    def ask(questions: Iterable[Row], unanswered: Callable[[Row], None]) -> Iterator[Row]:
        release.wait()
        yield from answering(honest)(questions, unanswered)

    out = Judge(ask).grade(rows)
    threading.Timer(0.3, release.set).start()
    assert next(out)["id"] == "q0"
    del out
    assert next(taken) <= WINDOW + 2


def test_an_error_of_the_input_comes_after_the_rows_before_it() -> None:
    def broken() -> Iterator[Row]:
        yield row(0, None)
        yield row(1, None)
        raise R1Error("line 3 is broken")

    out = Judge(answering(honest)).grade(broken())
    assert [next(out)["id"], next(out)["id"]] == ["q0", "q1"]
    with pytest.raises(R1Error, match="line 3 is broken"):
        next(out)


def test_an_error_of_the_model_ends_it() -> None:
    def ask(questions: Iterable[Row], unanswered: Callable[[Row], None]) -> Iterator[Row]:
        next(iter(questions))
        raise R1Error("the server is gone")
        yield

    with pytest.raises(R1Error, match="the server is gone"):
        list(Judge(ask).grade([row(0, None)]))


def test_pairs_are_compared_four_times_in_both_orders() -> None:
    def longer(text: str) -> str:
        a, b = (text.partition(f"<answer {side} ")[2].partition("\n")[2].partition("\n</answer")[0] for side in "AB")
        return "[[A>>B]]" if len(a) > len(b) else "[[B>>A]]" if len(b) > len(a) else "[[A=B]]"

    names: list[str] = []

    def ask(questions: Iterable[Row], unanswered: Callable[[Row], None]) -> Iterator[Row]:
        for question in questions:
            names.append(question["id"])
            yield Row({**question, "completion": longer(question["prompt"][0]["content"]), "finish_reason": "stop"})

    pairs = [(row(0, None, "short"), row(1, None, "much longer")), (row(2, None, "same!"), row(3, None, "size!"))]
    judge = Judge(ask)
    assert [margin for _, _, margin in judge.margins(pairs)] == [-2.0, 0.0]
    assert judge.asked == 2 and len(set(names)) == 8  # every comparison has a seed of its own
    biased = Judge(answering(lambda text: "[[A>>B]]"))
    assert [margin for _, _, margin in biased.margins(pairs)] == [0.0, 0.0]
