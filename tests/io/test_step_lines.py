"""Lines that belong to steps: which of them a resumed run keeps."""

import json
import logging
from pathlib import Path

import pytest

from r1cli.io.step_lines import StepLines


def test_lines_that_are_no_record_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After a power loss a file may have its length and not its content: NULs, up to the end of a line that came later."""
    path = tmp_path / "metrics.jsonl"
    whole = [json.dumps({"step": step, "x": "é"}).encode() + b"\n" for step in range(1, 6)]
    path.write_bytes(b"".join([whole[0], b"\0" * 300 + b"\n", whole[1], b"\xff{\n", b"3\n", b'{"step": "2"}\n', *whole[2:]]))
    lines = StepLines(path)
    with caplog.at_level(logging.WARNING, "r1cli"):
        lines.rewind(4)
    assert path.read_bytes() == b"".join(whole[:4])
    assert [record.getMessage() for record in caplog.records] == [f"`{path}`: 4 damaged lines left out (a power loss leaves such)"]
    lines.write({"step": 5})
    caplog.clear()
    lines.rewind(4)
    assert path.read_bytes() == b"".join(whole[:4]) and not caplog.records
