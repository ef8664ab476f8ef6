"""`r1 sample` as a process: rows and nothing else on stdout, seeds, what is left out, resuming, and how it ends.

Most of it runs on the transformers engine, which loads faster; one test goes through vLLM, which prints to descriptor 1.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from r1cli.row import seed_of
from tests.contract.conftest import assert_error, command_line, environment
from tests.tiny import tiny_model

PROMPTS = [{"id": f"p{n}", "prompt": f"What is {n} + 1?", "answer": str(n + 1), "extra": {"kept": [n, None]}} for n in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in PROMPTS)
FAST = ("--engine", "transformers", "--dtype", "float32", "--max-completion-length", "12")


def rows_of(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def by_pair(rows: list[dict]) -> dict:
    return {(row["id"], row["sample"]): row for row in rows}


@pytest.mark.vllm
def test_only_rows_on_stdout_and_the_summary_on_stderr(r1, tiny):
    done = r1("sample", "--model", str(tiny), "-k", "2", "--kv-cache-gib", "0.1", "--max-completion-length", "12", stdin=LINES)
    assert done.returncode == 0, done.stderr
    rows = rows_of(done.stdout)
    assert sorted((row["id"], row["sample"]) for row in rows) == [(f"p{n}", k) for n in range(3) for k in range(2)]
    assert list(rows[0])[:4] == ["id", "prompt", "answer", "extra"]
    assert list(rows[0])[4:] == ["sample", "completion", "finish_reason", "num_tokens", "model", "seed"]
    assert done.stderr.startswith("sample: 3 prompts, 6 completions")
    assert "(vllm)" in done.stderr
    assert len(done.stderr.splitlines()) <= 6


def test_the_same_seed_gives_the_same_rows_in_any_order(r1, tiny):
    words = ("sample", "--model", str(tiny), *FAST, "-k", "2", "-q")
    first = r1(*words, stdin=LINES)
    assert (first.returncode, first.stderr) == (0, "")
    turned = "".join(reversed(LINES.splitlines(keepends=True)))
    assert by_pair(rows_of(r1(*words, "--batch-size", "1", stdin=turned).stdout)) == by_pair(rows_of(first.stdout))
    row = rows_of(first.stdout)[0]
    assert row["seed"] == seed_of(0, row["id"], row["sample"])
    assert row["extra"] == PROMPTS[int(row["id"][1])]["extra"]


def test_a_long_prompt_is_left_out_and_counted_and_an_opened_think_is_in_the_row(r1, tiny):
    lines = LINES + json.dumps({"id": "long", "prompt": "x " * 2000}) + "\n"
    done = r1("sample", "--model", str(tiny), *FAST, "--think-prefix", stdin=lines)
    assert done.returncode == 0
    assert sorted(row["id"] for row in rows_of(done.stdout)) == ["p0", "p1", "p2"]
    assert {row["think_prefix"] for row in rows_of(done.stdout)} == {"<think>\n"}
    assert "warning: 1 prompts left out: longer than the 500 tokens" in done.stderr


def test_resume_draws_what_is_missing(r1, tiny, tmp_path):
    """After a kill -9 in the middle of a line: whole rows stay byte for byte, the torn one is drawn again, nothing twice."""
    words = ("sample", "--model", str(tiny), *FAST, "-k", "2", "-o", "out.jsonl")
    whole = r1(*words, stdin=LINES)
    assert (whole.returncode, whole.stdout) == (0, "")
    out = tmp_path / "out.jsonl"
    expected = by_pair(rows_of(out.read_text()))
    kept = out.read_text().splitlines(keepends=True)
    out.write_text("".join(kept[:3]) + kept[3][:40])
    assert_error(r1(*words, stdin=LINES), 2, "`out.jsonl` exists")
    done = r1(*words, "--resume", stdin=LINES)
    assert done.returncode == 0, done.stderr
    assert "3 completions (3 were there)" in done.stderr
    assert out.read_text().startswith("".join(kept[:3]))
    assert len(rows_of(out.read_text())) == 6
    assert by_pair(rows_of(out.read_text())) == expected
    assert_error(r1(*words, "--resume", "--seed", "5", stdin=LINES), 2, "another --seed")


def test_nothing_in_nothing_out_and_no_model_is_loaded(r1, tiny):
    done = r1("sample", "--model", str(tiny), stdin="")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("words", "stdin", "message"),
    [
        (["-k", "2", "--temperature", "0"], LINES, "the same completion 2 times"),
        (["--temperature", "0", "--top-p", "0.5"], LINES, "--top-p does nothing"),
        (["--resume"], LINES, "--resume needs a plain .jsonl file"),
        (["missing.jsonl"], "", "no such file"),
        ([], '{"id": "a"}\n', "stdin:1: row `a` has no field `prompt`"),
        ([], LINES + "{broken\n", "stdin:4: not valid JSON"),
        (["--template", "bxed"], LINES, "no template named `bxed`"),
        (["--max-completion-length", "5000"], LINES, "leaves no room"),
    ],
)
def test_mistakes_are_one_error_and_one_hint(r1, tiny, words, stdin, message):
    done = r1("sample", "--model", str(tiny), *FAST, *words, stdin=stdin)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0], done.stderr
    assert done.stderr.splitlines()[-1].startswith("hint: ")
    assert "Traceback" not in done.stderr


def test_a_model_without_a_chat_template_names_the_way_out(r1, tmp_path):
    folder = tiny_model(tmp_path / "base", chat_template=None)
    assert_error(r1("sample", "--model", str(folder), *FAST, stdin=LINES), 2, "no chat template", "--template r1-zero")


def _start(cwd: Path, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [*command_line(), "sample", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=environment(),
        text=True,
    )


def test_rows_come_while_stdin_is_open_and_a_reader_that_leaves_ends_it_silently(tiny, tmp_path):
    process = _start(tmp_path, "--model", str(tiny), *FAST, "-k", "2000", "--no-progress")
    assert process.stdin and process.stdout and process.stderr
    process.stdin.write(LINES.splitlines(keepends=True)[0])
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["id"] == "p0"
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert process.stderr.read() == ""


def test_ctrl_c_keeps_what_is_finished_and_names_the_command_that_continues(tiny, tmp_path):
    (tmp_path / "in.jsonl").write_text(LINES)
    process = _start(tmp_path, "--model", str(tiny), *FAST, "-k", "20000", "-o", "out.jsonl", "in.jsonl", "--no-progress")
    out = tmp_path / "out.jsonl"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not (out.exists() and out.stat().st_size > 2000):
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert stderr.splitlines()[-1].startswith("hint: r1 sample --model")
    assert stderr.splitlines()[-1].endswith("--resume")
    assert out.read_text().endswith("\n")
    assert all(row["completion"] is not None for row in rows_of(out.read_text()))
