"""`accelerate launch -m r1cli grpo` over two machines: here two launchers on one, which meet on the loopback interface."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.contract.conftest import command_line, environment
from tests.contract.test_launch import assert_same, figures
from tests.contract.test_orphans import children_of
from tests.contract.test_training import PROMPTS

DDP = Path(__file__).parents[2] / "examples/accelerate/ddp.yaml"
GRPO = "--engine transformers --rewards mine.py:brief --prompts-per-step 2 --group-size 4 --max-completion-length 16 --lr 1e-3 --steps 3 "
GRPO += "--dtype float32 --no-mask-truncated --save-every 1 --keep 9 --reward-workers 1"
SECONDS = 200.0  # only so that a hang ends


@pytest.fixture
def words(tiny: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "problems.jsonl").write_text(PROMPTS)
    (tmp_path / "mine.py").write_text("def brief(row):\n    return -len(row['completion']) / 100\n")
    return ["grpo", "--model", str(tiny), *GRPO.split(), "problems.jsonl"]


def machine(rank: int, port: int) -> list[str]:
    """The words in front of a command on the machine with this number."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(DDP), "--num_processes", "2", "--num_machines", "2"]
    return [*launch, "--machine_rank", str(rank), "--main_process_ip", "127.0.0.1", "--main_process_port", str(port), "-m", "r1cli"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_grpo_on_two_machines_is_grpo_in_one_process(words: list[str], tmp_path: Path) -> None:
    port, deadline = free_port(), time.monotonic() + SECONDS
    machines = []
    for rank in range(2):
        with (tmp_path / f"said_{rank}").open("w") as said:
            machines.append(subprocess.Popen([*machine(rank, port), *words, "-o", "two"], cwd=tmp_path, env=environment(), stderr=said))
    try:
        while {process.poll() for process in machines} in ({None}, {None, 0}) and time.monotonic() < deadline:
            time.sleep(0.1)
        said_by_all = "".join((tmp_path / f"said_{rank}").read_text() for rank in range(2))
        assert [process.poll() for process in machines] == [0, 0], said_by_all
    finally:
        for process in machines:
            for pid in children_of(process.pid) | ({process.pid} if process.poll() is None else set()):
                os.kill(pid, signal.SIGKILL)
            process.wait(timeout=20)
    assert said_by_all.count("written: two/final") == 1
    alone = [*command_line(), *words, "-o", "one"]
    done = subprocess.run(alone, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    assert all(record["grad_norm"] > 0 for record in figures(tmp_path / "one"))
    assert_same(tmp_path / "two", tmp_path / "one")
