"""Which inputs give their rows once, and what becomes of them where several would read them."""

import os
import threading
from pathlib import Path

import pytest

from r1cli.commands.piped import pipes_of, refuse_rereading, refuse_sharing, refuse_twice, spooled
from r1cli.errors import R1Error
from r1cli.grpo_settings import GrpoSettings
from r1cli.io.pipes import COPIES, is_piped
from r1cli.io.stream import read_rows
from r1cli.settings import SftSettings


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


def test_the_pipes_of_a_command(folder: Path) -> None:
    def sft(*inputs: str, held_out: str | None = None) -> list[str]:
        return pipes_of(SftSettings(inputs=list(inputs), model="m", out="o", held_out=held_out))

    assert sft() == ["-"] and sft("rows.jsonl") == [] and sft("rows.jsonl", "a pipe", "-") == ["a pipe", "-"]
    assert sft("rows.jsonl", held_out="a pipe") == ["a pipe"] and sft("rows.jsonl", held_out="2%") == []
    joined = GrpoSettings(inputs=["rows.jsonl=0.5"], add=["a pipe=0.5@3"], model="m", out="o")
    assert pipes_of(joined) == ["a pipe"] and pipes_of(GrpoSettings(inputs=[], add=["rows.jsonl@3"], model="m", out="o")) == ["-"]


def test_one_stream_under_two_names_is_refused(folder: Path) -> None:
    reader, writer = os.pipe()
    Path("another name").symlink_to("a pipe")
    refuse_twice(["-", "a pipe", f"/dev/fd/{reader}"])
    with pytest.raises(R1Error, match="`a pipe` and `another name` are one stream") as caught:
        refuse_twice(["-", "a pipe", "another name"])
    assert caught.value.code == 2
    with pytest.raises(R1Error, match="`-` is named twice"):
        refuse_twice(["-", "-"])
    os.close(reader)
    os.close(writer)


def test_processes_that_were_not_started_here_share_no_pipe(folder: Path) -> None:
    refuse_sharing(["rows.jsonl"])
    with pytest.raises(R1Error, match="the processes of `accelerate launch` cannot share `a pipe`") as caught:
        refuse_sharing(["rows.jsonl", "a pipe"])
    assert caught.value.code == 2 and "--num-processes" in (caught.value.hint or "")


def test_what_a_pipe_gave_is_read_again_under_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = '{"id": 1}\n{"id": 2}\n[]\n'
    writing = threading.Thread(target=(folder / "a pipe").write_text, args=(rows,))
    writing.start()
    found = spooled(["a pipe"], folder)
    writing.join()
    assert list(found) == [COPIES] and spooled([], folder) == {}
    monkeypatch.setenv(COPIES, found[COPIES])
    for _ in range(2):
        reader = read_rows(["a pipe"], skip_bad=True)
        assert [row["id"] for row in reader] == [1, 2] and reader.bad == 1 and "a pipe:3" in reader.first_bad
        assert reader.sources[0].files == []  # no manifest may name a file that goes
