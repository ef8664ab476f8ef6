"""What the guard makes of errors of libraries: here of two real processes (gloo) that wait for each other."""

import os
import socket
import subprocess
import sys

import pytest

from r1cli.guard import Deserted, explain

# The first process waits in a collective of r1's; the second one does what argv says. It prints what the guard makes of the error.
PROGRAM = """
import os, sys, time
from datetime import timedelta
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from r1cli.guard import Deserted, explain
from r1cli.train.agreement import highest
accelerator = Accelerator(cpu=True, kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=3))])
highest(accelerator, 0)
if accelerator.process_index:
    time.sleep(8) if sys.argv[1] == "stands still" else os._exit(1)
try:
    highest(accelerator, 1)
except Exception as error:
    known = explain(error)
    print(type(known).__name__, known.message, sep="|")
os._exit(0)
"""


def waits_for(other: str) -> list[str]:
    """(class, message) of what the first process says."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, other],
            env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        return processes[0].communicate(timeout=120)[0].strip().split("|")
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_a_process_that_does_not_arrive_is_said_with_the_time_and_the_place() -> None:
    kind, message = waits_for("stands still")
    assert kind == "R1Error"
    assert message == "another process did not arrive within 3 s: this one waited for it in `highest`"


def test_a_process_that_is_gone_is_told_from_an_error_of_ones_own() -> None:
    kind, message = waits_for("is gone")
    assert kind == "Deserted"
    assert message.startswith("another process is gone: this one waited for it in `highest` (") and "by peer" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 7200000ms for recv operation", "did not arrive within 2 h"),
        ("Timed out after 7201 seconds waiting for clients. 1/2 clients joined.", "did not arrive within 2 h"),
        ("wait timeout after 600000ms, keys: /default_pg/0//cpu//0", "did not arrive within 600 s"),
    ],
)
def test_other_ways_to_say_that_one_is_late(text: str, message: str) -> None:
    assert message in explain(RuntimeError(text)).message


@pytest.mark.parametrize("text", ["The server socket has failed to listen: EADDRINUSE", "expected scalar type Float but found BFloat16"])
def test_other_errors_stay_bugs(text: str) -> None:
    known = explain(RuntimeError(text))
    assert not isinstance(known, Deserted) and known.message.endswith("this is a bug")
