"""Rows through the real commands and real pipes: exact bytes, streaming, readers that leave, inputs of every kind and damage."""

import gzip
import json
import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard

from r1cli.io.stream import RowWriter
from r1cli.row import parse
from tests.contract.conftest import Run, assert_error, command_line, environment

# Odd spacing, escapes and U+2028 on purpose: an untouched row is written back as the very same bytes.
LINES = [
    '{"id":"a","prompt":"1+1?", "answer":"2","completion":"so \\\\boxed{2}","n":1.50,"rewards":{"accuracy": 1.0},"reward":1.0}',
    '{"id":"b", "prompt": "\\u00e9\u2028é", "answer": "3", "completion": "4", "rewards": {"accuracy": 0.0}, "reward": 0.0}',
    '{"prompt":[{"role":"user","content":"日本"}],"answer":null,"completion":"","id":3,"rewards":{"accuracy":null},"reward":0.0}',
]
TEXT = "\n".join(LINES) + "\n"
REJECT = ("reject", "--rewards", "accuracy", "--keep", "all", "--reward-workers", "1")
MIX = ("mix", "--no-shuffle")


@pytest.mark.parametrize("command", [REJECT, MIX], ids=["reject", "mix"])
def test_untouched_rows_are_byte_equal(r1: Run, command: tuple[str, ...]) -> None:
    done = r1(*command, stdin=TEXT)
    assert (done.returncode, done.stdout) == (0, TEXT), done.stderr


@pytest.mark.parametrize("command", [REJECT, MIX, ("mix",)], ids=["reject", "mix", "mix shuffled"])
def test_no_rows_in_no_bytes_out(r1: Run, command: tuple[str, ...], tmp_path: Path) -> None:
    done = r1(*command)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert r1(*command, "-o", "out.jsonl").returncode == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""


@pytest.mark.parametrize("command", [REJECT, MIX], ids=["reject", "mix"])
@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet", "folder", "hf:./folder:train"])
def test_every_kind_of_input_gives_the_same_rows(r1: Run, tmp_path: Path, command: tuple[str, ...], name: str) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(TEXT.encode()))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(TEXT.encode()))
    (tmp_path / "folder").mkdir()
    rows = [parse(line) for line in LINES]
    if name.startswith("hf:"):  # datasets gives a column one type
        rows = [row.with_fields(id=str(row["id"]), prompt=str(row["prompt"]), n=row.get("n")) for row in rows]
    with RowWriter(tmp_path / "folder" / "train.parquet") as one, RowWriter(tmp_path / "a.parquet") as two:
        one.write_all(rows)
        two.write_all(rows)
    done = r1(*command, name, env={"HF_HOME": str(tmp_path / "hf")})
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.split("\n")[:-1]] == rows


@pytest.mark.parametrize("out", ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst", "out.parquet"])
def test_every_kind_of_output_can_be_read_again(r1: Run, out: str) -> None:
    assert r1(*REJECT, "-o", out, stdin=TEXT).returncode == 0
    done = r1(*REJECT, out)
    assert [json.loads(line) for line in done.stdout.split("\n")[:-1]] == [json.loads(line) for line in LINES]


def test_input_and_output_may_be_the_same_file(r1: Run, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(TEXT, "utf-8")
    refused = r1("reject", "a.jsonl", "--rewards", "accuracy", "-o", "a.jsonl")
    assert refused.returncode == 2
    assert (tmp_path / "a.jsonl").read_text("utf-8") == TEXT
    done = r1("reject", "a.jsonl", "--rewards", "accuracy", "-o", "a.jsonl", "--force")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.jsonl").read_text("utf-8") == LINES[0] + "\n"


@contextmanager
def process(*words: str, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(
        [*command_line(), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=environment(),
        bufsize=0,
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()
        for stream in (started.stdin, started.stdout, started.stderr):
            assert stream is not None
            stream.close()


def next_line(started: subprocess.Popen[bytes]) -> bytes:
    """The next line of stdout, or nothing if none comes within a minute."""
    assert started.stdout is not None
    line = b""
    while not line.endswith(b"\n") and select.select([started.stdout], [], [], 60)[0]:
        byte = os.read(started.stdout.fileno(), 1)
        if not byte:
            break
        line += byte
    return line


@pytest.mark.parametrize("command", [REJECT, MIX, (*REJECT, "--to", "sft")], ids=["reject", "mix", "sft"])
def test_row_1_comes_out_before_row_2_goes_in(tmp_path: Path, command: tuple[str, ...]) -> None:
    with process(*command, cwd=tmp_path) as started:
        assert started.stdin is not None
        for line in LINES:
            started.stdin.write(line.encode() + b"\n")
            assert json.loads(next_line(started))["id"] == json.loads(line)["id"]


@pytest.mark.parametrize("command", [REJECT, MIX], ids=["reject", "mix"])
def test_a_reader_that_leaves_ends_the_command_even_while_its_input_is_silent(tmp_path: Path, command: tuple[str, ...]) -> None:
    with process(*command, cwd=tmp_path) as started:
        assert started.stdin is not None
        assert started.stdout is not None
        assert started.stderr is not None
        started.stdin.write(LINES[0].encode() + b"\n")
        assert next_line(started) == LINES[0].encode() + b"\n"
        started.stdout.close()  # as `head -1` does; stdin stays open and silent
        assert started.wait(timeout=60) == 0
        assert started.stderr.read() == b""


@pytest.mark.parametrize("command", [REJECT, MIX], ids=["reject", "mix"])
def test_head_in_a_shell(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "many.jsonl").write_text(TEXT * 3000, "utf-8")
    words = " ".join([*command_line(), *command, "many.jsonl"])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words} | head -1"],
        capture_output=True,
        cwd=tmp_path,
        env=environment(),
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, LINES[0].encode() + b"\n", b"")


WRONG = [
    ({}, ["nope.jsonl"], 2, "no such file: `nope.jsonl`", ""),
    ({"rows.jsonl": TEXT}, ["row.jsonl"], 2, "no such file: `row.jsonl`", "did you mean `rows.jsonl`?"),
    ({"a.csv": "id\n"}, ["a.csv"], 2, ".csv cannot be read", ".jsonl"),
    ({"a.parquet": "PAR1"}, ["a.parquet"], 2, "not a readable Parquet file", ""),
    ({"d/readme.md": ""}, ["d"], 2, "`d` is a folder without rows", "hf:FOLDER:SPLIT"),
    ({}, ["hf:./nowhere:train"], 2, "no such folder: `./nowhere`", ""),
    ({"a.jsonl": TEXT}, ["a.jsonl", "-o", "a.txt"], 2, "`a.txt`: the suffix does not say what to write", ".parquet"),
    ({"a.jsonl": TEXT, "b.jsonl": ""}, ["a.jsonl", "-o", "b.jsonl"], 2, "`b.jsonl` exists", "--force"),
    ({"a.jsonl": TEXT}, ["a.jsonl", "--map", "answer"], 2, "`--map answer` is not field=column", ""),
    ({"a.jsonl": TEXT}, ["a.jsonl", "--map", "x=anwser"], 2, "a.jsonl:1: row has no column `anwser` to map", "did you mean `answer`?"),
    ({"a.jsonl": "{\n"}, ["a.jsonl"], 2, "a.jsonl:1: not valid JSON", "--skip-bad"),
]


@pytest.mark.parametrize("command", [REJECT, MIX], ids=["reject", "mix"])
@pytest.mark.parametrize(("files", "words", "code", "message", "hint"), WRONG, ids=[" ".join(case[1]) for case in WRONG])
def test_wrong_input_is_one_error_and_one_hint(
    r1: Run, tmp_path: Path, command: tuple[str, ...], files: dict[str, str], words: list[str], code: int, message: str, hint: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    assert_error(r1(*command, *words), code, message, hint)


@pytest.mark.parametrize("command", [REJECT, MIX], ids=["reject", "mix"])
def test_broken_line_7(r1: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    good = LINES[0] + "\n"
    (tmp_path / "a.jsonl").write_text(good * 6 + '{"id": "b",\n' + good, "utf-8")
    done = r1(*command, "a.jsonl")
    assert (done.returncode, done.stdout) == (2, good * 6)
    assert done.stderr.split("\n")[0].startswith("error: a.jsonl:7: not valid JSON")
    assert done.stderr.split("\n")[2].startswith("hint: ")
    done = r1(*command, "a.jsonl", "-o", "out.jsonl")
    assert done.returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
    done = r1(*command, "a.jsonl", "--skip-bad")
    assert (done.returncode, done.stdout) == (0, good * 7)
    assert "left out 1 bad rows, the first: a.jsonl:7: not valid JSON" in done.stderr


def test_a_torn_last_line(r1: Run) -> None:
    done = r1(*MIX, stdin=TEXT + '{"id": "to')
    assert done.returncode == 2
    assert "error: stdin:4: the last line is cut off" in done.stderr


def test_parquet_and_compressed_bytes_on_a_pipe(r1: Run, tmp_path: Path) -> None:
    with RowWriter(tmp_path / "a.parquet") as writer:
        writer.write({"id": 1})
    words = " ".join([*command_line(), *MIX])
    piped = subprocess.run(["bash", "-c", f"cat a.parquet | {words}"], capture_output=True, cwd=tmp_path, env=environment(), check=False)
    assert piped.returncode == 2
    assert b"error: stdin: Parquet cannot be read from a pipe" in piped.stderr
    (tmp_path / "a.gz").write_bytes(gzip.compress(TEXT.encode()))
    done = subprocess.run(
        ["bash", "-c", f"{words} < a.gz && {words} <(zcat a.gz)"],
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        env=environment(),
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, TEXT * 2), done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", [REJECT, MIX], ids=["reject", "mix"])
def test_a_full_disk_behind_stdout(tmp_path: Path, command: tuple[str, ...]) -> None:
    words = " ".join([*command_line(), *command])
    done = subprocess.run(
        ["bash", "-c", f"{words} > /dev/full"],
        input=TEXT,
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        env=environment(),
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.split("\n")[0] == "error: cannot write stdout: No space left on device"
