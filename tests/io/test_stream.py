"""Reading rows: every kind of file, every kind of damage."""

import gzip
import io
import json
import os
import random
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from r1cli.errors import R1Error
from r1cli.io import stream
from r1cli.io.stream import RowWriter, read_rows
from r1cli.row import Row, dump

LINES = ['{"id": 1, "prompt": "a\u2028b"}', '{"id": 2,"prompt":  "é"}', '{"id": 3, "prompt": ""}']
TEXT = "\n".join(LINES) + "\n"


def write(path: Path, data: bytes | str) -> str:
    path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))
    return str(path)


def lines(*inputs: str, **options: object) -> list[str]:
    return [dump(row) for row in read_rows(inputs, **options)]  # type: ignore[arg-type]


def encodings(text: str) -> Iterator[tuple[str, bytes]]:
    data = text.encode()
    yield "a.jsonl", data
    yield "a.ndjson", b"\xef\xbb\xbf" + data
    yield "a.JSON", data.replace(b"\n", b"\r\n")
    yield "a.jsonl.gz", gzip.compress(data)
    yield "b.jsonl.gz", gzip.compress(data[:20]) + gzip.compress(data[20:])
    yield "a.jsonl.zst", zstandard.compress(data)
    yield "b.jsonl.zst", zstandard.compress(data[:20]) + zstandard.compress(b"") + zstandard.compress(data[20:])
    yield "blank.jsonl", b"\n  \n" + data.replace(b"\n", b"\n\n")
    yield "unended.jsonl", data.rstrip(b"\n")


@pytest.mark.parametrize(("name", "data"), list(encodings(TEXT)), ids=[name for name, _ in encodings(TEXT)])
def test_every_encoding_gives_the_same_lines(tmp_path: Path, name: str, data: bytes) -> None:
    assert lines(write(tmp_path / name, data)) == LINES


def test_rows_know_their_line_and_the_reader_its_sources(tmp_path: Path) -> None:
    one, two = write(tmp_path / "a.jsonl", "\n" + TEXT), write(tmp_path / "b.jsonl", TEXT)
    reader = read_rows([one, two], limit=4)
    assert [row.where for row in reader] == [f"{one}:2", f"{one}:3", f"{one}:4", f"{two}:1"]
    assert [(source.name, source.rows, source.files) for source in reader.sources] == [(one, 3, [Path(one)]), (two, 1, [Path(two)])]
    assert reader.where == f"{two}:1"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"id": 1', "not valid JSON"),
        (b'"x"', "must be a JSON object, found str"),
        (b'{"id": "\xff"}', r"not UTF-8 \(byte 9 of the line\)"),
        (b'{"id": NaN}', "NaN is not JSON"),
        (b'{"id": {}}', "field `id` must be string or int or float"),
    ],
)
def test_a_bad_line_stops_or_is_counted(tmp_path: Path, bad: bytes, reason: str) -> None:
    good = b'{"id": 5}\n'
    path = write(tmp_path / "a.jsonl", good * 6 + bad + b"\n" + good)
    got: list[Row] = []
    with pytest.raises(R1Error, match=reason) as caught:
        got.extend(read_rows([path]))
    assert caught.value.message.startswith(f"{path}:7: ")
    assert caught.value.code == 2
    reader = read_rows([path], skip_bad=True)
    assert len(list(reader)) == 7
    assert (reader.bad, reader.sources[0].bad) == (1, 1)
    assert reader.first_bad.startswith(f"{path}:7: ")


def test_a_torn_last_line_is_called_that(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", TEXT + '{"id": 4, "pro')
    with pytest.raises(R1Error, match=":4: the last line is cut off"):
        lines(path)
    assert lines(path, skip_bad=True) == LINES


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_compressed_data_that_is_cut_off_is_never_taken_for_the_end(tmp_path: Path, suffix: str) -> None:
    noise = random.Random(0)
    data = "".join(f'{{"id": {n}, "x": "{noise.randbytes(40).hex()}"}}\n' for n in range(3000)).encode()
    whole = gzip.compress(data) if suffix == "gz" else zstandard.compress(data)
    for end in (len(whole) // 2, len(whole) - 1, 12):
        path = write(tmp_path / f"a.jsonl.{suffix}", whole[:end])
        with pytest.raises(R1Error, match=r"cannot read on|cut off"):
            lines(path)
    with pytest.raises(R1Error):  # noise may decompress to noise
        lines(write(tmp_path / f"a.jsonl.{suffix}", whole[: len(whole) // 2] + b"x" * 100))
    with pytest.raises(R1Error, match="cannot read on"):
        lines(write(tmp_path / f"b.jsonl.{suffix}", TEXT))


def test_empty_files_have_no_rows(tmp_path: Path) -> None:
    for name, data in encodings(""):
        assert lines(write(tmp_path / name, data)) == []
    assert lines(write(tmp_path / "zero.jsonl.gz", b"")) == []
    assert lines(write(tmp_path / "zero.jsonl.zst", b"")) == []


@pytest.mark.parametrize(
    ("name", "data", "message", "hint"),
    [
        ("a.jsonl", TEXT.encode("utf-16"), "UTF-16", "iconv"),
        ("a.json", b'[\n {"id": 1}\n]\n', "one JSON array", "jq -c"),
        ("a.json", b'[{"id": 1}, {"id": 2}]', "one JSON array", "jq -c"),  # as most tools write it: without a newline
        ("a.jsonl", b"[1, 2]\n", "must be a JSON object, found list", "jq -c"),
        ("a.csv", b"id\n1\n", "csv cannot be read", "Dataset.from_csv"),
        ("a.gz", b"", "gz alone does not say", ".jsonl.gz, or pipe"),
        ("a.txt", b"id\n1\n", "the suffix does not say", ".parquet"),
        ("a.parquet", b"PAR1 nothing", "not a readable Parquet file", "damaged"),
        ("data-00000-of-00001.arrow", b"", "the suffix|saved data set", ""),
    ],
)
def test_files_of_another_kind_are_refused_with_a_way_out(tmp_path: Path, name: str, data: bytes, message: str, hint: str) -> None:
    with pytest.raises(R1Error, match=message) as caught:
        lines(write(tmp_path / name, data))
    assert hint in (caught.value.hint or "")
    assert caught.value.code == 2


def test_an_array_is_refused_whatever_skip_bad_says(tmp_path: Path) -> None:
    """Left out as a bad line it would be all that there is."""
    with pytest.raises(R1Error, match="one JSON array"):
        list(read_rows([str(write(tmp_path / "a.json", b'[{"id": 1}]'))], skip_bad=True))


@pytest.mark.parametrize("name", ["a", 'it\'s a "$1" of `rows`'])
@pytest.mark.parametrize(("suffix", "mark"), [(".csv", ","), (".tsv", "\t")])
def test_what_a_csv_file_is_told_works(tmp_path: Path, name: str, suffix: str, mark: str) -> None:
    path = write(tmp_path / f"{name}{suffix}", f'prompt{mark}answer\n"2+2,\nor so?"{mark}4\nx{mark}\n'.encode())
    with pytest.raises(R1Error) as caught:
        read_rows([str(path)])
    words = shlex.split((caught.value.hint or "").partition("JSON lines: ")[2])
    assert words[:2] == ["python", "-c"] and len(words) == 3
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache"), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    subprocess.run([sys.executable, "-c", words[2]], cwd=tmp_path, env=environment, check=True, capture_output=True)
    rows = list(read_rows([str(tmp_path / f"{name}.jsonl")]))
    assert [(row["prompt"], row["answer"]) for row in rows] == [("2+2,\nor so?", 4), ("x", None)]


def test_hints_are_words_of_the_shell(tmp_path: Path) -> None:
    path = write(tmp_path / "my rows.gz", b"")
    with pytest.raises(R1Error) as caught:
        read_rows([str(path)])
    words = shlex.split((caught.value.hint or "").partition(": ")[2].replace(",", " ,"))
    assert words[:3] == ["mv", str(path), str(tmp_path / "my rows.jsonl.gz")] and words[-1] == str(path)
    with pytest.raises(R1Error) as caught:
        read_rows([str(write(tmp_path / "it's.txt", b""))])
    assert shlex.split((caught.value.hint or "").partition("< ")[2]) == [str(tmp_path / "it's.txt")]
    (tmp_path / "a folder").mkdir()
    with pytest.raises(R1Error) as caught:
        read_rows([str(tmp_path / "a folder/none.jsonl")])
    assert shlex.split((caught.value.hint or "").partition("look with: ")[2]) == ["ls", str(tmp_path / "a folder")]


def test_missing_inputs_are_found_before_anything_is_read(tmp_path: Path) -> None:
    write(tmp_path / "problems.jsonl", TEXT)
    with pytest.raises(R1Error, match="no such file") as caught:
        read_rows([str(tmp_path / "problem.jsonl")])
    assert str(tmp_path / "problems.jsonl") in (caught.value.hint or "")
    with pytest.raises(R1Error) as caught:
        read_rows([str(tmp_path / "no" / "such" / "a.jsonl")])
    assert f"there is no folder `{tmp_path / 'no' / 'such'}`" in (caught.value.hint or "")
    with pytest.raises(R1Error, match="named twice"):
        read_rows(["-", "-"])


def test_folders_of_row_files(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    with pytest.raises(R1Error, match="folder without rows"):
        read_rows([str(folder)])
    write(folder / "part-1.jsonl", LINES[1] + "\n")
    write(folder / "part-0.jsonl.gz", gzip.compress(LINES[0].encode()))
    with RowWriter(folder / "part-2.parquet") as writer:
        writer.write({"id": 3})
    for other in ("README.md", ".hidden.jsonl", "part-1.jsonl.manifest.json"):
        write(folder / other, "# not rows")
    assert [json.loads(line)["id"] for line in lines(str(folder))] == [1, 2, 3]
    write(folder / "train.jsonl", TEXT)
    write(folder / "test.jsonl", TEXT)
    with pytest.raises(R1Error, match="several splits: test, train") as caught:
        read_rows([str(folder)])
    assert caught.value.hint == f"name one: hf:{folder}:test"


def test_limit_takes_no_row_more_than_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", TEXT + "broken\n")
    assert lines(path, limit=3) == LINES
    assert lines(path, limit=0) == []
    assert lines(path, path, limit=2) == LINES[:2]


def pipe_of(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_stdin_is_read_whatever_its_compression(monkeypatch: pytest.MonkeyPatch, pack: type[bytes]) -> None:
    for inputs in ([], ["-"]):
        pipe_of(monkeypatch, pack(TEXT.encode()))
        reader = read_rows(inputs)
        assert [dump(row) for row in reader] == LINES
        assert reader.where == "stdin:3"


def test_parquet_on_a_pipe_is_refused_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe_of(monkeypatch, b"PAR1" + b"\0" * 50)
    with pytest.raises(R1Error, match="Parquet cannot be read from a pipe") as caught:
        lines("-")
    assert "name the file" in (caught.value.hint or "")


def test_a_terminal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe_of(monkeypatch, b"")
    monkeypatch.setattr(stream.sys.stdin, "isatty", lambda: True, raising=False)
    with pytest.raises(R1Error, match="stdin is a terminal"):
        read_rows([])


def test_a_named_pipe_streams_row_by_row(tmp_path: Path) -> None:
    fifo = tmp_path / "rows"
    os.mkfifo(fifo)
    taken = threading.Event()

    def produce() -> None:
        with fifo.open("wb", buffering=0) as out:
            out.write(LINES[0].encode() + b"\n")
            assert taken.wait(60)  # row 2 is written only when row 1 has come out
            out.write(LINES[1].encode() + b"\n")

    producer = threading.Thread(target=produce)
    producer.start()
    rows = iter(read_rows([str(fifo)]))
    assert dump(next(rows)) == LINES[0]
    taken.set()
    assert dump(next(rows)) == LINES[1]
    assert next(rows, None) is None
    producer.join()
