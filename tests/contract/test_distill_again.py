"""`r1 distill` in a directory with traces of an earlier start: not anew over them, and not with those of other prompts."""

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import Run, assert_error, command_line, environment
from tests.contract.test_distill import lines, read
from tests.fake_server import FakeServer

WORDS = ["--rewards", "accuracy", "--epochs", "1", "--batch-rows", "2", "--dtype", "float32", "--batch-size", "1", "-o", "run"]
APPLES = [{"id": f"apples{n}", "prompt": f"apples {n}?", "answer": "42"} for n in range(4)]
BANANAS = [{"id": f"bananas{n}", "prompt": f"bananas {n}?", "answer": "42"} for n in range(3)]


def says(message: str) -> str:
    return "<think>\nso\n</think>\n\n<answer>\\boxed{42}</answer>"


def words(server: FakeServer, tiny: Path, file: str) -> list[str]:
    return ["distill", "--teacher", "teacher", "--url", server.url, "--student", str(tiny), *WORDS, file]


def ids(path: Path) -> set[Any]:
    return {row["id"] for row in read(path)}


@pytest.fixture
def begun(tiny: Path, tmp_path: Path) -> Path:
    """A folder with a run that was interrupted once its teacher had written two traces of four."""
    (tmp_path / "a.jsonl").write_text(lines(*APPLES))
    (tmp_path / "b.jsonl").write_text(lines(*BANANAS))
    traces = tmp_path / "run/traces.jsonl"
    with FakeServer(says=says, seconds=0.7) as server:
        process = subprocess.Popen(
            [*command_line(), *words(server, tiny, "a.jsonl")], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 200
        while not traces.exists() or traces.read_bytes().count(b"\n") < 2:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=100)
    assert process.returncode == 130, said
    assert 2 <= len(read(traces)) < 4 and not list((tmp_path / "run/checkpoints").iterdir())
    return tmp_path


def test_traces_are_a_run_that_has_begun(r1: Run, tiny: Path, begun: Path) -> None:
    config = (begun / "run/config.json").read_bytes()
    with FakeServer(says=says) as server:
        again = r1(*words(server, tiny, "b.jsonl"))
        assert server.requests == []
    assert_error(again, 2, "run directory `run` is in use", "--resume continues it")
    (begun / "lessons.jsonl").write_text(lines({"prompt": "a", "completion": "b"}))
    assert_error(r1("sft", "--model", str(tiny), "-o", "run", "lessons.jsonl"), 2, "run directory `run` is in use")
    assert (begun / "run/config.json").read_bytes() == config


def test_traces_of_prompts_that_are_not_asked_any_more_are_not_learnt(r1: Run, tiny: Path, begun: Path) -> None:
    old = read(begun / "run/traces.jsonl")
    first = old[0]["id"]
    changed = {**next(row for row in APPLES if row["id"] == old[1]["id"]), "prompt": "pears?"}  # an id of old
    (begun / "b.jsonl").write_text(lines(*BANANAS, changed))
    with FakeServer(says=says) as server:
        done = r1(*words(server, tiny, "b.jsonl"), "--resume")
        assert done.returncode == 0, done.stderr
        assert len(server.requests) == 4
    assert f"4 traces kept, {len(old)} dropped; {len(old)} its prompt is not asked any more" in done.stderr
    assert len(read(begun / "run/traces.jsonl")) == 4 + len(old)
    assert first not in ids(begun / "run/train.jsonl")
    assert {row["messages"][0]["content"] for row in read(begun / "run/train.jsonl")} == {"pears?", *(row["prompt"] for row in BANANAS)}


def test_fewer_prompts_make_the_kept_rows_anew(r1: Run, tiny: Path, begun: Path) -> None:
    """The traces are the same then: the prompts alone say what follows from them."""
    with FakeServer(says=says) as server:
        words_of_all = [*words(server, tiny, "a.jsonl"), "--resume"]
        stopped = r1(*words_of_all, env={"R1_DISTILL_MAX_LENGTH": "1"})  # nothing fits: it ends before it trains
        assert stopped.returncode != 0 and ids(begun / "run/kept.jsonl") == {row["id"] for row in APPLES}, stopped.stderr
        (begun / "a.jsonl").write_text(lines(*APPLES[1:]))
        done = r1(*words_of_all)
    assert done.returncode == 0, done.stderr
    assert "`kept.jsonl` is made again: prompts differs" in done.stderr
    assert ids(begun / "run/train.jsonl") == {row["id"] for row in APPLES[1:]}
