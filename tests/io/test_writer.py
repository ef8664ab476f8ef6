"""Writing rows: whole files or none, the input that is also the output, and what survives an interruption."""

import gzip
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from r1cli.errors import R1Error
from r1cli.io import jsonl
from r1cli.io.stream import RowWriter, check_output, read_rows

ROWS: list[dict[str, Any]] = [{"id": 1, "x": "é\u2028"}, {"id": 2}]
TEXT = '{"id": 1, "x": "é\u2028"}\n{"id": 2}\n'
NAMES = ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_jsonl_is_utf8_with_newlines_and_compression_is_deterministic(tmp_path: Path) -> None:
    for out in (tmp_path / "one", tmp_path / "two"):
        for name in NAMES[:3]:
            with RowWriter(out / name) as writer:
                writer.write_all(ROWS)
            assert writer.count == 2
    read: dict[str, Callable[[bytes], bytes]] = {
        "a.jsonl": bytes,
        "a.jsonl.gz": gzip.decompress,
        "a.jsonl.zst": zstandard.ZstdDecompressor().decompressobj().decompress,
    }
    for name, unpack in read.items():
        one = (tmp_path / "one" / name).read_bytes()
        assert one == (tmp_path / "two" / name).read_bytes()
        assert unpack(one).decode("utf-8") == TEXT
    assert names(tmp_path / "one") == NAMES[:3]


@pytest.mark.parametrize("name", NAMES)
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path, name: str) -> None:
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), RowWriter(tmp_path / name) as writer:
            writer.write(ROWS[0])
            raise error
        assert names(tmp_path) == []
    with RowWriter(tmp_path / name) as writer:
        writer.write_all(ROWS)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(KeyboardInterrupt), RowWriter(tmp_path / name, force=True) as writer:
        writer.write(ROWS[1])
        raise KeyboardInterrupt
    assert (tmp_path / name).read_bytes() == before
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_may_be_read_and_written_at_the_same_time(tmp_path: Path, name: str) -> None:
    with RowWriter(tmp_path / name) as writer:
        writer.write_all(ROWS)
    with RowWriter(tmp_path / name, force=True) as writer:
        for row in read_rows([str(tmp_path / name)]):
            writer.write(row.with_fields(y=1))
    assert [row["y"] for row in read_rows([str(tmp_path / name)])] == [1, 1]


def test_an_existing_output_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("mine")
    with pytest.raises(R1Error, match="exists") as caught:
        RowWriter(tmp_path / "a.jsonl")
    assert caught.value.code == 2
    assert "--force" in (caught.value.hint or "")
    assert (tmp_path / "a.jsonl").read_text() == "mine"


@pytest.mark.parametrize(("out", "message"), [("a.csv", "the suffix does"), ("a", "suffix"), ("a.gz", "suffix"), (".", "is a folder")])
def test_outputs_without_a_kind_are_refused(tmp_path: Path, out: str, message: str) -> None:
    with pytest.raises(R1Error, match=message):
        check_output(tmp_path / out)


def test_missing_folders_are_made_and_links_are_followed(tmp_path: Path) -> None:
    with RowWriter(tmp_path / "new" / "er" / "a.jsonl") as writer:
        writer.write_all(ROWS)
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "new" / "er" / "a.jsonl")
    with RowWriter(tmp_path / "link.jsonl", force=True) as writer:
        writer.write(ROWS[1])
    assert (tmp_path / "link.jsonl").is_symlink()
    assert (tmp_path / "new" / "er" / "a.jsonl").read_text() == '{"id": 2}\n'


def test_a_place_that_cannot_hold_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(R1Error, match="cannot write"), RowWriter(tmp_path / "file" / "a.jsonl"):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_clear_error() -> None:
    with pytest.raises(R1Error, match="cannot write `/dev/full`: No space left on device") as caught, RowWriter("/dev/full") as writer:
        writer.write(ROWS[0])
    assert caught.value.code == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_fills_up_leaves_no_half_file(tmp_path: Path, name: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))  # writes past 64 KiB fail with EFBIG
    try:
        with pytest.raises(R1Error, match=r"cannot write .*File too large"), RowWriter(tmp_path / name) as writer:
            writer.write_all({"id": n, "x": os.urandom(5000).hex()} for n in range(100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [float("nan"), float("-inf"), {1, 2}])
def test_what_json_cannot_hold_is_refused_by_row(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(R1Error, match="row `q7` cannot be written"), RowWriter(tmp_path / name) as writer:
        writer.write({"id": "q7", "x": value})
    assert names(tmp_path) == []


def test_devices_are_written_as_they_are(tmp_path: Path) -> None:
    with RowWriter(os.devnull) as writer:
        writer.write_all(ROWS)
    assert writer.count == 2
    assert Path(os.devnull).is_char_device()


def test_append_keeps_finished_rows_whatever_happens(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(KeyboardInterrupt), RowWriter(path, append=True) as writer:
        writer.write(ROWS[0])
        assert path.read_text("utf-8") == TEXT.split("\n")[0] + "\n"  # on disk at once
        raise KeyboardInterrupt
    assert len(list(read_rows([str(path)]))) == 1
    with pytest.raises(R1Error, match="exists"):
        RowWriter(path, append=True)
    with RowWriter(path, append=True, resume=True) as writer:
        writer.write(ROWS[1])
    assert path.read_text("utf-8") == TEXT
    with RowWriter(path, append=True, force=True) as writer:
        writer.write(ROWS[1])
    assert path.read_text("utf-8") == '{"id": 2}\n'


def test_resuming_mends_a_torn_line_and_refuses_what_it_cannot_continue(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(TEXT + '{"id": 3, "x', "utf-8")
    with RowWriter(path, append=True, resume=True) as writer:
        writer.write({"id": 4})
    assert path.read_text("utf-8") == TEXT + '{"id": 4}\n'
    (tmp_path / "a.jsonl.gz").write_bytes(b"")
    with pytest.raises(R1Error, match="cannot be continued"):
        RowWriter(tmp_path / "a.jsonl.gz", append=True, resume=True)
    with RowWriter(tmp_path / "new.parquet", append=True, resume=True) as writer:
        writer.write_all(ROWS)
    assert len(list(read_rows([str(tmp_path / "new.parquet")]))) == 2


@pytest.mark.parametrize(
    ("before", "after", "cut"),
    [
        ("", "", 0),
        ('{"a": 1}\n', '{"a": 1}\n', 0),
        ('{"a": 1}', '{"a": 1}\n', 0),
        ('{"a": 1}\n{"b', '{"a": 1}\n', 3),
        ('{"b', "", 3),
        ('{"a": 1}\n12', '{"a": 1}\n', 2),
    ],
)
def test_repairing_a_tail(tmp_path: Path, before: str, after: str, cut: int) -> None:
    (tmp_path / "a.jsonl").write_text(before)
    assert jsonl.repair_tail(tmp_path / "a.jsonl") == cut
    assert (tmp_path / "a.jsonl").read_text() == after
    assert jsonl.repair_tail(tmp_path / "none.jsonl") == 0


def test_repairing_a_tail_longer_than_a_block(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n' + "x" * 200_000)
    assert jsonl.repair_tail(tmp_path / "a.jsonl") == 200_000
    assert (tmp_path / "a.jsonl").read_text() == '{"a": 1}\n'


def test_finished_pairs(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert jsonl.finished_pairs(path) == set()
    path.write_text('{"id": "a", "sample": 0}\n{"id": 1, "sample": 3}\n')
    assert jsonl.finished_pairs(path) == {("a", 0), (1, 3)}
    path.write_text('{"id": "a"}\n')
    with pytest.raises(R1Error, match=r"a.jsonl:1: not a row of `r1 sample`"):
        jsonl.finished_pairs(path)
