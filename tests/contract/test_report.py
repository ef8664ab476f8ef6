"""`r1 report` as a process: which inputs it takes, where the page goes, what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def r1(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED" and not name.startswith("R1_")}
    command = [sys.executable, "-m", "r1cli", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=cwd, stdin=subprocess.DEVNULL)


def make_run(folder: Path, time: float, metrics: str | None = None) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"command": "sft", "settings": {"lr": 1e-5}, "sources": {"lr": "flag"}}))
    lines = [json.dumps({"step": s, "time": time + s, "loss": 1 / s}) + "\n" for s in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(lines) if metrics is None else metrics)
    (folder / "samples.jsonl").write_text(json.dumps({"step": 1, "id": "a", "prompt": "p", "completion": "c", "reward": 1.0}) + "\n")


def scores(**more: Any) -> dict[str, Any]:
    return {"stage": "base", "model": "m", "problems": 1, "samples": 1, "pass@1": 0.5, "low": 0.1, "high": 0.9, **more}


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    make_run(tmp_path / "demo" / "zero", 500)
    make_run(tmp_path / "demo" / "after", 900)
    (tmp_path / "demo" / "scores.json").write_text(json.dumps([scores(), scores(stage="rl")]))
    (tmp_path / "one.json").write_text(json.dumps(scores(stage="other")))
    return tmp_path


def test_a_folder_of_runs_and_score_files_make_one_page(demo: Path) -> None:
    done = r1("report", "demo", "one.json", "-o", "page.html", "--title", "A <title>", "--json", cwd=demo)
    assert done.returncode == 0, done.stderr
    page = (demo / "page.html").read_text()
    assert "<title>A &lt;title&gt;</title>" in page and "other" in page
    document = json.loads(done.stdout)
    assert [run["name"] for run in document["runs"]] == ["zero", "after"]  # in the order they were started
    assert [score["stage"] for score in document["scores"]] == ["base", "rl", "other"]
    assert document["runs"][0]["metrics"][1]["loss"] == 0.5
    assert "written: page.html" in done.stderr


def test_a_run_given_twice_is_there_once_and_a_page_is_not_replaced(demo: Path) -> None:
    done = r1("report", "demo/zero", "demo/zero", cwd=demo)
    assert done.returncode == 0 and done.stdout == "" and "1 runs" in done.stderr
    again = r1("report", "demo/zero", cwd=demo)
    assert again.returncode == 2 and "`report.html` exists" in again.stderr
    assert r1("report", "demo/zero", "--force", "-q", cwd=demo).stderr == ""


def test_a_run_that_is_being_written_is_reported_up_to_its_last_whole_line(demo: Path) -> None:
    make_run(demo / "live", 1, '{"step": 1, "time": 2, "loss": 0.5}\n{"step": 2, "ti')
    done = r1("report", "live", "--json", cwd=demo)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["runs"][0]["metrics"]) == 1
    assert "metrics.jsonl`: line 2, the last one, is torn and left out" in done.stderr


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], "nothing to report on"),
        (["demoo"], "did you mean `demo`?"),
        (["empty"], "is not a run directory and holds none"),
        (["rows.jsonl"], "is not a score file"),
        (["rows.json"], "it has no `pass@1`"),
        (["broken"], "broken/metrics.jsonl:1: not valid JSON"),
        (["stepless"], "stepless/metrics.jsonl:1: the record has no `step`"),
    ],
)
def test_what_cannot_be_reported_is_one_error_one_hint_and_exit_2(demo: Path, words: list[str], what: str) -> None:
    (demo / "empty").mkdir()
    (demo / "rows.jsonl").write_text('{"id": 1}\n{"id": 2}\n')
    (demo / "rows.json").write_text('{"id": 1}')
    make_run(demo / "broken", 1, '{"step": 1,\n{"step": 2}\n')
    make_run(demo / "stepless", 1, '{"loss": 1}\n')
    done = r1("report", *words, cwd=demo)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert what in done.stderr and lines[0].startswith("error: ") and lines[2].startswith("hint: ") and len(lines) == 3
    assert not (demo / "report.html").exists()
