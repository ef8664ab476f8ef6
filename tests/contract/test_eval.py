"""`r1 eval` as a process: what is on stdout, which exit code, which files."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def r1(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED" and not name.startswith("R1_")}
    return subprocess.run([sys.executable, "-m", "r1cli", *words], input=stdin, capture_output=True, text=True, env=environ)


def completion(problem: int, sample: int, answer: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"p{problem}",
        "prompt": "1 + 1",
        "answer": "2",
        "sample": sample,
        "finish_reason": "stop",
        "num_tokens": 5,
        "model": "m",
        "completion": f"<think>\nhm\n</think>\n<answer>{answer}</answer>",
        **more,
    }


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Four problems x 4 completions: all right; one right in four, a wrong majority; none right; two cut short."""
    answers = ["2222", "2333", "4567", "2299"]
    path = tmp_path / "completions.jsonl"
    found = [
        completion(p, s, a, finish_reason="length" if (p, s) in ((3, 2), (3, 3)) else "stop")
        for p, text in enumerate(answers)
        for s, a in enumerate(text)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in reversed(found)))  # order does not matter
    return path


def test_json_is_one_object_with_the_scores(rows: Path, tmp_path: Path) -> None:
    done = r1("eval", str(rows), "--json", "-o", str(tmp_path / "scores.json"))
    assert (done.returncode, done.stderr) == (0, "")
    scores = json.loads(done.stdout)
    assert (scores["model"], scores["problems"], scores["samples"], scores["k"]) == ("m", 4, 16, 4)
    assert scores["pass@1"] == pytest.approx((1 + 0.25 + 0 + 0.5) / 4)
    assert scores["pass@2"] == pytest.approx((1 + 0.5 + 0 + 5 / 6) / 4)
    assert scores["pass@4"] == pytest.approx(3 / 4)
    assert scores["cons@k"] == pytest.approx(2 / 4)
    assert 0 < scores["low"] < scores["pass@1"] < scores["high"] < 1
    assert (scores["truncated"], scores["mean_tokens"], scores["tokens"]) == (2 / 16, 5, 80)
    assert scores["rewards"] == {"accuracy": pytest.approx(scores["pass@1"])}
    assert json.loads((tmp_path / "scores.json").read_text()) == scores


def test_people_get_a_table_and_stderr_stays_quiet(rows: Path) -> None:
    done = r1("eval", str(rows))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("m: 4 problems, 16 completions\n")
    found = [tuple(line.split()[:2]) for line in done.stdout.splitlines()[3:7]]
    assert found == [("pass@1", "43.8%"), ("pass@2", "58.3%"), ("pass@4", "75.0%"), ("cons@4", "50.0%")]


def test_stdin_and_scored_rows(rows: Path, tmp_path: Path) -> None:
    kept = tmp_path / "scored.jsonl"
    done = r1("eval", "--json", "--rewards", "accuracy,format=0.5", "--rows", str(kept), stdin=rows.read_text())
    assert done.returncode == 0, done.stderr
    scored = [json.loads(line) for line in kept.read_text().splitlines()]
    assert len(scored) == 16 and scored[0]["rewards"] == {"accuracy": 0.0, "format": 0.0} and scored[-1]["reward"] == 1.5
    again = json.loads(r1("eval", "--json", str(kept)).stdout)
    assert again["pass@1"] == json.loads(done.stdout)["pass@1"]


def test_answers_vote_by_value(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(completion(0, s, a)) + "\n" for s, a in enumerate(["2", "2", "0.5", "1/2", "\\frac{1}{2}"])))
    assert json.loads(r1("eval", "--json", str(path)).stdout)["cons@k"] == 0


def test_options_vote_by_label(tmp_path: Path) -> None:
    said = ["The answer is (B).", "\\boxed{B}", "C", "C", "Answer: B"]
    path = tmp_path / "rows.jsonl"
    question = {"prompt": "Which?", "choices": ["ant", "bee", "cow"], "answer": "B"}
    path.write_text("".join(json.dumps(completion(0, s, "") | question | {"completion": text}) + "\n" for s, text in enumerate(said)))
    scores = json.loads(r1("eval", "--json", str(path)).stdout)
    assert (scores["pass@1"], scores["cons@k"]) == (0.6, 1.0)


@pytest.mark.parametrize(
    ("floor", "code"), [("pass@1=0.4", 0), ("pass@1=0.5", 1), ("pass@4=0.75", 0), ("accuracy=0.9", 1), ("cons@k=0.6", 1)]
)
def test_a_floor_decides_the_exit_code_after_the_scores_are_out(rows: Path, floor: str, code: int) -> None:
    done = r1("eval", str(rows), "--json", "--min", floor)
    assert done.returncode == code
    assert json.loads(done.stdout)["problems"] == 4
    assert done.stderr.startswith("error: ") == bool(code)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--min", "pass@1"), "is not a score and a number"),
        (("--min", "pas@1=0.5"), "did you mean `pass@1`?"),
        (("--min", "pass@64=0.5"), "a problem has 4 completions only, so there is no `pass@64`"),
        (("--rows", "-"), "--rows and the scores are both stdout"),
        (("-k", "2"), "--samples does nothing: completion rows are scored as they are"),
        (("--rewards", "acuracy"), "did you mean `accuracy`?"),
        (("--benchmark", "math50"), "did you mean `math500`?"),
        (("--map", "answer=gold"), "no column `gold`"),
        (("--model", "somewhere"), "has a `completion` already"),
        (("nothing.jsonl",), "no such file: `nothing.jsonl`"),
    ],
)
def test_what_is_asked_wrongly_is_one_error_one_hint_and_exit_2(rows: Path, words: tuple[str, ...], what: str) -> None:
    done = r1("eval", str(rows), *words)
    assert done.returncode == 2
    assert what in done.stderr and "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: ") and lines[1] == "" and lines[2].startswith("hint: ") and len(lines) == 3


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"id": "a", "prompt": "?", "answer": "1"}, "stdin:1: row `a` has no `completion`, and no `--model` is given"),
        ({"id": "a", "completion": "1"}, "stdin:1: row `a` has no field `answer`"),
        ({"id": "a", "completion": 1, "answer": "1"}, "field `completion` must be string"),
    ],
)
def test_a_row_that_cannot_be_scored_is_named(row: dict[str, Any], what: str) -> None:
    done = r1("eval", stdin=json.dumps(row) + "\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert what in done.stderr


def test_the_same_completion_twice_is_refused(rows: Path) -> None:
    done = r1("eval", str(rows), str(rows))
    assert done.returncode == 2 and "sample 3 is there twice" in done.stderr


def test_rows_without_a_checkable_answer_count_nothing(rows: Path) -> None:
    none = json.dumps(completion(9, 0, "2") | {"answer": None}) + "\n"
    done = r1("eval", "--json", stdin=rows.read_text() + none)
    assert json.loads(done.stdout)["problems"] == 4 and "1 rows have no answer" in done.stderr
    assert r1("eval", stdin=none).returncode == 2


def test_uneven_problems_are_said(rows: Path) -> None:
    done = r1("eval", "--json", "-n", "15", str(rows))
    assert json.loads(done.stdout)["k"] == 3 and "between 3 and 4 completions" in done.stderr


def test_a_problem_with_more_completions_weighs_no_more_in_the_mean_of_a_reward(tmp_path: Path) -> None:
    """As in pass@1, and in the interval that stands beside it."""
    path = tmp_path / "uneven.jsonl"
    found = [completion(0, sample, "2") for sample in range(9)] + [completion(1, 0, "3"), completion(2, 0, "2")]
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    done = r1("eval", str(path), "--json", "--rewards", "accuracy,format")
    scores = json.loads(done.stdout)
    assert scores["rewards"] == {"accuracy": pytest.approx(2 / 3), "format": pytest.approx(1)} and scores["pass@1"] == pytest.approx(2 / 3)
    assert scores["reward_intervals"]["accuracy"] == [scores["low"], scores["high"]]


def test_any_pass_at_k_that_is_asked_for_is_computed(rows: Path) -> None:
    done = r1("eval", str(rows), "--json", "--min", "pass@3=0.6")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pass@3"] == pytest.approx((1 + 0.75 + 0 + 1) / 4)
    assert "pass@3" in r1("eval", str(rows), "--min", "pass@3=0.6").stdout


def test_used_outputs_are_refused_before_anything_is_read(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    out.write_text("mine")
    for flag in ("-o", "--rows"):
        assert r1("eval", str(rows), flag, str(out if flag == "-o" else rows)).returncode == 2
    assert out.read_text() == "mine"
    assert r1("eval", str(rows), "-o", str(out), "--force").returncode == 0


def test_the_list_of_benchmarks_needs_no_rows() -> None:
    done = r1("eval", "--list-benchmarks")
    assert done.returncode == 0 and "math500" in done.stdout and done.stderr == ""


@pytest.mark.slow
def test_a_model_is_sampled_and_scored_in_one_go(tiny: Path, tmp_path: Path) -> None:
    problems = "".join(json.dumps({"id": f"p{i}", "prompt": f"What is {i} + 1?", "answer": str(i + 1)}) + "\n" for i in range(3))
    kept = tmp_path / "rows.jsonl"
    model = ("-m", str(tiny), "--engine", "transformers", "--dtype", "float32", "--max-completion-length", "8")
    done = r1("eval", *model, "-k", "2", "--json", "--rows", str(kept), stdin=problems)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    assert (scores["model"], scores["problems"], scores["samples"], scores["k"]) == (str(tiny), 3, 6, 2)
    assert scores["tokens"] == sum(row["num_tokens"] for row in rows)
    assert sorted((row["id"], row["sample"]) for row in rows) == [(f"p{i}", s) for i in range(3) for s in range(2)]
    assert scores["truncated"] == sum(row["finish_reason"] == "length" for row in rows) / 6
    again = json.loads(r1("eval", "--json", str(kept)).stdout)
    assert [again[key] for key in ("pass@1", "cons@k", "mean_tokens")] == [scores[key] for key in ("pass@1", "cons@k", "mean_tokens")]


def test_options_are_shuffled_by_seed_when_asked(tiny: Path, tmp_path: Path) -> None:
    """The prompt, `choices` and `answer` of every row change together, the same way for the same seed; other rows stay as they are."""
    metals = ["copper", "tin", "iron", "gold"]
    asked = [{"id": f"p{i}", "prompt": f"{i}: which rusts?", "choices": metals, "answer": "C"} for i in range(6)]
    problems = "".join(json.dumps(row) + "\n" for row in [*asked, {"id": "plain", "prompt": "1 + 1?", "answer": "2"}])
    model = ("-m", str(tiny), "--engine", "transformers", "--dtype", "float32", "--max-completion-length", "2", "--shuffle-choices")
    drawn = {}
    for name, seed in (("a", "1"), ("again", "1"), ("b", "2")):
        kept = tmp_path / f"{name}.jsonl"
        done = r1("eval", *model, "--seed", seed, "--rows", str(kept), stdin=problems)
        assert done.returncode == 0, done.stderr
        drawn[name] = {row["id"]: row for row in map(json.loads, kept.read_text().splitlines())}
    for row in drawn["a"].values():
        if row["id"] == "plain":
            assert row["prompt"] == "1 + 1?"
            continue
        assert row["choices"]["ABCD".index(row["answer"])] == "iron"
        assert row["prompt"].endswith("\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", row["choices"], strict=True)))
    orders = {name: [row.get("choices") for row in sorted(rows.values(), key=lambda r: r["id"])] for name, rows in drawn.items()}
    assert orders["a"] == orders["again"] != orders["b"]
    assert len({tuple(order) for order in orders["a"] if order}) > 1
