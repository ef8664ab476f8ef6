"""What `r1 eval` and `r1 sample` can know to be wrong with a row is said before the first completion is drawn, or paid for."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import Done, Run, assert_error
from tests.fake_server import FakeServer

PROMPTS = [{"id": f"p{n}", "prompt": f"{n} + 1?", "answer": str(n + 1)} for n in range(3)]


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def drawn(r1: Run, command: str, rows: str, *words: str) -> tuple[Done, int]:
    """The command against a server, and how many completions it asked for."""
    with FakeServer(says=lambda asked: "<answer>1</answer>") as server:
        done = r1(command, "--model", "teacher", "--url", server.url, *words, stdin=rows)
        return done, len(server.requests)


@pytest.mark.parametrize(
    ("odd", "words", "what"),
    [
        ({"id": "z", "prompt": "?"}, (), "1 of 4 rows cannot be scored: stdin:4: row `z` has no field `answer`"),
        ({"id": "z", "prompt": "?"}, ("--rewards", "code"), "4 of 4 rows cannot be scored: stdin:1: row `p0`: it has no field `tests`"),
        ({"id": "z", "answer": "1"}, (), "stdin:4: row `z` has no field `prompt`"),
        ({"id": "p0", "prompt": "another?", "answer": "1"}, (), "row `p0` has the id of an earlier row and another prompt"),
        ({"id": "z", "prompt": "?", "completion": "1", "answer": "1"}, (), "row `z` has a `completion` already"),
    ],
)
def test_eval_looks_at_all_rows_first(r1: Run, odd: dict[str, Any], words: tuple[str, ...], what: str) -> None:
    done, asked = drawn(r1, "eval", lines(*PROMPTS, odd), *words)
    assert_error(done, 2, what)
    assert asked == 0


def test_eval_draws_a_repeated_prompt_once_and_leaves_out_what_cannot_be_scored_when_asked(r1: Run) -> None:
    done, asked = drawn(r1, "eval", lines(*PROMPTS, PROMPTS[0], {"id": "z", "prompt": "?"}), "--skip-bad", "-k", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout)["problems"], json.loads(done.stdout)["samples"], asked) == (3, 6, 6)
    assert "warning: 1 rows left out: their prompt and id were there before" in done.stderr
    assert "warning: 1 bad lines left out, the first: stdin:5: row `z` has no field `answer`" in done.stderr


@pytest.mark.parametrize("other", [{"answer": "7"}, {"choices": ["2", "3"], "answer": "A"}])
def test_eval_takes_a_prompt_with_another_answer_for_another_problem(r1: Run, other: dict[str, Any]) -> None:
    """Without ids of their own both have that of their prompt: neither may be left out as if it were the other."""
    rows = lines(*({name: value for name, value in {**PROMPTS[0], **more}.items() if name != "id"} for more in ({}, other)))
    done, asked = drawn(r1, "eval", rows)
    assert_error(done, 2, "has the id of an earlier row and another prompt, answer, choices or tests", "give each its own `id`")
    assert asked == 0 and "--map id=COLUMN" in done.stderr
    done, asked = drawn(r1, "eval", rows, "--skip-bad", "--json")
    assert (done.returncode, json.loads(done.stdout)["problems"], asked) == (0, 1, 1) and "1 bad lines left out" in done.stderr


def test_eval_of_completions_leaves_out_what_cannot_be_scored_when_asked(r1: Run) -> None:
    rows = lines(PROMPTS[0] | {"completion": "1"}, {"id": "z", "completion": "1"})
    done = r1("eval", "--skip-bad", "--json", stdin=rows)
    assert done.returncode == 0 and json.loads(done.stdout)["problems"] == 1
    assert "1 bad lines left out" in done.stderr


def test_eval_still_counts_nothing_for_a_gold_that_is_null(r1: Run) -> None:
    done, asked = drawn(r1, "eval", lines(*PROMPTS, {"id": "z", "prompt": "?", "answer": None}), "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["problems"] == 3 and asked == 4
    assert "1 rows have no answer to score by and count nothing" in done.stderr


@pytest.mark.parametrize("words", [(), ("--until", "correct=1", "--max", "2")])
def test_sample_with_rewards_looks_at_a_file_first(r1: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "in.jsonl").write_text(lines(*PROMPTS, {"id": "z", "prompt": "?"}))
    done, asked = drawn(r1, "sample", "", "--rewards", "accuracy", *words, "in.jsonl")
    assert_error(done, 2, "in.jsonl:4: row `z` has no field `answer`", "--map answer=COLUMN")
    assert (done.stdout, asked) == ("", 0)
    assert done.stderr.partition("; it has ")[2].startswith("id, prompt\n")  # the columns of the file, no others


@pytest.mark.parametrize("words", [("in.jsonl",), ("-",)])
def test_sample_leaves_out_what_rewards_could_not_score_when_asked(r1: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    text = lines({"id": "z", "prompt": "?"}, *PROMPTS)
    (tmp_path / "in.jsonl").write_text(text)
    done, asked = drawn(r1, "sample", text, "--rewards", "accuracy", "--skip-bad", *words)
    assert done.returncode == 0, done.stderr
    assert (len(done.stdout.splitlines()), asked) == (3, 3)
    assert done.stderr.startswith("sample: 3 prompts, 3 completions")
    assert "left out 1 bad rows, the first: " in done.stderr


def test_sample_counts_as_prompts_what_was_drawn_from(r1: Run, tiny: Path, tmp_path: Path) -> None:
    """Neither a prompt that does not fit nor one that is no text; each is counted once, however many rounds --until makes."""
    long, odd = {"id": "long", "prompt": "x " * 2000, "answer": "1"}, {"id": "odd", "prompt": 5, "answer": "1"}
    (tmp_path / "in.jsonl").write_text(lines(PROMPTS[0], long, odd))
    words = ("--engine", "transformers", "--dtype", "float32", "--max-completion-length", "8", "--skip-bad", "-o", "out.jsonl", "--force")
    for more, rows in (((), 1), (("--until", "correct=1", "--max", "3"), 3)):
        done = r1("sample", "--model", str(tiny), *words, *more, "in.jsonl")
        assert done.returncode == 0, done.stderr
        assert f"sample: 1 prompts, {rows} completions" in done.stderr
        assert "warning: 1 prompts left out: longer than" in done.stderr and "left out 1 bad rows, the first: in.jsonl:3" in done.stderr
        counts = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())["counts"]
        assert (counts["in"], counts["prompts"], counts["too_long"], counts["bad"], counts["out"]) == (3, 1, 1, 1, rows)


def test_an_order_of_choices_that_cannot_be_made_does_not_keep_until_waiting(r1: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def one(row):\n    return 1.0\n")
    odd = {"id": "z", "prompt": "?", "choices": ["a", "b"], "answer": "neither"}
    words = ("--rewards", "mine.py:one", "--until", "one > 0=1", "--max", "2", "--shuffle-choices", "--skip-bad")
    with FakeServer() as server:
        done = r1("sample", "--model", "teacher", "--url", server.url, *words, stdin=lines(odd, *PROMPTS), timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert "left out 1 bad rows" in done.stderr and "one > 0=1: 3 prompts reached it, 1 did not" in done.stderr


def test_an_empty_stop_string_is_refused(r1: Run) -> None:
    """Of an unset variable of the shell; every completion would be empty."""
    for command in ("sample", "eval"):
        done, asked = drawn(r1, command, lines(*PROMPTS), "--stop", "")
        assert_error(done, 2, "`--stop` is empty", "leave it out")
        assert asked == 0
