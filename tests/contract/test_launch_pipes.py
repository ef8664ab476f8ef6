"""Rows from pipes in several processes: all of them read all rows, or it is refused."""

import os
import socket
import subprocess
import threading
from pathlib import Path

from tests.contract.conftest import Run, assert_error, command_line, environment
from tests.contract.test_launch import SFT, TWO, assert_same
from tests.contract.test_training import LESSONS

HELD_OUT = '{"id": "h", "prompt": "Held out?", "completion": "Yes."}\n'


def test_two_processes_read_all_rows_of_pipes(r1: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "lessons.jsonl").write_text(LESSONS)
    (tmp_path / "held.jsonl").write_text(HELD_OUT)
    os.mkfifo(tmp_path / "fifo")
    words = ["sft", "--model", str(tiny), *SFT, "--epochs", "1"]
    done = r1(*words, "-o", "one", "lessons.jsonl", "--held-out", "held.jsonl")
    assert done.returncode == 0, done.stderr
    threading.Thread(target=(tmp_path / "fifo").write_text, args=(LESSONS,), daemon=True).start()
    done = r1(*words, *TWO, "-o", "two", "fifo", "--held-out", "/dev/stdin", stdin=HELD_OUT)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "two", tmp_path / "one")


def test_a_pipe_that_all_would_share_is_refused(r1: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "lessons.jsonl").write_text(LESSONS)
    several = {"WORLD_SIZE": "2", "RANK": "0"}
    for words in (["/dev/stdin"], ["lessons.jsonl", "--held-out", "/dev/stdin"]):
        done = r1("sft", "--model", str(tiny), "-o", "run", *words, stdin=LESSONS, env=several)
        assert_error(done, 2, "the processes of `accelerate launch` cannot share `/dev/stdin`", "--num-processes")
    done = r1("distill", "--student", str(tiny), "--teacher", str(tiny), "--on-policy", "-o", "run", stdin=LESSONS, env=several)
    assert_error(done, 2, "the processes of `accelerate launch` cannot share stdin", "name a file of rows")
    done = r1("sft", "--model", str(tiny), "-o", "run", "-", "--held-out", "/dev/stdin", stdin=LESSONS)
    assert_error(done, 2, "`-` and `/dev/stdin` are one stream", "name it once")


def test_processes_with_other_rows_do_not_train(tiny: Path, tmp_path: Path) -> None:
    """As on two machines with files of their own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
    running = []
    for rank in range(2):
        (tmp_path / f"{rank}").mkdir()
        (tmp_path / f"{rank}/lessons.jsonl").write_text(LESSONS.replace("4", "5") if rank else LESSONS)
        words = [*command_line(), "sft", "--model", str(tiny), *SFT, "-o", str(tmp_path / "run"), "lessons.jsonl"]
        env = environment(**meeting, RANK=str(rank), LOCAL_RANK="0")
        running.append(subprocess.Popen(words, cwd=tmp_path / f"{rank}", env=env, stderr=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=200)[1] for process in running]
    assert [process.returncode for process in running] == [2, 2], said
    assert "error: process 2 of 2 has read other rows than process 1" in said[0]
    assert not (tmp_path / "run").exists()
