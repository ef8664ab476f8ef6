"""What `r1 distill` reads of pipes and of empty files: rows that would be lost without a word are refused."""

import os
from pathlib import Path

import pytest

from tests.contract.conftest import Run, assert_error
from tests.contract.test_distill import TRACES, lines


@pytest.mark.parametrize(
    ("flag", "name", "said", "more"),
    [
        ("--general", "/dev/stdin:1", "-", []),
        ("--general", "fifo", "fifo", ["--dry-run"]),
        ("--eval", "-", "-", ["--dry-run"]),
        ("--eval", "fifo", "fifo", []),
    ],
)
def test_a_pipe_is_refused_where_it_would_be_read_twice(
    r1: Run, tiny: Path, tmp_path: Path, flag: str, name: str, said: str, more: list[str]
) -> None:
    (tmp_path / "traces.jsonl").write_text(lines(*TRACES))
    os.mkfifo(tmp_path / "fifo")
    words = ["distill", "--student", str(tiny), "--traces", "traces.jsonl", "--rewards", "accuracy", *more, "-o", "run"]
    rows = lines({"prompt": "Hello", "completion": "Hello!", "answer": "1"})
    done = r1(*words, flag, name, stdin=rows, timeout=100)
    assert_error(done, 2, f"{flag} `{said}` is read more than once", "r1 mix ")
    assert not (tmp_path / "run").exists()


def test_traces_may_come_from_a_pipe(r1: Run, tiny: Path, tmp_path: Path) -> None:
    words = ["distill", "--student", str(tiny), "--traces", "/dev/stdin", "--rewards", "accuracy", "--dtype", "float32", "-o", "run"]
    done = r1(*words, "--epochs", "1", stdin=lines(*TRACES))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/train.jsonl").read_bytes().count(b"\n") == len(TRACES)


@pytest.mark.parametrize("name", ["empty.jsonl", "-"])
def test_no_traces_are_no_rows_in_a_run_and_in_a_dry_run(r1: Run, tiny: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    for more in (["--dry-run"], []):
        done = r1("distill", "--student", str(tiny), "--traces", name, "--rewards", "accuracy", *more, "-o", "run", timeout=100)
        assert_error(done, 2, "no rows: the input is empty", "give prompt rows")
    assert (tmp_path / "run").exists() is (name == "-")  # a pipe cannot be looked into before
