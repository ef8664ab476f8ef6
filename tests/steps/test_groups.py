"""What needs all rows of a prompt: rows that wait on disk, the difficulty window, the diverse pick."""

import json
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1cli.errors import R1Error
from r1cli.row import Row, dump, parse
from r1cli.steps import pass_rate
from r1cli.steps.keep import Dropped
from r1cli.steps.pick import most_different, pick_rows
from r1cli.steps.spool import Spool

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.text(), json_values, max_size=4), max_size=8), st.data())
def test_rows_come_back_from_disk_byte_for_byte_in_any_order(values: list[dict], data: st.DataObject) -> None:
    rows = [Row(value, where=f"a b.jsonl:{number}") for number, value in enumerate(values)]
    with Spool() as spool:
        for number, row in enumerate(rows):
            assert spool.add(row) == number
            if data.draw(st.booleans()):
                assert dump(spool.row(number)) == dump(row)
        for number in data.draw(st.permutations(range(len(rows)))):
            assert (dump(spool.row(number)), spool.row(number).where) == (dump(rows[number]), rows[number].where)
        assert len(spool) == len(rows)


def test_a_line_that_was_read_is_given_back_as_it_was_written() -> None:
    line = '{"id":1,  "x": 1.50, "y": "\\u00e4"}'
    with Spool() as spool:
        spool.add(parse(line, "f:1"))
        assert dump(spool.row(0)) == line


@pytest.mark.parametrize(("text", "low", "high"), [("0.1..0.9", 0.1, 0.9), ("..0.5", 0, 0.5), ("0.25..", 0.25, 1), (" 0..1 ", 0, 1)])
def test_windows(text: str, low: float, high: float) -> None:
    assert pass_rate.parse(text) == pass_rate.Window(low, high)


@pytest.mark.parametrize("text", ["", "..", "0.5", "0.9..0.1", "0..1.5", "a..b", "-1..1", "0.1...9.", "10%..90%"])
def test_ranges_without_sense(text: str) -> None:
    with pytest.raises(R1Error, match="is not a range of shares"):
        pass_rate.parse(text)


def scored() -> list[Row]:
    """Prompts of which 0 of 2, 1 of 2, 2 of 2 are right, and one that could not be judged; interleaved."""
    scores = [("none", 0.0), ("half", 1.0), ("all", 1.0), ("unknown", None), ("none", 0.0), ("half", 0.0), ("all", 1.0)]
    return [Row({"id": name, "sample": n, "rewards": {"accuracy": score}, "completion": ""}) for n, (name, score) in enumerate(scores)]


def test_the_window_counts_every_completion_also_those_dropped_before() -> None:
    rates = pass_rate.PassRates("accuracy", 1.0)
    dropped = Dropped()
    right = (row for row in rates.watch(scored()) if row["rewards"]["accuracy"] != 0.0)
    stay = list(pass_rate.within(right, pass_rate.Window(0.1, 0.9), rates, dropped))
    assert [(row["id"], row["sample"]) for row in stay] == [("half", 1)]
    assert dropped.reasons == {"pass rate above 0.9": 2, "pass rate unknown: no completion of the prompt could be judged": 1}
    assert [rates.of(name) for name in ("none", "half", "all", "unknown")] == [0.0, 0.5, 1.0, None]


def test_the_ends_of_the_window_are_inside() -> None:
    rates = pass_rate.PassRates("accuracy", 1.0)
    rows = list(rates.watch(scored()))
    stay = pass_rate.within(rows, pass_rate.Window(0.5, 1.0), rates, Dropped())
    assert [row["sample"] for row in stay] == [1, 2, 5, 6]


def test_where_no_rule_judged_the_judge_decides_what_is_right() -> None:
    rates = pass_rate.PassRates("accuracy", 1.0)
    list(rates.watch([Row({"id": "a", "rewards": {"accuracy": None, "judge": score}}) for score in (1.0, 0.0, 1.0, 1.0, None)]))
    assert rates.of("a") == 0.75


def test_without_a_window_rows_stream() -> None:
    rows = iter(scored())
    assert next(pass_rate.within(rows, None, pass_rate.PassRates("accuracy", 1.0), Dropped()))["id"] == "none"
    assert next(rows)["id"] == "half"


TEXTS = ["the cat sat on the mat", "the cat sat on the mat today", "a dog ran in the park", "a dog ran in the park today", "xyz"]


def test_the_diverse_pick_by_hand() -> None:
    """Distances: 0-1 and 2-3 are near (1/5 of 5 shingles apart), everything else is 1: one of each kind comes before a second."""
    rows = [Row({"completion": text}) for text in TEXTS]
    assert most_different(rows, 1) == [0]
    assert most_different(rows, 3) == [0, 2, 4]
    assert most_different(rows, 5) == [0, 2, 4, 1, 3]


@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=8).map(" ".join), min_size=3, max_size=7), st.integers(2, 3))
def test_the_diverse_pick_is_within_a_factor_of_two_of_the_best(texts: list[str], count: int) -> None:
    """Gonzalez 1985: farthest-point selection reaches half of the largest smallest distance there is."""
    grams = [
        frozenset(zip(words, words[1:], words[2:], strict=False)) if len(words := text.split()) > 2 else frozenset([tuple(words)])
        for text in texts
    ]

    def spread(places: tuple[int, ...] | list[int]) -> float:
        return min(1 - len(grams[a] & grams[b]) / len(grams[a] | grams[b]) for a, b in combinations(places, 2))

    found = most_different([Row({"completion": text}) for text in texts], count)
    assert len(set(found)) == count
    assert spread(found) >= max(spread(places) for places in combinations(range(len(texts)), count)) / 2 - 1e-9


def test_diverse_starts_at_the_best_and_counts_the_rest() -> None:
    rows = [Row({"id": "q", "sample": n, "completion": text, "reward": float(n == 3)}) for n, text in enumerate(TEXTS)]
    dropped = Dropped()
    assert 3 in [row["sample"] for row in pick_rows(rows, 1, "diverse", 0, dropped)]
    assert dropped.reasons == {"not picked (--per-prompt 1, diverse)": 4}
    picked = [row["sample"] for row in pick_rows(rows, 3, "diverse", 0, Dropped())]
    assert picked == sorted(picked)
    assert {frozenset((0, 1)) & set(picked) != set(), 3 in picked, 4 in picked} == {True}


def test_picked_rows_are_the_lines_that_came_in() -> None:
    lines = [json.dumps({"id": "q", "sample": n, "completion": "x" * n, "num_tokens": n}, separators=(",", ":")) for n in range(4)]
    rows = [parse(line) for line in lines]
    assert [dump(row) for row in pick_rows(rows, 2, "longest", 0, Dropped())] == lines[2:]
