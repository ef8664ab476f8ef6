"""Asked to end: by a signal, by a clock, by another process."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from r1cli.commands.stopping import INTERRUPT, TERMINATE, TIME, Stopper, say_unfinished, seconds_of
from r1cli.errors import R1Error
from r1cli.guard import Context, Terminated


@pytest.mark.parametrize(
    ("text", "seconds"), [("600", 600), ("600s", 600), ("90m", 5400), ("3h30m", 12600), ("1d", 86400), ("1.5h", 5400), ("0.5", 0.5)]
)
def test_times(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "3 h", "-5", "0", "h", "1w"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(R1Error, match="`--time-limit` must be a time") as error:
        seconds_of(text)
    assert error.value.code == 2
    assert seconds_of(None) is None


@pytest.mark.parametrize(
    ("number", "reason", "raised"), [(signal.SIGINT, INTERRUPT, KeyboardInterrupt), (signal.SIGTERM, TERMINATE, Terminated)]
)
def test_a_signal_leaves_a_note(monkeypatch: pytest.MonkeyPatch, number: Any, reason: str, raised: type[BaseException]) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr("r1cli.commands.stopping.ignore_repeats", lambda number: signal.signal(number, signal.SIG_IGN))
    try:
        with Stopper() as stopper:
            assert not stopper.wanted()
            os.kill(os.getpid(), number)
            assert stopper.wanted() and stopper.reason == reason
        assert {each: signal.getsignal(each) for each in before} == {**before, number: signal.SIG_IGN}  # until the process ends
    finally:
        signal.signal(number, before[number])
    with pytest.raises(raised):
        stopper.leave()


# Signals itself: at once, again at once, and (a later wish) after more than 2 s.
SIGNALLED = """
import os, sys, threading, time
from r1cli.commands.stopping import Stopper
number = int(sys.argv[1])
with Stopper() as stopper:
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)
    stopper._handle(number, None)  # it was on its way when the first one was taken
    print(stopper.reason, flush=True)
    threading.Timer(2.5, os.kill, (os.getpid(), number)).start()
    time.sleep(3.5)
print("lives", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("of_a_launch", [False, True])
def test_repeats_are_one_wish_and_a_later_signal_kills_a_process_that_is_alone(number: signal.Signals, of_a_launch: bool) -> None:
    env = {**os.environ, **({"WORLD_SIZE": "2"} if of_a_launch else {})}
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(int(number))], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    reason = INTERRUPT if number == signal.SIGINT else TERMINATE
    assert done.stdout.split() == ([reason, "lives"] if of_a_launch else [reason]), done.stderr
    assert done.returncode == (0 if of_a_launch else -number)
    assert done.stderr.count("saving what is done") == 1
    assert ("kills" in done.stderr) is not of_a_launch  # whoever launched it does


def test_the_clock_ends_a_run_before_work_that_would_not_fit() -> None:
    stopper = Stopper(limit=100.0)
    assert not stopper.wanted() and not stopper.wanted(50.0)
    assert stopper.wanted(101.0) and stopper.reason == TIME
    stopper.leave()  # no signal: nothing is raised


def test_the_longest_save_so_far_must_fit_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    stopper = Stopper(limit=100.0)
    for seconds in (30.0, 5.0):
        with stopper.saving():
            now[0] += seconds
    assert not stopper.wanted(30.0)  # 35 + 30 + 30
    now[0] += 30.0
    assert not stopper.wanted(4.0) and stopper.wanted(6.0)


def test_abandoned_work_ends_without_a_reason() -> None:
    stopper = Stopper()
    stopper.abandon()
    assert stopper.wanted() and not stopper.agreed(SimpleNamespace(num_processes=1))


@pytest.mark.parametrize("resumable", [True, False])
def test_the_time_limit_says_how_to_go_on_where_that_is_possible(monkeypatch: pytest.MonkeyPatch, resumable: bool) -> None:
    monkeypatch.setattr("sys.argv", ["r1", "sft", "rows.jsonl", "--force"])
    said: list[str] = []
    context = Context("sft", {}, SimpleNamespace(summary=said.extend))  # type: ignore[arg-type]
    if resumable:
        context.on_interrupt()
    stopper = Stopper()
    stopper.reason = TIME
    say_unfinished(stopper, context, 3, 9, "1 min", before=2)
    assert said[0] == "sft: time limit reached after 3 of 9 steps, 1 min"
    assert said[1] == (
        "next: r1 sft rows.jsonl --resume" if resumable else "this run cannot be resumed; its last checkpoint is a model like any other"
    )


def test_a_time_limit_that_leaves_time_for_no_step_is_an_error() -> None:
    """A job script that starts the next one after exit 0 would go on for ever."""
    stopper = Stopper()
    stopper.reason = TIME
    with pytest.raises(R1Error, match="left no time for a step: 3 of 9 are done") as caught:
        say_unfinished(stopper, Context("sft", {}, SimpleNamespace()), 3, 9, "1 min", before=3)  # type: ignore[arg-type]
    assert caught.value.code == 1


def test_a_signal_that_comes_while_processes_agree_counts_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stopper = Stopper()

    def speak(accelerator: Any, number: int) -> int:
        stopper.reason = TERMINATE
        return number

    monkeypatch.setattr("r1cli.train.agreement.highest", speak)
    assert not stopper.agreed(None) and stopper.agreed(None)
