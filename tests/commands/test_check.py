"""`r1 check`: rows that training would leave out for their length, and what cannot be looked at without a model."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from r1cli.commands import check
from r1cli.config import resolve
from r1cli.errors import R1Error
from r1cli.guard import Context
from r1cli.report.console import Console

SHORT = {"prompt": "1 + 1?", "completion": "<think>\nx\n</think>\n2"}
LONG = {"prompt": "1 + 1?", "completion": f"<think>\n{'so it goes ' * 40}\n</think>\n2"}


def checked(
    capsys: pytest.CaptureFixture[str], folder: Path, rows: list[dict[str, Any]], **given: Any
) -> tuple[dict[str, dict[str, str]], str]:
    """(findings by name, what is said on stderr, or in the error)."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = resolve("check", {"inputs": [str(folder / "rows.jsonl")], "json": True, **given}, {})
    stream = io.StringIO()
    try:
        check.run(found.settings, Context("check", found.sources, Console(stream=stream)))
    except R1Error as error:
        stream.write(error.message)
    findings = json.loads(capsys.readouterr().out)["findings"]
    return {finding["name"]: finding for finding in findings}, stream.getvalue()


def test_rows_over_max_length_are_counted_and_named(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [SHORT, LONG, SHORT]
    found, _ = checked(capsys, tmp_path, rows, model=str(tiny))
    assert found["row length"]["level"] == "ok" and "3 rows with answers" in found["row length"]["text"]
    found, _ = checked(capsys, tmp_path, rows, model=str(tiny), max_length="100")
    assert found["row length"]["level"] == "warn"
    assert "1 are longer than 100 and would be left out" in found["row length"]["text"]
    assert "rows.jsonl:2" in found["row length"]["text"]
    assert "2 answers" in found["answers"]["text"]  # the one that is left out teaches nothing
    found, said = checked(capsys, tmp_path, rows, model=str(tiny), max_length="2")
    assert found["row length"]["level"] == "fail" and "checks failed: row length" in said


def test_preference_rows_have_a_longest_too(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = {"prompt": "1 + 1?", "chosen": "2", "rejected": "3" * 200}
    found, _ = checked(capsys, tmp_path, [pair], model=str(tiny), max_length="20")
    assert "1 rows are longer than --max-length 20" in found["length"]["text"]
    found, _ = checked(capsys, tmp_path, [pair], model=str(tiny))
    assert "--max-length" not in found["length"]["text"]


def test_what_is_not_looked_at_without_a_model_is_said(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = checked(capsys, tmp_path, [{"prompt": "1 + 1?", "answer": "2"}])
    assert said.count("without --model") == 1 and "template" in said
    _, said = checked(capsys, tmp_path, [{"prompt": "1 + 1?", "answer": "2"}], model=str(tiny))
    assert "without --model" not in said
