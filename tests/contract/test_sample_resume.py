"""`r1 sample --resume` with what would make other rows: another model of the same name, another form of the problems."""

import json
from pathlib import Path

import pytest

from tests.contract.conftest import Run, assert_error
from tests.contract.test_sample import rows_of
from tests.tiny import tiny_model

FAST = ("--engine", "transformers", "--dtype", "float32", "--max-completion-length", "16", "--no-progress")
PROMPTS = "".join(json.dumps({"id": f"p{n}", "prompt": f"What is {n} + 1?", "question": f"{n} + 1?"}) + "\n" for n in range(4))
CHOICES = json.dumps({"id": "c", "prompt": "Which?", "choices": ["one", "two", "three"], "answer": "A"}) + "\n"


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    (tmp_path / "in.jsonl").write_text(PROMPTS)
    return ["sample", "--model", "model", *FAST, "-o", "out.jsonl", "--resume", "in.jsonl"]


@pytest.mark.parametrize("ended", [True, False], ids=["finished", "killed"])
def test_rows_are_of_one_model(r1: Run, tmp_path: Path, words: list[str], ended: bool) -> None:
    """A folder whose weights were replaced, or a run that trains on, keeps its name."""
    model, out, drawing = tiny_model(tmp_path / "model"), tmp_path / "out.jsonl", tmp_path / ".out.jsonl.drawing"
    assert r1(*words, "-k", "2").returncode == 0
    made = tmp_path / "out.jsonl.manifest.json"
    assert len(json.loads(made.read_text())["drawn_with"]["weights"]) == 64
    if not ended:  # as a kill leaves it
        drawing.write_text(json.dumps(json.loads(made.read_text())["drawn_with"]))
        made.unlink()
        out.write_text("".join(out.read_text().splitlines(keepends=True)[:5]))
    kept, before = (model / "model.safetensors").read_bytes(), out.read_bytes()
    tiny_model(model, seed=1)
    more = "4" if ended else "2"
    if ended:
        assert "8 were there" in r1(*words, "-k", "2").stderr, "nothing is missing: nobody asks the model"
    refused = r1(*words, "-k", more)
    assert_error(refused, 2, "`out.jsonl` was drawn by other weights than `model` has now", "put those weights back")
    assert out.read_bytes() == before
    (model / "model.safetensors").write_bytes(kept)
    done = r1(*words, "-k", more)
    assert done.returncode == 0 and len(rows_of(out.read_text())) == 4 * int(more), done.stderr


def test_nothing_drawn_and_nothing_said_is_nothing_mixed(r1: Run, tmp_path: Path, words: list[str]) -> None:
    """A start that was killed while its model was loaded; a file of an older version."""
    model, out, made = tiny_model(tmp_path / "model"), tmp_path / "out.jsonl", tmp_path / "out.jsonl.manifest.json"
    assert r1(*words).returncode == 0
    (tmp_path / ".out.jsonl.drawing").write_text(json.dumps(json.loads(made.read_text())["drawn_with"]))
    made.unlink()
    out.write_text("")
    tiny_model(model, seed=1)
    done = r1(*words)
    assert done.returncode == 0 and len(rows_of(out.read_text())) == 4, done.stderr
    older = json.loads(made.read_text())
    for name in ("weights", "shuffle_choices", "map"):
        del older["drawn_with"][name]
    made.write_text(json.dumps(older))
    tiny_model(model, seed=2)
    done = r1(*words, "-k", "2")
    assert done.returncode == 0 and len(rows_of(out.read_text())) == 8, done.stderr


def test_a_problem_has_one_form_in_a_file(r1: Run, tiny: Path, tmp_path: Path, words: list[str]) -> None:
    words[words.index("model")] = str(tiny)
    (tmp_path / "in.jsonl").write_text(CHOICES)
    assert r1(*words, "--shuffle-choices").returncode == 0
    before = (tmp_path / "out.jsonl").read_bytes()
    assert_error(r1(*words, "-k", "2"), 2, "`out.jsonl` was drawn with another --shuffle-choices", "it was `True`")
    (tmp_path / "in.jsonl").write_text(PROMPTS)
    mapped = r1(*words, "-k", "2", "--shuffle-choices", "--map", "prompt=question")
    assert_error(mapped, 2, "`out.jsonl` was drawn with another --map", "it was `[]`")
    assert (tmp_path / "out.jsonl").read_bytes() == before
