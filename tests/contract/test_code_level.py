"""Model code runs only where the sandbox reaches the minimum level, or where --unsafe says so; the level in force is said."""

import json
import subprocess
import sys
import textwrap

import pytest

from r1cli.rewards.code.levels import available
from r1cli.rewards.code.sandbox import Level

ROW = {"id": "sum", "prompt": "Add.", "completion": "```python\ndef add(a, b):\n    return a + b\n```", "tests": ["assert add(1, 2) == 3"]}

WITHOUT_LANDLOCK = textwrap.dedent(
    """
    import ctypes, os, struct, sys
    libc = ctypes.CDLL(None, use_errno=True)
    program = b"".join(struct.pack("HBBI", *i) for i in [
        (0x20, 0, 0, 0),            # load the number of the system call
        (0x15, 0, 1, 444),          # landlock_create_ruleset, on every machine:
        (0x06, 0, 0, 0x00050026),   #   ENOSYS, as a kernel without Landlock says
        (0x06, 0, 0, 0x7FFF0000),   # anything else: allowed
    ])
    buffer = ctypes.create_string_buffer(program)
    fprog = struct.pack("HL", len(program) // 8, ctypes.addressof(buffer))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.c_char_p(fprog), 0, 0) == 0, os.strerror(ctypes.get_errno())
    os.execv(sys.executable, [sys.executable, "-m", "r1cli", *sys.argv[1:]])
    """
)


def r1(*args: str, landlock: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "r1cli"] if landlock else [sys.executable, "-c", WITHOUT_LANDLOCK]
    return subprocess.run([*command, *args], input=json.dumps(ROW) + "\n", capture_output=True, text=True, timeout=120)


@pytest.fixture(autouse=True)
def confined() -> None:
    if available().level < Level.CONFINED:
        pytest.skip(f"this machine's sandbox level is {available().level.name.lower()}")


@pytest.mark.parametrize("reward", ["code", "accuracy"])
def test_below_the_minimum_nothing_runs_without_unsafe(reward: str) -> None:
    refused = r1("reject", "--rewards", reward, "--keep", "all", landlock=False)
    assert (refused.returncode, refused.stdout) == (3, "")
    assert refused.stderr.startswith(
        "error: this machine's sandbox level is `seccomp`, below the minimum `confined`: model code does not run"
    )
    assert "--unsafe" in refused.stderr.split("hint:")[1]
    ran = r1("reject", "--rewards", reward, "--keep", "all", "--unsafe", landlock=False)
    assert json.loads(ran.stdout)["reward"] == 1.0
    assert "at level `seccomp`, below the minimum `confined`" in ran.stderr


def test_a_lower_minimum_is_reached_without_unsafe() -> None:
    ran = r1("reject", "--rewards", "code", "--keep", "all", "--sandbox-level", "seccomp", landlock=False)
    assert json.loads(ran.stdout)["reward"] == 1.0
    assert "code ran in the local sandbox at level `seccomp`" in ran.stderr


def test_the_level_in_force_is_said() -> None:
    ran = r1("reject", "--rewards", "code", "--keep", "all")
    assert json.loads(ran.stdout)["reward"] == 1.0
    assert "code ran in the local sandbox at level `confined`" in ran.stderr


@pytest.mark.parametrize("level", ["namespaces", "bubblewrap"])
def test_a_higher_level_is_entered_when_it_is_the_minimum(level: str) -> None:
    """bubblewrap only where `bwrap` is installed; without it nothing runs."""
    ran = r1("reject", "--rewards", "code", "--keep", "all", "--sandbox-level", level)
    if available().level < Level[level.upper()]:
        assert ran.returncode == 3
        assert f"below the minimum `{level}`" in ran.stderr
    else:
        assert json.loads(ran.stdout)["reward"] == 1.0
        assert f"at level `{level}`" in ran.stderr
