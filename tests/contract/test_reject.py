"""`r1 reject` as a user meets it."""

import json
from pathlib import Path

from tests.contract.conftest import Run, assert_error


def rows(*answers: tuple[str, int, str, str]) -> str:
    made = [
        {"id": i, "prompt": f"{i}?", "answer": answer, "source": "s", "sample": k, "completion": text, "num_tokens": len(text)}
        for i, k, answer, text in answers
    ]
    return "".join(json.dumps(row) + "\n" for row in made)


RIGHT, WRONG, BARE = "<think>so</think> \\boxed{4}", "<think>so</think> \\boxed{5}", "\\boxed{4}"
TEXT = rows(("a", 0, "4", RIGHT), ("a", 1, "4", WRONG), ("b", 0, "4", BARE), ("a", 2, "4", RIGHT + " "), ("c", 0, "4", RIGHT))


def read(text: str) -> list[dict]:
    return [json.loads(line) for line in text.split("\n")[:-1]]


def pairs(text: str) -> list[tuple[str, int]]:
    return [(row["id"], row["sample"]) for row in read(text)]


def test_rows_are_scored_and_the_passing_ones_stay(r1: Run, tmp_path: Path) -> None:
    done = r1("reject", "--rewards", "accuracy,format=0.5", "--rejected", "bad.jsonl", stdin=TEXT)
    assert done.returncode == 0, done.stderr
    kept = read(done.stdout)
    assert pairs(done.stdout) == [("a", 0), ("a", 2), ("c", 0)]
    assert kept[0] == {**read(TEXT)[0], "rewards": {"accuracy": 1.0, "format": 1.0}, "reward": 1.5}
    bad = read((tmp_path / "bad.jsonl").read_text())
    assert [(row["id"], row["sample"], row["reward"], row["rejected_because"]) for row in bad] == [
        ("a", 1, 0.5, "accuracy below 1"),
        ("b", 0, 1.0, "format below 1"),
    ]
    assert done.stderr.split("\n")[:2] == [
        "reject: 5 rows in, 3 kept, 2 dropped; mean accuracy 0.800, format 0.800",
        "dropped: 1 accuracy below 1; 1 format below 1",
    ]
    assert len(done.stderr.split("\n")) <= 7


def test_conditions_and_what_is_wrong_with_them(r1: Run) -> None:
    assert pairs(r1("reject", "--keep", "accuracy == 0 or num_tokens < 12", stdin=TEXT).stdout) == [("a", 1), ("b", 0)]
    wrong = r1("reject", "--keep", "accuracy = 1", stdin=TEXT)
    assert_error(wrong, 2, "condition, column 10: `=` is not part of a condition", "write `==`")
    wrong = r1("reject", "--keep", "acuracy == 1", stdin=TEXT)
    assert_error(wrong, 2, "stdin:1: row `a` has nothing named `acuracy`", "did you mean `accuracy`?")


def test_picking_by_length_and_by_seed(r1: Run) -> None:
    assert pairs(r1("reject", "--per-prompt", "1", "--pick", "shortest", stdin=TEXT).stdout) == [("a", 0), ("c", 0)]
    assert pairs(r1("reject", "--per-prompt", "1", "--pick", "longest", stdin=TEXT).stdout) == [("a", 2), ("c", 0)]
    runs = [r1("reject", "--keep", "all", "--per-prompt", "1", "--seed", str(seed), stdin=TEXT).stdout for seed in (0, 0, 1, 2, 3)]
    assert runs[0] == runs[1]
    assert len(set(runs)) > 1


def test_sft_rows(r1: Run) -> None:
    text = TEXT.replace('"completion": "<think>', '"think_prefix": "<think>\\n", "completion": "')
    done = r1("reject", "--to", "sft", "--rewards", "accuracy", "-n", "1", stdin=text)
    messages = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "<think>\nso</think> \\boxed{4}"}]
    assert read(done.stdout) == [{"id": "a", "messages": messages, "answer": "4", "source": "s", "sample": 0}]


def test_old_scores_are_replaced(r1: Run) -> None:
    scored = TEXT.replace('"num_tokens"', '"rewards": {"accuracy": 1.0, "old": 3.0}, "reward": 9.0, "num_tokens"')
    assert pairs(r1("reject", stdin=scored).stdout) == [("a", 0), ("a", 2), ("c", 0)]
    assert read(r1("reject", stdin=scored).stdout)[0]["rewards"] == {"accuracy": 1.0, "format": 1.0}


def test_rows_that_cannot_be_scored(r1: Run) -> None:
    for missing in ("completion", "answer"):
        lines = TEXT.split("\n")
        lines[2] = lines[2].replace(f'"{missing}"', '"other"')
        text = "\n".join(lines)
        done = r1("reject", stdin=text)
        assert done.returncode == 2
        assert f"error: stdin:3: row `b` has no field `{missing}`" in done.stderr
        assert f"--map {missing}=" in done.stderr
        assert pairs(done.stdout) == [("a", 0)]
        done = r1("reject", "--skip-bad", stdin=text)
        assert pairs(done.stdout) == [("a", 0), ("a", 2), ("c", 0)]
        assert "left out 1 bad rows, the first: stdin:3: row `b`" in done.stderr


def test_wrong_settings_are_said_before_any_row_is_read(r1: Run) -> None:
    assert_error(r1("reject", "--rewards", "acuracy", stdin="broken"), 2, "unknown reward `acuracy`", "did you mean `accuracy`?")
    assert_error(r1("reject", "-o", "a.jsonl", "--rejected", "a.jsonl", stdin="broken"), 2, "--out and --rejected name the same file")


def test_nothing_kept_is_no_failure_and_said(r1: Run) -> None:
    done = r1("reject", "--keep", "accuracy > 1", stdin=TEXT)
    assert (done.returncode, done.stdout) == (0, "")
    assert "warning: no row was kept" in done.stderr


def test_a_manifest_tells_what_made_the_file(r1: Run, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(TEXT)
    done = r1("reject", "in.jsonl", "-o", "kept.jsonl", "--to", "sft")
    assert done.returncode == 0, done.stderr
    assert "r1 sft" in done.stderr
    made = json.loads((tmp_path / "kept.jsonl.manifest.json").read_text())
    assert made["command"] == "reject"
    assert made["inputs"][0]["rows"] == 5
    assert made["counts"] == {"in": 5, "out": 3, "dropped": {"accuracy below 1": 1, "format below 1": 1}, "bad": 0}
    assert made["settings"]["to"] == "sft"
    assert len(made["outputs"][0]["sha256"]) == 64
