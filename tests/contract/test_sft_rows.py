"""Rows that `r1 sft` cannot learn from: named by file, line, row and field; with --skip-bad left out and counted."""

import json
import shutil
from pathlib import Path

import pytest

from tests.contract.conftest import Run, assert_error

USER = {"role": "user", "content": "1 + 1?"}
GOOD = {"id": "good", "messages": [USER, {"role": "assistant", "content": "2"}]}
CALL = [{"type": "function", "function": {"name": "add", "arguments": "{}"}}]
BAD = {
    "`tool_calls`": [USER, {"role": "assistant", "content": None, "tool_calls": CALL}],
    "half of a surrogate pair": [{"role": "user", "content": "\ud800"}, {"role": "assistant", "content": "2"}],
    "both the assistant's": [USER, {"role": "assistant", "content": "2"}, {"role": "assistant", "content": "3"}],
    "refuses the prompt": [{"role": "system", "content": "s"}, *GOOD["messages"]],
}
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"


@pytest.fixture
def strict(tiny: Path, tmp_path: Path) -> Path:
    """The tiny model with a chat template that knows no system role; its weights are those of `tiny`."""
    folder = tmp_path / "strict"
    folder.mkdir()
    for file in tiny.iterdir():
        (folder / file.name).symlink_to(file)
    template = folder / "chat_template.jinja"
    text = template.read_text(encoding="utf-8")
    template.unlink()
    template.write_text(NO_SYSTEM + text, encoding="utf-8")
    return folder


def write(path: Path, *rows: object) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize("what", BAD)
def test_a_row_that_cannot_be_learnt_is_named(r1: Run, strict: Path, tmp_path: Path, what: str) -> None:
    write(tmp_path / "rows.jsonl", GOOD, {"id": "odd", "messages": BAD[what]})
    done = r1("sft", "-m", str(strict), "-o", "run", "--dry-run", "rows.jsonl")
    assert_error(done, 2, "rows.jsonl:2: row `odd`: ")
    assert what in done.stderr


def test_skip_bad_leaves_such_rows_out(r1: Run, strict: Path, tmp_path: Path) -> None:
    bad = [{"id": what, "messages": messages} for what, messages in BAD.items()]
    write(tmp_path / "rows.jsonl", *bad, GOOD)
    done = r1("sft", "-m", str(strict), "-o", "run", "--dry-run", "--skip-bad", "rows.jsonl")
    assert done.returncode == 0 and "on 1 rows" in done.stderr, done.stderr
    assert "1 bad rows left out, the first: rows.jsonl:4: row `refuses the prompt`" in done.stderr, "known only with the tokenizer"
    done = r1("check", "-m", str(strict), "--skip-bad", "rows.jsonl")
    assert done.returncode == 0 and "1 answers" in done.stdout, done.stderr
    assert "4 bad rows left out, the first: rows.jsonl:1: row" in done.stderr
    assert_error(r1("check", "-m", str(strict), "rows.jsonl"), 2, "rows.jsonl:1: row `")


def test_reasoning_in_its_own_field_is_learnt(r1: Run, tiny: Path, tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "2", "reasoning_content": "1 + 1 = 2"}
    written = {"role": "assistant", "content": "<think>\n1 + 1 = 2\n</think>\n\n2"}
    planned = []
    for message in (answer, written):
        write(tmp_path / "rows.jsonl", {"id": "a", "messages": [USER, message]})
        planned.append(r1("sft", "-m", str(tiny), "-o", "run", "--dry-run", "rows.jsonl").stderr.splitlines()[0])
    assert planned[0] == planned[1] and "tokens an epoch" in planned[0]


def test_check_without_rows_is_an_error(r1: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    assert_error(r1("check", "empty.jsonl"), 2, "no rows")
    assert_error(r1("check", "-m", str(tiny), "empty.jsonl"), 2, "no rows")
    assert_error(r1("check", "--skip-bad", "-", stdin="broken\n"), 2, "no rows: 1 bad ones left out, the first: stdin:1")
    alone = r1("check", "-m", str(tiny))
    assert alone.returncode == 0 and "end of turn" in alone.stdout


@pytest.mark.parametrize(("special", "level", "code"), [(True, "warn", 0), (False, "fail", 1)])
def test_check_says_which_tokens_the_model_has_no_row_for(
    r1: Run, tiny: Path, tmp_path: Path, special: bool, level: str, code: int
) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    file = tmp_path / "model/tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    tokenizer["added_tokens"].append({"id": 384, "content": "<image>", **flags})
    file.write_text(json.dumps(tokenizer), encoding="utf-8")
    write(tmp_path / "rows.jsonl", GOOD)
    done = r1("check", "-m", "model", "rows.jsonl")
    assert done.returncode == code
    assert any(line.startswith(f"{level} vocabulary: ") for line in done.stdout.splitlines()), done.stdout
    if special:
        image = {"id": "image", "messages": [{"role": "user", "content": "<image>"}, GOOD["messages"][1]]}
        write(tmp_path / "rows.jsonl", GOOD, image)
        assert_error(r1("check", "-m", "model", "rows.jsonl"), 2, "rows.jsonl:2: row `image`: it holds the token `<image>` (")


def test_check_looks_at_prompts_and_at_rows_with_answers_where_both_are_given(r1: Run, tiny: Path, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", GOOD, {"id": "sum", "prompt": "2 + 3?", "answer": "5"})
    done = r1("check", "-m", str(tiny), "rows.jsonl", "--max-completion-length", "16")
    lines = done.stdout.splitlines()
    assert any("kinds of rows: 1 rows with answers and 1 prompts" in line for line in lines), done.stdout
    assert any("prompt length: 1 prompts" in line for line in lines), done.stdout


def test_what_was_drawn_for_a_data_set_of_chats_is_learnt_instead_of_its_own_answers(r1: Run, tiny: Path, tmp_path: Path) -> None:
    """NuminaMath and OpenR1 have a `messages` column, which passes through `r1 sample | r1 reject`."""
    old = [USER, {"role": "assistant", "content": "old " * 40}]
    drawn = {"prompt": "1 + 1?", "answer": "2", "messages": old, "sample": 0, "completion": "2", "finish_reason": "stop", "model": "m"}
    write(tmp_path / "drawn.jsonl", drawn)
    kept = r1("reject", "--rewards", "format", "--keep", "all", "drawn.jsonl", "-o", "kept.jsonl")
    assert kept.returncode == 0, kept.stderr
    write(tmp_path / "plain.jsonl", {"id": "a", "prompt": "1 + 1?", "completion": "2"})
    done, plain = (r1("sft", "-m", str(tiny), "-o", "run", "--dry-run", file) for file in ("kept.jsonl", "plain.jsonl"))
    planned = [line for text in (done.stderr, plain.stderr) for line in text.splitlines() if "tokens an epoch" in line]
    assert len(planned) == 2 and planned[0] == planned[1], done.stderr
    write(tmp_path / "both.jsonl", {"id": "a", "prompt": "1 + 1?", "completion": "2", "messages": old})
    assert_error(r1("sft", "-m", str(tiny), "-o", "run", "both.jsonl"), 2, "both.jsonl:1: row `a`: it has both `messages`", "--map unused=")
    done = r1("sft", "-m", str(tiny), "-o", "run", "--map", "unused=messages", "--dry-run", "both.jsonl")
    assert planned[0] in done.stderr.splitlines(), done.stderr
