"""SFT rows become lessons, or are left out by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from r1cli.commands.sft_lessons import checked
from r1cli.errors import R1Error
from r1cli.guard import Context
from r1cli.io.fields import FieldMap
from r1cli.io.stream import RowReader
from r1cli.model_folder import load_tokenizer
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


def lessons_of(rows: list[Row], tiny: Path, context: Any, reader: RowReader | None = None, *, held_out: bool = False, **more: Any) -> Any:
    settings = SftSettings(**{"inputs": [], "model": str(tiny), "out": "run", "template": "raw", **more})
    return checked(rows, settings, context, str(tiny), reader, held_out=held_out)


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


def test_held_out_rows_that_are_left_out_are_called_so(tiny: Path, context: Any) -> None:
    long = Row({"id": "long", "prompt": "1 + 1?", "completion": "x " * 200}, where="held.jsonl:7")
    empty = Row({"id": "empty", "prompt": "1 + 1?", "completion": ""}, where="held.jsonl:8")
    rows = [GOOD, long, empty, REFUSED]
    assert len(lessons_of(rows, tiny, context, held_out=True, max_length=100, skip_bad=True)) == 2
    bad, too_long, empty_one = context.said
    assert bad.startswith("1 bad held-out rows left out, the first: ")
    assert too_long == "1 held-out rows left out: longer than --max-length 100 tokens (`long`)"
    assert empty_one.startswith("held-out rows: empty answer: 1 of 2 answers")
    with pytest.raises(R1Error, match="no held-out rows to measure on: 1 read, 1 longer than --max-length 100"):
        lessons_of([long], tiny, context, held_out=True, max_length=100)


def test_what_a_sampling_prompt_had_opened_is_learnt(tiny: Path, context: Any) -> None:
    row = Row({"id": "a", "prompt": "2 + 2?", "completion": "I add.\n</think>\n\n4"})
    lessons_of([row], tiny, context, template="chat")
    (said,) = context.said
    assert said.startswith("reasoning without <think>: 1 of 1 answers close reasoning that nothing opens")
    context.said.clear()
    (((sample,),)) = list(lessons_of([row.with_fields(think_prefix="<think>\n")], tiny, context, template="chat"))
    text = load_tokenizer(str(tiny)).decode(sample.completion_ids)
    assert text == "<think>\nI add.\n</think>\n\n4<|im_end|>" and not context.said


def test_a_last_turn_that_is_not_to_be_learnt_gives_its_place_to_no_other(tiny: Path, context: Any) -> None:
    marked = Row({"id": "m", "messages": [*CHAT[:3], {**CHAT[3], "weight": 0}]}, where="rows.jsonl:4")
    earlier = Row({"id": "e", "messages": [CHAT[0], {**CHAT[1], "weight": 0}, *CHAT[2:]]})
    (row,) = lessons_of([marked], tiny, context, template="chat")
    assert len(row) == 1, "without --loss-on completion the first turn is learnt"
    with pytest.raises(R1Error, match=r"^rows.jsonl:4: row `m`: its last assistant message is marked as not to be learnt") as raised:
        lessons_of([marked, earlier], tiny, context, template="chat", loss_on="completion")
    assert raised.value.code == 2
    reader = RowReader([], FieldMap(()), None, skip_bad=False)
    kept = lessons_of([marked, earlier], tiny, context, reader, template="chat", loss_on="completion", skip_bad=True)
    assert [len(row) for row in kept] == [1] and reader.bad == 1


def test_a_row_with_a_token_that_the_model_has_no_row_for_is_refused(tiny: Path, tmp_path: Path, context: Any) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    tokenizer = load_tokenizer(str(folder))
    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": tokenizer.convert_tokens_to_ids("<image>")}))
    assert len(lessons_of([GOOD], folder, context)) == 1
    (said,) = context.said
    assert said.startswith("vocabulary: the model's embedding has no row for 1 special tokens of the tokenizer (`<image>`)")
    assert len(lessons_of([GOOD], folder, context, held_out=True)) == 1 and len(context.said) == 1, "said once"
    for field in ("prompt", "completion"):
        with pytest.raises(R1Error, match=r"^rows.jsonl:1: row `good`: it holds the token `<image>` \(\d+\), which the model's embedding"):
            lessons_of([Row({**GOOD, field: "<image>"}, where=GOOD.where)], folder, context)
