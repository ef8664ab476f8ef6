"""Rows in, scored rows out: order, streaming, sums, and mistakes in the rows."""

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1cli.errors import R1Error
from r1cli.rewards.registry import parse_specs
from r1cli.rewards.scorer import WINDOW, Scorer
from r1cli.row import Row, parse

FILE = str(Path(__file__).with_name("user_rewards.py"))
GOOD = "<think>a</think><answer>4</answer>"


def test_sum_order_and_fields() -> None:
    rows = [Row({"id": i, "answer": "4" if i % 2 else None, "completion": GOOD, "extra": {"k": 1}, "reward": 9}) for i in range(5)]
    with Scorer(parse_specs("accuracy=2,format=0.5")) as scorer:
        scored = list(scorer.score(rows))
    assert [row["id"] for row in scored] == [0, 1, 2, 3, 4]
    assert scored[0]["rewards"] == {"accuracy": None, "format": 1.0}
    assert [row["reward"] for row in scored] == [0.5, 2.5, 0.5, 2.5, 0.5]
    assert scored[0]["extra"] == {"k": 1}
    assert rows[0]["reward"] == 9  # the rows that came in are not changed


@pytest.mark.parametrize("specs", ["accuracy", f"{FILE}:polite,accuracy", f"{FILE}:lengths"])
def test_a_row_comes_out_before_the_next_goes_in(specs: str) -> None:
    gate: queue.Queue[Row | None] = queue.Queue()

    def slow() -> Iterator[Row]:
        while (row := gate.get(timeout=60)) is not None:
            yield row

    with Scorer(parse_specs(specs), workers=1, timeout=30.0) as scorer:
        scored = scorer.score(slow())
        for i in range(3):
            gate.put(Row({"id": i, "answer": "4", "completion": GOOD}))
            assert next(scored)["id"] == i  # hangs when a row is held back
        gate.put(None)
        assert next(scored, None) is None


def test_order_holds_when_workers_end_out_of_order() -> None:
    rows = [Row({"id": i, "completion": "x" * (i % 7)}) for i in range(200)]
    with Scorer(parse_specs(f"{FILE}:lengths,{FILE}:polite"), workers=2, timeout=60.0) as scorer:
        assert [(row["id"], row["rewards"]["lengths"]) for row in scorer.score(iter(rows))] == [(i, float(i % 7)) for i in range(200)]


def test_no_more_than_a_window_is_read_ahead() -> None:
    taken = 0

    def endless() -> Iterator[Row]:
        nonlocal taken
        while True:
            taken += 1
            yield Row({"id": taken, "completion": GOOD})

    with Scorer(parse_specs("format")) as scorer:
        scored = scorer.score(endless())
        next(scored)
        assert taken <= 2 * WINDOW + 2
        del scored  # ends the reader


def test_a_missing_field_names_the_line_after_the_rows_before_came_out() -> None:
    rows = [parse('{"id": "a", "completion": "x", "answer": "1"}', "f.jsonl:1"), parse('{"id": "b", "completion": "x"}', "f.jsonl:2")]
    with Scorer(parse_specs("accuracy")) as scorer:
        scored = scorer.score(rows)
        assert next(scored)["id"] == "a"
        with pytest.raises(R1Error) as error:
            next(scored)
    assert "f.jsonl:2" in error.value.message
    assert "`answer`" in error.value.message
    assert error.value.code == 2


def test_an_error_of_the_input_comes_after_its_rows() -> None:
    def broken() -> Iterator[Row]:
        yield Row({"completion": GOOD})
        raise R1Error("line 2 is broken")

    with Scorer(parse_specs("format")) as scorer:
        scored = scorer.score(broken())
        assert next(scored)["reward"] == 1.0
        with pytest.raises(R1Error, match="line 2"):
            next(scored)


def test_nothing_in_nothing_out() -> None:
    with Scorer(parse_specs("accuracy")) as scorer:
        assert list(scorer.score([])) == list(scorer.score(iter([]))) == []


def test_scoring_works_beside_other_threads() -> None:
    results: list[float] = []
    with Scorer(parse_specs(f"{FILE}:lengths"), workers=1, timeout=60.0) as scorer:
        thread = threading.Thread(target=lambda: results.extend(row["reward"] for row in scorer.score([Row({"completion": "abc"})])))
        thread.start()
        thread.join(60)
    assert results == [3.0]


def test_unreadable_golds_count_nothing_and_are_reported() -> None:
    rows = [
        Row({"id": "bad", "answer": r"\frac{1", "completion": r"\boxed{\frac{1}"}),
        Row({"id": "ok", "answer": "4", "completion": GOOD}),
    ]
    with Scorer(parse_specs("accuracy"), workers=1, timeout=60.0) as scorer:
        assert [row["rewards"]["accuracy"] for row in scorer.score(rows)] == [None, 1.0]
        assert "`bad`" in scorer.warnings()[0]


@pytest.mark.parametrize("specs", ["length:max=64:by=math", "brevity:max=64:by=math", "math,length:max=64:by=math"])
def test_what_the_reward_behind_a_length_complains_of_is_said_once(specs: str) -> None:
    rows = [Row({"id": "a", "answer": "\\frac{1", "completion": "\\boxed{1}", "num_tokens": 3, "finish_reason": "stop"})]
    with Scorer(parse_specs(specs)) as scorer:
        assert all(score is None for score in next(scorer.score(rows))["rewards"].values())
        assert [line.partition(" (")[0] for line in scorer.warnings()] == ["1 rows have an `answer` that cannot be read and count nothing"]
