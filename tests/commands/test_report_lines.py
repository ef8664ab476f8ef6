"""What a run left behind is read up to its last whole line, and a torn one is said; one in the middle is an error."""

import json
from pathlib import Path

import pytest

from r1cli.commands.report import read_run
from r1cli.errors import R1Error

WHOLE = b'{"step": 1, "loss": 0.5}\n'


def run(folder: Path, metrics: bytes) -> Path:
    (folder / "config.json").write_text(json.dumps({"command": "sft", "settings": {}, "sources": {}}))
    (folder / "metrics.jsonl").write_bytes(metrics)
    return folder


@pytest.mark.parametrize(
    "torn", [b'{"step": 2, "lo', b'{"step": 2, "lo\n', b'{"step": 2, "text": "\xc3', b"\0\0\0\0", b"\0\0\n", b"\xff\n"]
)
def test_a_torn_last_line_is_left_out_and_said(tmp_path: Path, torn: bytes) -> None:
    said: list[str] = []
    found = read_run(run(tmp_path, WHOLE + torn), "run", said.append)
    assert [record["step"] for record in found.metrics] == [1]
    assert len(said) == 1 and "line 2, the last one, is torn" in said[0]


def test_a_whole_file_needs_no_word(tmp_path: Path) -> None:
    said: list[str] = []
    assert len(read_run(run(tmp_path, WHOLE * 3), "run", said.append).metrics) == 3 and said == []
    assert read_run(run(tmp_path, b""), "run", said.append).metrics == [] and said == []


@pytest.mark.parametrize("broken", [b'{"step": 1,\n', b"\xff\n"])
def test_one_in_the_middle_is_an_error_without_a_flag_that_report_lacks(tmp_path: Path, broken: bytes) -> None:
    with pytest.raises(R1Error, match=r"metrics\.jsonl:1: not ") as caught:
        read_run(run(tmp_path, broken + WHOLE), "run")
    assert caught.value.hint == "mend or remove the line" and caught.value.code == 2
