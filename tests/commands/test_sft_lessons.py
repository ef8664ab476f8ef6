"""SFT rows become lessons, or are left out by name."""

from pathlib import Path
from typing import Any

import pytest

from r1cli.commands.sft_lessons import checked
from r1cli.errors import R1Error
from r1cli.guard import Context
from r1cli.io.fields import FieldMap
from r1cli.io.stream import RowReader
from r1cli.report.console import Console
from r1cli.row import Row
from r1cli.settings import SftSettings

GOOD = Row({"id": "good", "prompt": "1 + 1?", "completion": "2"}, where="rows.jsonl:1")
CHAT = [{"role": role, "content": "a"} for role in ("user", "assistant", "user", "assistant")]
REFUSED = Row({"id": "odd", "messages": CHAT}, where="rows.jsonl:2")  # by `--template raw`, which takes one question


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Context:
    """A context whose warnings are in `context.said`."""
    made = Context("sft", {}, Console(quiet=2, progress=False))
    said: list[str] = []
    monkeypatch.setattr(made.console, "warn", said.append)
    monkeypatch.setattr(Context, "said", said, raising=False)
    return made


def lessons_of(rows: list[Row], tiny: Path, context: Any, reader: RowReader | None = None, **more: Any) -> Any:
    settings = SftSettings(**{"inputs": [], "model": str(tiny), "out": "run", "template": "raw", **more})
    return checked(rows, settings, context, str(tiny), reader)


def test_a_row_that_the_template_refuses_is_named(tiny: Path, context: Any) -> None:
    with pytest.raises(R1Error, match=r"^rows.jsonl:2: row `odd`: template `raw` takes one question") as raised:
        lessons_of([GOOD, REFUSED], tiny, context)
    assert raised.value.code == 2


def test_skip_bad_leaves_such_rows_out_and_counts_them(tiny: Path, context: Any) -> None:
    reader = RowReader([], FieldMap(()), None, skip_bad=False)  # as distill's, which reads the file it made
    reader.bad = 1
    assert len(lessons_of([REFUSED, GOOD], tiny, context, reader, skip_bad=True)) == 1
    assert (reader.bad, reader.first_bad.startswith("rows.jsonl:2: row `odd`: template `raw`")) == (2, True)
    (said,) = context.said
    assert said.startswith("1 bad rows left out, the first: rows.jsonl:2: row `odd`")


def test_nothing_left_says_why(tiny: Path, context: Any) -> None:
    with pytest.raises(R1Error, match=r"no rows to train on: 1 read, .*, 1 bad, the first: rows.jsonl:2"):
        lessons_of([REFUSED], tiny, context, skip_bad=True)


def test_findings_and_long_rows_name_where_they_are(tiny: Path, context: Any) -> None:
    long = Row({"id": "long", "prompt": "1 + 1?", "completion": "x " * 200}, where="rows.jsonl:7")
    empty = Row({"id": "empty", "prompt": "1 + 1?", "completion": ""}, where="rows.jsonl:8")
    assert len(lessons_of([GOOD, long, empty], tiny, context, max_length=100)) == 2
    too_long, warned = context.said
    assert too_long == "1 rows left out: longer than --max-length 100 tokens (`long`)"
    assert warned.startswith("empty answer: 1 of 2 answers") and "(rows.jsonl:8) (fix: leave these rows out)" in warned
    with pytest.raises(R1Error, match=r"context: .*\(rows.jsonl:7\)"):
        lessons_of([GOOD, Row({**long, "completion": "x " * 2000}, where=long.where)], tiny, context)
