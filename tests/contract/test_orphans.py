"""Ctrl-C in the middle of scoring: the command ends at once, and no worker and no sandboxed program stays behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from r1cli.rewards.code.levels import available
from r1cli.rewards.code.sandbox import Level

HANGS = """
import os, time
from pathlib import Path
def hangs(row):
    Path(os.environ["PIDS"], str(os.getpid())).touch()
    while True:
        time.sleep(1)
"""


def children_of(pid: int) -> set[int]:
    """Every living descendant of a process, by the parents that /proc names, whatever session or group it is in."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                parents[int(folder.name)] = int(parent)
    found: set[int] = set()
    while new := {child for child, parent in parents.items() if (parent == pid or parent in found) and child not in found}:
        found |= new
    return found


def alive(pids: set[int]) -> set[int]:
    left = set()
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                left.add(pid)
        except OSError:
            continue
    return left


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("reward", ["users own", "code"])
def test_nothing_is_left_behind(tmp_path: Path, reward: str, how: signal.Signals) -> None:
    if reward == "code" and available().level < Level.CONFINED:
        pytest.skip(f"this machine's sandbox level is {available().level.name.lower()}")
    (tmp_path / "mine.py").write_text(HANGS)
    program = "```python\nimport time\nwhile True:\n    time.sleep(1)\n```"
    row = {"id": 1, "completion": program, "tests": {"inputs": ["1"], "outputs": ["1"]}}
    rewards = "code:time=60:budget=120" if reward == "code" else f"{tmp_path}/mine.py:hangs"
    process = subprocess.Popen(
        [sys.executable, "-m", "r1cli", "reject", "--rewards", rewards, "--reward-timeout", "100", "--keep", "all"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "PIDS": str(tmp_path)},
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps(row) + "\n")
    process.stdin.flush()
    started = time.monotonic()
    busy: set[int] = set()
    while time.monotonic() - started < 60:
        busy = children_of(process.pid)
        there = any(name.name.isdigit() for name in tmp_path.iterdir()) if reward != "code" else _programs(busy)
        if there:
            break
        time.sleep(0.05)
    else:
        process.kill()
        pytest.fail("nothing was running after a minute")
    process.send_signal(how)
    process.stdin.close()
    assert process.wait(timeout=30) == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[how]
    assert process.stderr is not None
    process.stderr.close()
    deadline = time.monotonic() + 20
    while alive(busy) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive(busy) == set()


def _programs(pids: set[int]) -> bool:
    """Whether one of the processes stands in the directory of a sandbox."""
    for pid in pids:
        try:
            if "r1-box-" in os.readlink(f"/proc/{pid}/cwd"):  # noqa: PTH115
                return True
        except OSError:
            continue
    return False
