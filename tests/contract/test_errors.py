"""Errors: one `error:` line, one `hint:` line, the right exit code, for every way a call can be wrong."""

import subprocess
import sys

import pytest

from r1cli.settings import COMMANDS
from tests.contract.conftest import Run, assert_error, environment

USAGE = [
    (["gropo"], "`r1` has no command `gropo`", "did you mean `grpo`?"),
    (["--versoin"], "`r1` has no flag `--versoin`", "did you mean `--version`?"),
    (["grpo", "--group-sise", "4"], "`r1 grpo` has no flag `--group-sise`", "did you mean `--group-size`?"),
    (["grpo", "--num-generations", "4"], "`r1 grpo` has no flag `--num-generations`", "here it is `--group-size`"),
    (["grpo", "--group", "4"], "`r1 grpo` has no flag `--group`", "did you mean `--group-size`?"),
    (["grpo", "-m", "m", "-o", "o", "--loss", "grp"], "`--loss` must be one of `grpo`, `dr_grpo`", "did you mean `grpo`?"),
    (["grpo", "-m", "m", "-o", "o", "--group-size", "1"], "`--group-size` must be a whole number of at least 2, found `1`", ""),
    (["grpo", "-m", "m", "-o", "o", "--lr", "fast"], "`--lr` must be a number of at least 0, found `fast`", ""),
    (["grpo", "--lr"], "`--lr` needs a value", "r1 grpo --help"),
    (["grpo", "--force=1"], "`--force` is a switch", "r1 grpo --help"),
    (["grpo", "-m", "--out", "o"], "`--model` needs a value, found the flag `--out`", ""),
    (["grpo"], "`r1 grpo` needs `--out` and `--model`", "r1 grpo --help"),
    (["rewards", "extra"], "unexpected extra argument", "r1 rewards --help"),
]


@pytest.mark.parametrize(("words", "message", "hint"), USAGE, ids=[" ".join(words) for words, _, _ in USAGE])
def test_wrong_usage(r1: Run, words: list[str], message: str, hint: str) -> None:
    assert_error(r1(*words), 2, message, hint)


RAISED = [
    ("from r1cli.errors import R1Error\n    raise R1Error('two words', hint='try this', code=1)", 1, "two words", "try this"),
    ("from r1cli.errors import R1Error\n    raise R1Error('bad row', hint='mend it', code=2)", 2, "bad row", "mend it"),
    ("import nowhere", 3, "needs the package `nowhere`", "pip install 'nowhere'"),
    ("raise ModuleNotFoundError('No module named vllm', name='vllm.engine')", 3, "needs the package `vllm`", "pip install 'r1cli[vllm]'"),
    ("open('none.txt')", 2, "`none.txt`: no such file or directory", "check the path"),
    ("raise MemoryError", 1, "out of memory (MemoryError)", "--microbatch-tokens"),
    ("raise RuntimeError('CUDA Error: out of memory at cumem.cpp')", 1, "out of memory (CUDA Error: out of memory at", "--gpu-memory"),
    ("raise ValueError('odd\\nthing')", 1, "unexpected ValueError: odd thing: this is a bug", "--debug"),
    ("raise BrokenPipeError(32, 'Broken pipe')", 1, "unexpected BrokenPipeError", "--debug"),
]


@pytest.mark.parametrize(("body", "code", "message", "hint"), RAISED, ids=[body[-40:] for body, *_ in RAISED])
def test_what_a_command_raises(r1: Run, body: str, code: int, message: str, hint: str) -> None:
    assert_error(r1("mix", "a", fake=f"def run(settings, context):\n    {body}\n"), code, message, hint)


@pytest.mark.parametrize("how", [{"words": ["--debug"]}, {"env": {"R1_DEBUG": "1"}}])
def test_debug_shows_the_traceback_above_the_error(r1: Run, how: dict) -> None:
    done = r1("mix", "a", *how.get("words", []), env=how.get("env"), fake="def run(settings, context):\n    raise ValueError('odd')\n")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "error: unexpected ValueError: odd: this is a bug\n\nhint: " in done.stderr


def test_warnings_are_counted_before_the_error(r1: Run) -> None:
    body = "for _ in range(3): context.console.warn('odd row')\n    raise ValueError('x')"
    done = r1("mix", "a", fake=f"def run(settings, context):\n    {body}\n")
    assert done.stderr.startswith("warning: odd row\nwarning: odd row (3 times)\nerror: unexpected ValueError: x")


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in ("rewards", "report")])
def test_no_rows_and_a_keyboard_show_the_examples(command: str) -> None:
    """Without input and with a terminal as stdin a command must not wait for somebody to type rows."""
    import pty

    words = {
        "sample": ["-m", "m"],
        "sft": ["-m", "m", "-o", "o"],
        "rm": ["-m", "m", "-o", "o"],
        "grpo": ["-m", "m", "-o", "o"],
        "distill": ["--student", "s", "-o", "o"],
    }
    _, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "r1cli", command, *words.get(command, [])],
        stdin=theirs,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"  r1 {command} " in done.stderr or f"| r1 {command} " in done.stderr
    assert done.stderr.endswith(f"error: no rows: give a file, or pipe rows to stdin\n\nhint: r1 {command} --help\n")
