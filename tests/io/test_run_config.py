"""Whether what is asked now is the run that a directory holds."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from r1cli.errors import R1Error
from r1cli.io import run_dir
from r1cli.io.run_config import check_same, differences
from r1cli.io.run_dir import RunDir


def asked(directory: Path, model: str = "base", inputs: list[str] | None = None, command: str = "sft", **more: Any) -> dict[str, Any]:
    settings = {"model": model, "inputs": ["rows.jsonl"] if inputs is None else inputs, **more}
    return {"command": command, "directory": str(directory), "settings": settings}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("base", "other", "sub"):
        (tmp_path / name).mkdir()
    for name in ("rows.jsonl", "sub/rows.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("base")
    RunDir.open(tmp_path / "run", settings={}, sources={}, command="sft").close()
    return tmp_path


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ({"model": "base"}, {"model": "./sub/../base"}),
        ({"model": "link"}, {"model": "base"}),
        ({"model": "run"}, {"model": "run/final"}),
        ({"model": "run/final/"}, {"model": "./run"}),
        ({"model": "org/name"}, {"model": "org/name"}),
        ({"inputs": []}, {"inputs": ["-"]}),
        ({"inputs": ["/dev/fd/63"]}, {"inputs": ["/dev/fd/62"]}),
        ({"inputs": ["hf:./sub:train"]}, {"inputs": ["hf:./base/../sub:train"]}),
    ],
)
def test_the_same_by_another_spelling(place: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    check_same(Path("run"), asked(place, **then), asked(place, **now))
    assert not differences(asked(place, **then), asked(place, **now))


def test_a_student_that_samples_keeps_its_teacher(place: Path) -> None:
    """Half a student of each says of neither what is true; what a teacher has written is compared with what it wrote (`distill_traces`)."""
    with pytest.raises(R1Error, match="`run` is a run with --teacher `base`, not `other`") as caught:
        check_same(Path("run"), asked(place, teacher="base", on_policy=True), asked(place, teacher="other", on_policy=True))
    assert caught.value.code == 2
    check_same(Path("run"), asked(place, teacher="base", on_policy=True), asked(place, teacher="link", on_policy=True))
    check_same(Path("run"), asked(place, teacher="base", on_policy=False), asked(place, teacher="other", on_policy=False))


def test_the_same_from_another_directory(place: Path) -> None:
    for now in (asked(place / "sub", "../base", ["../rows.jsonl"]), asked(Path("/"), str(place / "base"), [str(place / "rows.jsonl")])):
        check_same(Path("run"), asked(place), now)
        assert not differences(asked(place), now)
    check_same(Path("run"), asked(place, "org/name"), asked(place / "sub", "org/name", ["../rows.jsonl"]))


def test_the_same_name_in_a_directory_that_was_moved(place: Path, tmp_path: Path) -> None:
    before = asked(place / "sub", inputs=["rows.jsonl"], model="../base")
    shutil.move(place / "sub", place / "moved")
    check_same(Path("run"), before, asked(place / "moved", inputs=["rows.jsonl"], model="../base"))


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"model": "other"}, "`run` is a run with --model `base`, not `other`"),
        ({"command": "grpo"}, "`run` holds a run of `r1 sft`, not of `r1 grpo`"),
    ],
)
def test_another_run_is_refused(place: Path, now: dict[str, Any], said: str) -> None:
    with pytest.raises(R1Error, match=said) as caught:
        check_same(Path("run"), asked(place), asked(place, **now))
    assert caught.value.code == 2 and "-o another name" in (caught.value.hint or "") and "--force" in (caught.value.hint or "")


@pytest.mark.parametrize("names", [["sub/rows.jsonl"], ["rows.jsonl", "more.jsonl"], []])
def test_other_files_are_a_difference_and_what_is_in_them_decides(place: Path, names: list[str]) -> None:
    """They may lie on another disk for each job of a run."""
    now = asked(place, inputs=names)
    check_same(Path("run"), asked(place), now)
    assert differences(asked(place), now) == {"inputs": (["rows.jsonl"], names)}
    assert differences(asked(place), asked(place / "sub", str(place / "base"))) == {"inputs": (["rows.jsonl"], ["rows.jsonl"])}


def test_a_renamed_directory_is_no_difference(place: Path) -> None:
    then, now = asked(place, lr=0.1, out="run", resume=False), asked(place, "./base", lr=0.2, out="renamed", resume=True)
    assert differences(then, now) == {"lr": (0.1, 0.2)}


def test_nothing_is_written_into_another_run(place: Path) -> None:
    before = (place / "run/config.json").read_bytes()
    for attempt in (
        lambda: run_dir.check_unused(place / "run", command="grpo", settings={}, resume=True),
        lambda: RunDir.open(place / "run", settings={}, sources={}, command="grpo", resume=True),
    ):
        with pytest.raises(R1Error, match="holds a run of `r1 sft`"):
            attempt()
    assert (place / "run/config.json").read_bytes() == before and not (place / "run/logs/attempt_2").exists()
    RunDir.open(place / "run", settings={}, sources={}, command="grpo", force=True).close()
