"""Wrong input, for every command that can get it: one error line, one hint, exit 2, nothing on stdout.

A missing file, a broken line 7, a missing field, an unknown reward, a model folder without weights, a used run directory. All of these
are found before a model is loaded, so the whole table needs no engine.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import Run, assert_error

PROMPT = {"id": 1, "prompt": "What is 1 + 1?", "answer": "2"}
COMPLETION = {**PROMPT, "sample": 0, "completion": "<think>a</think><answer>2</answer>", "finish_reason": "stop", "num_tokens": 3}
SFT = {"messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]}
PAIR = {"prompt": "1 + 1?", "chosen": "2", "rejected": "3"}

# The words of a call that is right but for its input; {model} is a small model, ROWS the row file.
CALLS = {
    "sample": ["sample", "-m", "{model}", "--engine", "transformers", "--max-completion-length", "2", "ROWS"],
    "reject": ["reject", "ROWS"],
    "mix": ["mix", "ROWS"],
    "sft": ["sft", "-m", "{model}", "-o", "run", "ROWS"],
    "rm": ["rm", "-m", "{model}", "-o", "run", "ROWS"],
    "grpo": ["grpo", "-m", "{model}", "-o", "run", "ROWS"],
    "distill": ["distill", "--student", "{model}", "-o", "run", "--traces", "ROWS"],
    "eval": ["eval", "ROWS"],
    "check": ["check", "ROWS"],
    "report": ["report", "ROWS"],
}
READS: dict[str, dict[str, Any]] = {
    "reject": COMPLETION,
    "mix": PROMPT,
    "sft": SFT,
    "rm": PAIR,
    "grpo": PROMPT,
    "distill": COMPLETION,
    "eval": COMPLETION,
    "check": PROMPT,
}


@pytest.fixture
def call(r1: Run, tiny: Path):
    """`call("sft", rows="x.jsonl", model=..., more=[...])`: run the command's line of `CALLS` with this input."""

    def run(command: str, rows: str, model: str = "", more: tuple[str, ...] = ()):
        words = [word.replace("{model}", model or str(tiny)).replace("ROWS", rows) for word in CALLS[command]]
        return r1(*words, *more)

    return run


def write(path: Path, *rows: object) -> None:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize("command", CALLS)
def test_a_missing_file(call, tmp_path: Path, command: str) -> None:
    write(tmp_path / "rows.jsonl", PROMPT)
    assert_error(call(command, "row.jsonl"), 2, "no such file: `row.jsonl`", "did you mean `rows.jsonl`?")


@pytest.mark.parametrize("command", READS)
def test_a_broken_line_is_named(call, tmp_path: Path, command: str) -> None:
    good = READS[command]
    rows = [{**good, "id": number} for number in range(6)]
    write(tmp_path / "rows.jsonl", *rows, '{"id": 7, "prompt": \n', good)
    done = call(command, "rows.jsonl")
    assert done.returncode == 2, done.stderr
    error, empty, hint = done.stderr.splitlines()[-3:]
    assert error.startswith("error: rows.jsonl:7: not valid JSON"), done.stderr
    assert (empty, hint.startswith("hint: ")) == ("", True)
    assert "--skip-bad" in hint
    assert all(json.loads(line)["id"] < 6 for line in done.stdout.splitlines()), "rows before it may have come out, whole"


@pytest.mark.parametrize(
    ("command", "field"),
    [
        ("reject", "completion"),
        ("reject", "answer"),
        ("sft", "messages"),
        ("rm", "rejected"),
        ("grpo", "prompt"),
        ("grpo", "answer"),
        ("distill", "completion"),
        ("eval", "completion"),
        ("eval", "answer"),
    ],
)
def test_a_missing_field_is_named_with_row_and_line(call, tmp_path: Path, command: str, field: str) -> None:
    row = {name: value for name, value in READS[command].items() if name != field}
    write(tmp_path / "rows.jsonl", {"id": "first", **row, "source": "book"})
    done = call(command, "rows.jsonl")
    assert_error(done, 2, f"`{field}`")
    assert "rows.jsonl:1" in done.stderr
    if (command, field) != ("eval", "completion"):  # prompt rows without a model: the hint says what to add
        assert "source" in done.stderr, "the keys that are there"


@pytest.mark.parametrize("command", ["reject", "grpo", "distill", "eval", "check"])
def test_an_unknown_reward_has_a_nearest_name(call, tmp_path: Path, command: str) -> None:
    write(tmp_path / "rows.jsonl", READS[command])
    assert_error(call(command, "rows.jsonl", more=("--rewards", "acuracy")), 2, "unknown reward `acuracy`", "did you mean `accuracy`?")


MODELS = {command: words for command, words in CALLS.items() if "{model}" in words} | {
    "eval": ["eval", "-m", "{model}", "ROWS"],
    "check": ["check", "-m", "{model}", "ROWS"],
    "distill": ["distill", "--teacher", "{model}", "--student", "{model}", "-o", "run", "ROWS"],
}


@pytest.mark.parametrize("command", MODELS)
def test_a_model_folder_without_weights(r1: Run, tiny: Path, tmp_path: Path, command: str) -> None:
    shutil.copytree(tiny, tmp_path / "hollow", ignore=shutil.ignore_patterns("*.safetensors*"))
    write(tmp_path / "rows.jsonl", SFT if command == "sft" else PROMPT)
    words = [word.replace("{model}", "hollow").replace("ROWS", "rows.jsonl") for word in MODELS[command]]
    assert_error(r1(*words), 2, "`hollow`")


@pytest.mark.parametrize("command", ["sft", "rm", "grpo", "distill"])
def test_a_used_run_directory_has_three_ways_out(call, tmp_path: Path, command: str) -> None:
    (tmp_path / "run").mkdir()
    write(tmp_path / "run" / "config.json", {"command": command, "settings": {}})
    write(tmp_path / "run" / "metrics.jsonl", {"step": 1})
    write(tmp_path / "rows.jsonl", READS[command])
    done = call(command, "rows.jsonl")
    assert_error(done, 2, "`run` is in use", "--resume")
    assert "--force" in done.stderr
    assert "another name" in done.stderr


@pytest.mark.parametrize("command", ["sample", "reject", "mix"])
def test_an_output_that_exists_is_kept(call, tmp_path: Path, command: str) -> None:
    write(tmp_path / "rows.jsonl", COMPLETION)
    (tmp_path / "out.jsonl").write_text("mine\n")
    assert_error(call(command, "rows.jsonl", more=("-o", "out.jsonl")), 2, "`out.jsonl` exists", "--force")
    assert (tmp_path / "out.jsonl").read_text() == "mine\n"


@pytest.mark.parametrize("command", ["reject", "mix"])
def test_no_rows_give_no_bytes(r1: Run, command: str) -> None:
    done = r1(command, stdin="")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_an_unset_variable_of_the_shell_names_nothing(r1: Run, tmp_path: Path) -> None:
    write(tmp_path / "config.json", {"model_type": "llama"})  # the folder that an empty name would be
    write(tmp_path / "rows.jsonl", SFT)
    assert_error(r1("sft", "-m", "", "-o", "run", "rows.jsonl"), 2, "`--model` is empty", "the variable it came from")
    assert_error(r1("distill", "--student", "s", "--traces", "rows.jsonl", "--eval", "", "-o", "run"), 2, "`--eval` is empty")
