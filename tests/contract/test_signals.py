"""Signals, pipes and stdout: what a shell relies on when something ends early, tested with a command that is nothing but a loop."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.contract.conftest import FAKE, Run, command_line, environment

# Rows without end, one a moment; `cleaned` appears when the command was ended politely.
LOOP = """
import time
from pathlib import Path
from r1cli.io.stream import RowWriter
def run(settings, context):
    context.on_interrupt()
    try:
        with RowWriter("-") as writer:
            for number in range(100_000):
                writer.write({"id": number})
                if number >= 2:
                    time.sleep(0.01)
    finally:
        Path("cleaned").touch()
        PLACE
"""


def start(folder: Path, *words: str, at_the_end: str = "pass") -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [*command_line(fake=True), "sample", *words],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(R1TEST_COMMAND=LOOP.replace("PLACE", at_the_end)),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == '{"id": 0}\n'
    return process


def end(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """What is left on stdout and stderr when the process has ended (within 30 s)."""
    process.wait(timeout=30)
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout as rows, process.stderr as said:
        return rows.read(), said.read()


def test_ctrl_c_keeps_rows_and_names_the_command_that_continues(tmp_path: Path) -> None:
    process = start(tmp_path, "-m", "my model", "--force", "rows.jsonl")
    process.send_signal(signal.SIGINT)
    rows, said = end(process)
    assert process.returncode == 130
    assert (tmp_path / "cleaned").exists()
    assert rows == "" or rows.endswith("}\n"), "whole rows only"
    assert said == (
        "interrupted: ending, what is finished is kept; Ctrl-C again kills\nhint: r1 sample -m 'my model' rows.jsonl --resume\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_twice_is_one_wish(tmp_path: Path, number: signal.Signals) -> None:
    """Once from the terminal or the scheduler, once more from a shell or a launcher that passes it on."""
    process = start(tmp_path, "-m", "m", "rows.jsonl", at_the_end="Path('ending').touch(); time.sleep(0.5); Path('ended').touch()")
    process.send_signal(number)
    while not (tmp_path / "ending").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    end(process)
    assert process.returncode == 128 + number
    assert (tmp_path / "ended").exists()


def test_a_later_ctrl_c_kills(tmp_path: Path) -> None:
    process = start(tmp_path, "-m", "m", "rows.jsonl", at_the_end="time.sleep(60)")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("interrupted")
    time.sleep(2.5)
    process.send_signal(signal.SIGINT)
    end(process)
    assert process.returncode == -signal.SIGINT


def test_sigterm_cleans_up_and_says_nothing(tmp_path: Path) -> None:
    process = start(tmp_path, "-m", "m", "rows.jsonl")
    process.send_signal(signal.SIGTERM)
    _, said = end(process)
    assert (process.returncode, said) == (143, "")
    assert (tmp_path / "cleaned").exists()


def shell(line: str, folder: Path, fake: str) -> "subprocess.CompletedProcess[str]":
    """A line of bash in which $R1 is the fake command; the exit codes of its pipeline are the last line of stdout."""
    quoted = " ".join(f"'{word}'" if "\n" not in word else '"$FAKE"' for word in command_line(fake=True))
    script = line.replace("$R1", quoted) + '; echo "${PIPESTATUS[@]}"'
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment(R1TEST_COMMAND=fake, FAKE=FAKE),
    )


@pytest.mark.parametrize("rows", [3, 100_000])
def test_a_reader_that_leaves_is_no_failure(tmp_path: Path, rows: int) -> None:
    """`| head -1` after few rows (all in the pipe's buffer) and after many (the write fails)."""
    fake = f"""
from r1cli.io.stream import RowWriter
def run(settings, context):
    with RowWriter("-") as writer:
        for number in range({rows}):
            writer.write({{"id": number}})
    context.console.summary(["done"])
"""
    done = shell("$R1 mix a -q | head -1", tmp_path, fake)
    assert done.stderr == ""
    assert done.stdout == '{"id": 0}\n0 0\n'


def test_a_reader_of_both_streams_may_leave(tmp_path: Path) -> None:
    fake = """
from r1cli.io.stream import RowWriter
def run(settings, context):
    with RowWriter("-") as writer:
        for number in range(50_000):
            writer.write({"id": number})
            context.console.info(f"wrote {number}")
"""
    done = shell("$R1 mix a 2>&1 | head -1", tmp_path, fake)
    assert (done.stderr, done.stdout.splitlines()[-1]) == ("", "0 0")


NOISY = """
import os, subprocess, sys
from r1cli.io.stream import RowWriter
def run(settings, context):
    print("python noise")
    subprocess.run(["echo", "child noise"], check=True)
    os.write(1, b"fd noise\\n")
    with RowWriter("-") as writer:
        writer.write({"id": "é\\u2028"})
        print("noise between rows", flush=True)
        writer.write({"id": 2})
"""


def test_noise_of_libraries_and_children_never_reaches_stdout(r1: Run) -> None:
    done = r1("mix", "a", fake=NOISY)
    assert done.returncode == 0, done.stderr
    assert done.stdout == '{"id": "é\u2028"}\n{"id": 2}\n'
    assert all(f"{noise}\n" in done.stderr for noise in ("python noise", "child noise", "fd noise", "noise between rows"))


def test_rows_survive_a_bar_on_the_terminal(tmp_path: Path) -> None:
    """stderr is a terminal with a live bar, stdout a file: all rows are in the file and none in the bar."""
    import pty
    import threading

    fake = """
from r1cli.io.stream import RowWriter
def run(settings, context):
    with RowWriter("-") as writer, context.console.progress(200, "rows", "mix") as progress:
        for number in range(200):
            writer.write({"id": number})
            progress.advance()
"""
    ours, theirs = pty.openpty()
    seen: list[bytes] = []

    def read() -> None:
        try:
            while block := os.read(ours, 65536):
                seen.append(block)
        except OSError:  # the last writer closed the terminal
            return

    reader = threading.Thread(target=read)
    reader.start()
    with (tmp_path / "rows.jsonl").open("w") as rows:
        code = subprocess.run(
            [*command_line(fake=True), "mix", "a"],
            stdin=subprocess.DEVNULL,
            stdout=rows,
            stderr=theirs,
            timeout=60,
            env=environment(R1TEST_COMMAND=fake, TERM="xterm"),
            check=False,
        ).returncode
    os.close(theirs)
    reader.join(timeout=10)
    assert code == 0
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 200
    screen = b"".join(seen).decode()
    assert "200/200" in screen
    assert '"id"' not in screen


def test_no_escape_codes_where_nobody_can_see_them(r1: Run) -> None:
    fake = """
def run(settings, context):
    with context.console.progress(3, "rows") as progress:
        progress.advance(3)
    context.console.warn("w")
"""
    done = r1("mix", "a", fake=fake)
    assert done.stderr == "warning: w\n"
    assert "\x1b[1;33mwarning:" in r1("mix", "a", fake=fake, env={"FORCE_COLOR": "1"}).stderr
