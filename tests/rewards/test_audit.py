"""The audit of golds: what is sound, and what is named."""

from r1cli.rewards.audit import audit_golds
from r1cli.row import Row


def test_problems_are_named_by_row() -> None:
    rows = [
        Row({"id": "a", "answer": "5"}, where="g.jsonl:1"),
        Row({"id": "b", "answer": ""}, where="g.jsonl:2"),
        Row({"id": "c", "answer": r"\frac{1"}, where="g.jsonl:3"),
        Row({"id": "d", "answer": None}, where="g.jsonl:4"),
        Row({"id": "e"}, where="g.jsonl:5"),
        Row({"id": "f", "answer": r"\frac{0}{0}"}, where="g.jsonl:6"),
        Row({"id": "g", "answer": "So 2 + 3 = 5.\n#### 5"}, where="g.jsonl:7"),
        Row({"id": "h", "answer": "E", "choices": ["one", "two"]}, where="g.jsonl:8"),
        Row({"id": "i", "answer": "B", "choices": ["one", "two"]}, where="g.jsonl:9"),
        Row({"id": "j", "tests": ["assert f(1) == 1"]}, where="g.jsonl:10"),
        Row({"id": "k", "answer": ["Paris", "Lutetia"]}, where="g.jsonl:11"),
        Row({"id": "l", "answer": {"value": 3}}, where="g.jsonl:12"),
        Row({"id": "m", "answer": r"x=0, x=\pm 2\sqrt{2}"}, where="g.jsonl:13"),
    ]
    audit = audit_golds(rows, timeout=60.0)
    assert sorted(p.row_id for p in audit.problems) == ["b", "c", "e", "f", "h", "l"]
    assert (audit.rows, audit.null) == (13, 1)
    assert audit.kinds == {"math": 10, "choice": 2, "code": 1}
    assert audit.lines(1)[0] == "6 of 13 rows have a gold that cannot be compared with"
    assert "g.jsonl:2" in " ".join(audit.lines())


def test_a_sound_set_says_nothing() -> None:
    assert audit_golds([Row({"id": 1, "answer": "4"})]).lines() == []


def test_every_row_with_a_bad_gold_is_named_by_its_id() -> None:
    bad = [Row({"id": f"row-{n}", "answer": "\\frac{1}{"}) for n in range(12)]
    audit = audit_golds([*bad, Row({"id": "fine", "answer": "May 5, 2020"}), Row({"id": "mc", "answer": "Z", "choices": ["a", "b"]})])
    said = "; ".join(audit.lines())
    assert all(f"`row-{n}`" in said for n in range(12))
    assert "`fine`" not in said
    assert "row `mc`" in said or "`mc`" in said
    assert said.count("cannot be read") == 4  # the reasons of the first five; the choice is found while reading


def test_a_gold_inside_of_an_object_is_pointed_at() -> None:
    """The rows of verl's data sets."""
    rows = [Row({"id": n, "prompt": "p", "reward_model": {"style": "rule", "ground_truth": "1"}}) for n in range(3)]
    said = "; ".join(audit_golds(rows).lines())
    assert said.count("(is it `reward_model.ground_truth`? --map answer=reward_model.ground_truth") == 1
