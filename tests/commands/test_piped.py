"""Which inputs give their rows once."""

import os
from pathlib import Path

import pytest

from r1cli.commands.piped import is_piped, refuse_rereading
from r1cli.errors import R1Error


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    os.mkfifo(tmp_path / "a pipe")
    return tmp_path


def test_files_folders_and_data_sets_are_read_again(folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(writer)
    assert all(is_piped(name) for name in ("-", "a pipe", f"/dev/fd/{reader}"))
    assert not any(is_piped(name) for name in ("rows.jsonl", ".", "hf:org/name", "hf:./rows", "nowhere.jsonl", "2%"))
    os.close(reader)


def test_what_makes_a_file_of_it_is_said(folder: Path) -> None:
    refuse_rereading("--eval", ["rows.jsonl", "nowhere.jsonl"])
    with pytest.raises(R1Error, match="--eval `a pipe` is read more than once, and gives its rows once") as caught:
        refuse_rereading("--eval", ["rows.jsonl", "a pipe"])
    assert caught.value.hint == "make it one: r1 mix 'a pipe' --no-shuffle -o eval.jsonl, then --eval eval.jsonl" and caught.value.code == 2
