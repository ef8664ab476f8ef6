"""Which traces are of prompts that are asked now."""

import json
from pathlib import Path
from typing import Any

import pytest

from r1cli.commands.distill_asked import NOT_ASKED, Asked
from r1cli.io.jsonl import finished_pairs
from r1cli.row import Row
from r1cli.settings import DistillSettings
from r1cli.steps.keep import Dropped
from r1cli.text.choices import shuffled

CHAT = [{"role": "user", "content": "2?"}]
CHOICES = {"id": "c", "prompt": "Which?\nA. one\nB. two\nC. three\nD. four", "choices": ["one", "two", "three", "four"], "answer": "B"}
BROKEN = {"id": "d", "prompt": "Which?", "choices": ["one", "two"], "answer": "Z"}


def asked(folder: Path, *rows: dict[str, Any], **given: Any) -> Asked:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Asked(path, DistillSettings(inputs=[], student="s", out="o", **given))


def test_a_trace_is_of_a_prompt_by_its_id_and_its_words(tmp_path: Path) -> None:
    found = asked(tmp_path, {"id": "a", "prompt": "1?", "answer": "new"}, {"id": "b", "prompt": CHAT}, {"prompt": "no id"})
    own = Row({"id": "a", "prompt": "1?", "answer": "old", "sample": 0, "completion": "x"})
    assert found.holds(own) and found.holds(Row({"id": "b", "prompt": CHAT}))
    assert found.holds(Row({"id": "b95a8e1d1cf9ad9b", "prompt": "no id"})) is False and found.others == 1  # not the hash of that prompt
    for other in ({"id": "a", "prompt": "2?"}, {"id": "z", "prompt": "1?"}, {"id": "a"}):
        assert not found.holds(Row(other))
    assert found.others == 4
    dropped = Dropped()
    assert list(found.among([own, Row({"id": "a", "prompt": "2?"})], dropped)) == [own]
    assert dropped.reasons == {NOT_ASKED: 1}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shuffled_options_are_those_of_the_prompt(tmp_path: Path, seed: int) -> None:
    drawn = shuffled(Row(CHOICES), seed)
    same = drawn["prompt"] == CHOICES["prompt"]
    found = asked(tmp_path, CHOICES, BROKEN, shuffle_choices=True, seed=seed)
    assert found.holds(drawn) and found.holds(Row(CHOICES)) is same and found.holds(Row(BROKEN))
    assert asked(tmp_path, CHOICES, seed=seed).holds(drawn) is same


def test_pairs_of_other_prompts_are_not_done(tmp_path: Path) -> None:
    found = asked(tmp_path, {"id": "a", "prompt": "1?"})
    rows = [{"id": "a", "prompt": "1?", "sample": 0}, {"id": "a", "prompt": "2?", "sample": 1}, {"id": "b", "prompt": "1?", "sample": 0}]
    (tmp_path / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert finished_pairs(tmp_path / "traces.jsonl", found.holds) == {("a", 0)} and found.others == 2
    assert finished_pairs(tmp_path / "traces.jsonl") == {("a", 0), ("a", 1), ("b", 0)}
