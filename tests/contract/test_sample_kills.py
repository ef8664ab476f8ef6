"""`r1 sample` killed with -9 at any moment and started again: the file ends complete, no row twice, none missing, each as it was to be."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.contract.conftest import assert_error, command_line, environment
from tests.contract.test_sample import by_pair, rows_of

COUNT, SAMPLES = 24, 4
PROMPTS = "".join(json.dumps({"id": f"p{n}", "prompt": f"What is {n} + 1?", "answer": str(n + 1)}) + "\n" for n in range(COUNT))
FAST = ("--engine", "transformers", "--dtype", "float32", "--max-completion-length", "24", "--no-progress")


def kill_at(words: list[str], out: Path, size: int, folder: Path) -> bool:
    """Run and kill -9 as soon as the file has this size; True when it was killed before its end."""
    process = subprocess.Popen(
        [*command_line(), *words],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        if out.exists() and out.stat().st_size >= size:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.001)
    _, stderr = process.communicate(timeout=200)
    assert process.returncode in (0, -signal.SIGKILL), stderr
    return process.returncode != 0


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """What an uninterrupted run writes."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "in.jsonl").write_text(PROMPTS)
    words = ["sample", "--model", str(tiny), *FAST, "-k", str(SAMPLES), "-o", "out.jsonl", "in.jsonl"]
    subprocess.run([*command_line(), *words], cwd=folder, env=environment(), check=True, capture_output=True, timeout=300)
    rows = by_pair(rows_of((folder / "out.jsonl").read_text()))
    assert len(rows) == COUNT * SAMPLES
    return rows


def test_killed_three_times_and_complete_all_the_same(tiny, tmp_path, whole):
    (tmp_path / "in.jsonl").write_text(PROMPTS)
    out = tmp_path / "out.jsonl"
    words = ["sample", "--model", str(tiny), *FAST, "-k", str(SAMPLES), "-o", "out.jsonl", "--resume", "in.jsonl"]
    dice = random.Random(7)
    sizes, killed = [], 0
    for attempt in range(3):
        batch = ["--batch-size", str(dice.choice([1, 5, 16]))]  # the rows do not depend on it
        killed += kill_at([*words, *batch], out, 2000 + 6000 * attempt + dice.randrange(3000), tmp_path)
        sizes.append(out.stat().st_size)
        with out.open("ab") as file:  # a kill in the middle of a line, which one write a row makes too rare to wait for
            file.write(b'{"id": "p1", "sample": 0, "compl')
    assert killed == 3
    assert sizes == sorted(sizes)
    done = subprocess.run(
        [*command_line(), *words], cwd=tmp_path, env=environment(), capture_output=True, encoding="utf-8", timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = rows_of(out.read_text())
    assert len(rows) == COUNT * SAMPLES
    assert by_pair(rows) == whole
    assert not (tmp_path / ".out.jsonl.drawing").exists()
    counts = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())["counts"]
    assert counts["out"] + counts["before"] == COUNT * SAMPLES


def test_shards_are_the_whole_whatever_the_order(r1, tiny, tmp_path, whole):
    (tmp_path / "in.jsonl").write_text(PROMPTS)
    (tmp_path / "turned.jsonl").write_text("".join(reversed(PROMPTS.splitlines(keepends=True))))
    parts = []
    for part, file in ((1, "in.jsonl"), (2, "turned.jsonl"), (3, "in.jsonl")):
        done = r1("sample", "--model", str(tiny), *FAST, "-k", str(SAMPLES), "--shard", f"{part}/3", file)
        assert done.returncode == 0, done.stderr
        parts.append(by_pair(rows_of(done.stdout)))
    assert all(parts)
    assert sum(map(len, parts)) == len(whole)
    assert {pair: row for part in parts for pair, row in part.items()} == whole


def test_two_processes_draw_what_one_draws(r1, tiny, tmp_path, whole):
    (tmp_path / "in.jsonl").write_text(PROMPTS)
    done = r1("sample", "--model", str(tiny), *FAST, "-k", str(SAMPLES), "--num-processes", "2", "--batch-size", "8", "in.jsonl")
    assert done.returncode == 0, done.stderr
    assert by_pair(rows_of(done.stdout)) == whole
    assert "(transformers x 2)" in done.stderr
    assert len(done.stderr.splitlines()) <= 6, done.stderr


def test_a_process_that_dies_ends_the_run_and_leaves_the_rows(tiny, tmp_path):
    (tmp_path / "in.jsonl").write_text(PROMPTS)
    words = ["sample", "--model", str(tiny), *FAST, "-k", "5000", "--num-processes", "2", "-o", "out.jsonl", "in.jsonl"]
    process = subprocess.Popen([*command_line(), *words], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
    out, deadline = tmp_path / "out.jsonl", time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline and not (out.exists() and out.stat().st_size > 5000):
        time.sleep(0.02)
    workers = [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    engines = [pid for pid in workers if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(engines) == 2
    os.kill(engines[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stderr
    assert "of 2 ended by signal 9" in stderr
    assert "--resume draws what is missing" in stderr
    assert rows_of(out.read_text())
    ended = time.monotonic() + 20
    while time.monotonic() < ended and Path(f"/proc/{engines[1]}").exists():
        time.sleep(0.05)
    assert not Path(f"/proc/{engines[1]}").exists(), "the other engine process outlives the command"


def test_more_samples_later_and_other_settings_never(r1, tiny, tmp_path, whole):
    (tmp_path / "in.jsonl").write_text(PROMPTS)
    words = ("sample", "--model", str(tiny), *FAST, "-o", "out.jsonl", "--resume", "in.jsonl")
    assert r1(*words, "-k", "1").returncode == 0
    done = r1(*words, "-k", str(SAMPLES))
    assert f"({COUNT} were there)" in done.stderr
    assert by_pair(rows_of((tmp_path / "out.jsonl").read_text())) == whole
    assert_error(r1(*words, "-k", "5", "--temperature", "0.5"), 2, "drawn with another --temperature", "it was `1.0`")
    assert_error(r1(*words, "-k", "5", "--template", "boxed"), 2, "drawn with another --template")


def test_a_second_writer_is_refused(r1, tiny, tmp_path):
    (tmp_path / "in.jsonl").write_text(PROMPTS)
    words = ["sample", "--model", str(tiny), *FAST, "-k", "5000", "-o", "out.jsonl", "--resume", "in.jsonl"]
    process = subprocess.Popen([*command_line(), *words], cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL)
    try:
        out, deadline = tmp_path / "out.jsonl", time.monotonic() + 200
        while process.poll() is None and time.monotonic() < deadline and not (out.exists() and out.stat().st_size > 0):
            time.sleep(0.02)
        assert_error(r1(*words), 2, "is being written by another `r1 sample`")
    finally:
        process.kill()
        process.wait(60)


def test_an_id_twice(r1, tiny):
    one = json.dumps({"id": "a", "prompt": "1+1?"}) + "\n"
    done = r1("sample", "--model", str(tiny), *FAST, stdin=one * 3)
    assert done.returncode == 0
    assert len(rows_of(done.stdout)) == 1
    assert "2 rows left out: their prompt and id were there before" in done.stderr
    other = json.dumps({"id": "a", "prompt": "another"}) + "\n"
    done = r1("sample", "--model", str(tiny), *FAST, stdin=one + other)
    assert done.returncode == 2
    assert "stdin:2: row `a` has the id of an earlier row and another prompt" in done.stderr
