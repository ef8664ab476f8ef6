"""How contract tests run `r1`: as a process of its own, the way a shell does, with a clean environment."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HEAVY = (
    "torch",
    "transformers",
    "vllm",
    "datasets",
    "accelerate",
    "sympy",
    "pyarrow",
    "numpy",
    "langdetect",
    "math_verify",
    "pandas",
    "peft",
)
NOT_OURS = ("PYTHONUNBUFFERED", "NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS")
# A command whose module is the text in R1TEST_COMMAND: the shell around it is the real one.
FAKE = """
import os, sys, types
sys.argv[0] = "r1"
module = types.ModuleType("r1cli.commands.fake")
exec(os.environ.pop("R1TEST_COMMAND"), module.__dict__)
sys.modules["r1cli.commands." + sys.argv[1]] = module
from r1cli.cli import main
sys.exit(main())
"""

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


def environment(**extra: str) -> dict[str, str]:
    """The environment of the test run without what would change how `r1` speaks; R1_ variables only from `extra`."""
    kept = {name: value for name, value in os.environ.items() if name not in NOT_OURS and not name.startswith("R1_")}
    return {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **extra}


def command_line(fake: bool = False) -> list[str]:
    """The words in front of a command's name."""
    return [sys.executable, "-c", FAKE] if fake else [sys.executable, "-m", "r1cli"]


@pytest.fixture
def r1(tmp_path: Path) -> Run:
    """`r1("mix", "a.jsonl", stdin="", env={...}, fake="def run(settings, context): ...")` in an empty folder; text in and out."""

    def run(*words: str, stdin: str = "", env: dict[str, str] | None = None, fake: str = "", timeout: float = 300) -> Done:
        extra = {**(env or {}), **({"R1TEST_COMMAND": fake} if fake else {})}
        return subprocess.run(
            [*command_line(bool(fake)), *words],
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            cwd=tmp_path,
            env=environment(**extra),
            timeout=timeout,
            check=False,
        )

    return run


def assert_error(done: Done, code: int, message: str = "", hint: str = "") -> None:
    """stderr is exactly `error:`, an empty line, `hint:`; no traceback, no final period, and stdout is empty."""
    lines = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    assert len(lines) == 3, done.stderr
    assert lines[0].startswith("error: "), done.stderr
    assert lines[1] == ""
    assert lines[2].startswith("hint: "), done.stderr
    assert message in lines[0], done.stderr
    assert hint in lines[2], done.stderr
    assert not lines[0].endswith("."), done.stderr
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr
    assert done.stdout == ""
