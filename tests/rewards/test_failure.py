"""A user's reward that raises: the error says where in his file, about which completion, and --debug has the traceback."""

from pathlib import Path

import pytest

from r1cli.errors import R1Error
from r1cli.rewards.failure import reply_of
from r1cli.rewards.registry import make, parse_specs
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row

SOURCE = """import json
def inner(text):
    return json.loads(text)
def one(row):
    return inner(row["completion"])
def many(rows):
    return [1 / len(row["completion"][1:]) for row in rows]
"""


def failure(folder: Path, function: str, rows: list[Row]) -> R1Error:
    (folder / "mine.py").write_text(SOURCE)
    with Scorer(parse_specs(f"{folder}/mine.py:{function}"), workers=1, timeout=60) as scorer, pytest.raises(R1Error) as error:
        list(scorer.score(rows))
    assert isinstance(error.value, R1Error)
    return error.value


def test_it_names_the_line_of_the_users_file_and_the_completion(tmp_path: Path) -> None:
    error = failure(tmp_path, "one", [Row({"id": "a", "sample": 3, "completion": "four " * 40}, where="s.jsonl:7")])
    assert error.message.startswith("reward `one` failed on s.jsonl:7: JSONDecodeError: Expecting value")
    assert error.message.endswith(f"in {tmp_path}/mine.py:3 (`inner`)")  # not json's own file, in which it raised
    assert error.hint is not None and '"four four' in error.hint and "(sample 3)" in error.hint and "--limit" not in error.hint
    assert len(error.hint) < 250
    (trace,) = error.__notes__
    assert 'mine.py", line 5, in one' in trace and "json.loads(text)" in trace


def test_a_batch_is_named_as_one(tmp_path: Path) -> None:
    error = failure(tmp_path, "many", [Row({"id": i, "completion": "x"}, where=f"s.jsonl:{i}") for i in (1, 2)])
    assert "failed on 2 rows from s.jsonl:1 on: ZeroDivisionError" in error.message and error.message.endswith("mine.py:7")
    assert error.hint is not None and "and those after it" in error.hint


def test_one_of_ours_is_a_bug_of_ours() -> None:
    (spec,) = parse_specs("format")
    reply = reply_of(KeyError("x"), make(spec), [Row({"id": "a", "completion": "y"})])
    assert reply["error"] == "reward `format` failed on row `a`: KeyError: 'x'" and "bug of r1" in reply["hint"]
