"""Prompts with a token that the model's embedding has no row for, before weights are loaded: by `r1 grpo` and by `distill --on-policy`."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from r1cli.commands.grpo_preflight import usable_prompts
from r1cli.commands.on_policy_run import plan
from r1cli.errors import R1Error
from r1cli.guard import Context
from r1cli.io.fields import FieldMap
from r1cli.io.stream import RowReader
from r1cli.model_folder import load_tokenizer
from r1cli.report.console import Console
from r1cli.row import Row
from r1cli.settings import DistillSettings, GrpoSettings

GOOD = Row({"id": "good", "prompt": "2 + 2?", "answer": "4"}, where="rows.jsonl:1")
BAD = Row({"id": "bad", "prompt": "What is on <image>?", "answer": "4"}, where="rows.jsonl:2")
REFUSED = r"^rows.jsonl:2: row `bad`: it holds the token `<image>` \(\d+\), which the model's embedding has no row for"
SKIPPED = "1 bad prompts left out, the first: rows.jsonl:2: row `bad`"


@pytest.fixture(scope="module")
def short(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer has a special token more than its embedding has rows."""
    folder = tmp_path_factory.mktemp("short") / "model"
    shutil.copytree(tiny, folder)
    tokenizer = load_tokenizer(str(folder))
    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": tokenizer.convert_tokens_to_ids("<image>")}))
    return folder


def reading(skip_bad: bool) -> RowReader:
    return RowReader([], FieldMap(()), None, skip_bad)


def of_grpo(folder: Path, rows: list[Row], **values: Any) -> tuple[list[Row], str]:
    """(the prompts that are left, what was said)."""
    heard = io.StringIO()
    settings = GrpoSettings(model=str(folder), out="run", inputs=[], template="chat", max_completion_length=16, **values)
    context, reader = Context("grpo", {}, Console(stream=heard)), reading(settings.skip_bad)
    [(_, kept)], _ = usable_prompts([(0, rows)], settings, context, str(folder), reader)
    assert reader.bad == len(rows) - len(kept)  # in the manifest
    return kept, heard.getvalue()


def of_distill(folder: Path, rows: list[Row], **values: Any) -> tuple[int, str]:
    """(how many prompts are left, what was said)."""
    heard = io.StringIO()
    settings = DistillSettings(
        student=str(folder), teacher=str(folder), out="run", inputs=[], on_policy=True, max_completion_length=16, **values
    )
    plan(settings, Context("distill", {}, Console(stream=heard)), str(folder), rows, reading(settings.skip_bad))
    said = heard.getvalue()
    return int(said.partition(" prompts\n")[0].rpartition(" ")[2]), said


def test_grpo_refuses_such_a_prompt_by_name_and_skip_bad_leaves_it_out(short: Path) -> None:
    with pytest.raises(R1Error, match=REFUSED) as raised:
        of_grpo(short, [GOOD, BAD])
    assert raised.value.code == 2 and raised.value.hint == "take it out of the row"
    kept, said = of_grpo(short, [GOOD, BAD], skip_bad=True)
    assert kept == [GOOD] and SKIPPED in said
    with pytest.raises(R1Error, match=r"no prompts left: 1 bad ones left out, the first: rows\.jsonl:2: row `bad`") as raised:
        of_grpo(short, [BAD], skip_bad=True)
    assert "the model's own" in (raised.value.hint or "")


def test_distill_on_policy_does_the_same(short: Path) -> None:
    with pytest.raises(R1Error, match=REFUSED):
        of_distill(short, [GOOD, BAD])
    left, said = of_distill(short, [GOOD, BAD], skip_bad=True)
    assert left == 1 and SKIPPED in said


def test_prompts_without_it_are_all_taken_and_the_vocabulary_is_said(short: Path, tiny: Path) -> None:
    warning = "vocabulary: the model's embedding has no row for 1 special tokens of the tokenizer (`<image>`)"
    kept, said = of_grpo(short, [GOOD, GOOD])
    assert len(kept) == 2 and warning in said and "left out" not in said
    left, said = of_distill(short, [GOOD, GOOD])
    assert left == 2 and warning in said
    kept, said = of_grpo(tiny, [GOOD, BAD])  # text like any other there
    assert len(kept) == 2 and "vocabulary" not in said


def test_a_tokenizer_of_another_model_is_refused_before_weights_are_loaded(short: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(short, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 300}))
    for preflight in (of_grpo, of_distill):
        with pytest.raises(R1Error, match=r"the tokenizer of `.*` has 385 tokens, the model 300"):
            preflight(folder, [GOOD])
