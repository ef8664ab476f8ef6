"""A process of a launch that is asked to end before there is anything to save, also while it is where Python calls no handler."""

import os
import signal
import subprocess
import sys
import time

import pytest

# `deaf` waits as torch's rendezvous does: outside of Python, and a signal does not end the wait.
PROGRAM = """
import ctypes, os, signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the tests ignore it, and what they start
from r1cli.commands.processes import _take_part
from r1cli.commands.stopping import Stopper
from r1cli.guard import exit_code
from r1cli.report.console import Console

def deaf():
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    libc.pthread_mutex_lock(mutex)
    print("ready", flush=True)
    libc.pthread_mutex_lock(mutex)

def work():
    _take_part(["rows.jsonl"])
    {work}

sys.exit(exit_code(work, Console()))
"""
CLEANS = """
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        time.sleep(3.0)
        print("cleaned", flush=True)
"""
SAVES = """
    with Stopper():
        deaf()
"""
FORKS = """
    if (child := os.fork()) == 0:
        time.sleep(60)
        os._exit(0)
    time.sleep(0.5)  # one that comes sooner is lost: Python clears what the child inherits
    os.kill(child, 15)
    print(os.waitpid(child, 0)[1], flush=True)
    time.sleep(3.0)
    print("lives", flush=True)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="locks a mutex of glibc")


def begin(work: str) -> "subprocess.Popen[str]":
    env = {**os.environ, "WORLD_SIZE": "2", "RANK": "1"}
    words = [sys.executable, "-c", PROGRAM.replace("{work}", work)]
    return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def signalled(work: str, number: int, seconds: float) -> "subprocess.Popen[str]":
    """After the signal, and at most so many seconds."""
    process = begin(work)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(1.0)  # what it says comes just before the wait
    process.send_signal(number)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)])
def test_a_signal_ends_a_process_that_cannot_hear_it(number: int, code: int) -> None:
    process = signalled("deaf()", number, 20.0)
    assert process.returncode == code
    said = process.communicate()[1]
    assert said == ("interrupted: ending before the first step\n" if number == signal.SIGINT else "")


def test_one_that_hears_it_ends_as_it_wants_to() -> None:
    process = signalled(CLEANS, signal.SIGTERM, 30.0)
    assert process.communicate()[0] == "cleaned\n" and process.returncode == 143


def test_one_that_can_save_is_left_to_it() -> None:
    """A collective may take its time; the save comes after it."""
    assert signalled(SAVES, signal.SIGTERM, 4.0).returncode == -signal.SIGKILL


def test_a_signal_of_a_forked_child_is_not_its_parents() -> None:
    process = begin(FORKS)
    assert process.communicate(timeout=60)[0].split() == ["15", "lives"] and process.returncode == 0


def test_a_process_that_is_alone_is_not_listened_for() -> None:
    program = "import signal; from r1cli.commands.processes import _take_part; _take_part([]); print(signal.set_wakeup_fd(-1))"
    env = {name: value for name, value in os.environ.items() if name != "WORLD_SIZE"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "-1\n"
