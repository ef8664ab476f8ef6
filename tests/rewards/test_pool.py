"""The pool with real workers: hung, crashed, starved and killed ones."""

import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from r1cli.rewards import pool
from r1cli.rewards.pool import Outcome, Pool, Request
from r1cli.rewards.registry import parse_specs
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row

FILE = str(Path(__file__).with_name("user_rewards.py"))
SPECS = parse_specs(f"{FILE}:misbehaves")


def rows(*todo: str) -> list[Row]:
    return [Row({"id": i, "completion": one}) for i, one in enumerate(todo)]


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


@pytest.mark.parametrize("todo", ["hang", "sleep"])
def test_a_row_past_its_deadline_scores_0_and_is_counted(todo: str) -> None:
    with Scorer(SPECS, workers=2, timeout=1.0) as scorer:
        scored = [row["reward"] for row in scorer.score(rows("a", todo, "b", "c"))]
        assert scored == [1.0, 0.0, 1.0, 1.0]
        assert (scorer.timeouts, scorer.crashes) == (1, 0)
        assert "longer than 1 s" in scorer.warnings()[0]


@pytest.mark.parametrize("todo", ["segfault", "memory", "exit", "close"])
def test_a_row_that_ends_its_worker_scores_0_and_the_next_gets_a_new_one(todo: str) -> None:
    with Scorer(SPECS, workers=1, timeout=20.0) as scorer:
        assert [row["reward"] for row in scorer.score(rows("a", todo, "b"))] == [1.0, 0.0, 1.0]
        assert (scorer.timeouts, scorer.crashes) == (0, 1)


def test_a_worker_killed_from_outside_is_replaced() -> None:
    with Scorer(SPECS, workers=1, timeout=20.0) as scorer:
        (first,) = scorer.score(rows("pid"))
        os.kill(int(first["reward"]), signal.SIGKILL)
        assert gone_within(int(first["reward"]), 5.0)
        (second,) = scorer.score(rows("pid"))
        assert second["reward"] not in (0.0, first["reward"])
        assert scorer.crashes == 0  # it was idle: nothing was lost


def test_a_stopped_worker_does_not_stop_the_run() -> None:
    with Scorer(SPECS, workers=1, timeout=1.0) as scorer:
        (first,) = scorer.score(rows("pid"))
        os.kill(int(first["reward"]), signal.SIGSTOP)
        big = [Row({"id": 1, "completion": "x" * 1_000_000})]  # more than a pipe holds
        assert [row["reward"] for row in scorer.score(big)] == [0.0]
        assert [row["reward"] for row in scorer.score(rows("a"))] == [1.0]


def test_close_ends_every_worker_even_a_busy_one() -> None:
    scorer = Scorer(SPECS, workers=2, timeout=600.0)
    scored = scorer.score(rows("a", "hang", "hang"))
    assert next(scored)["reward"] == 1.0
    pids = scorer._pool.pids()
    assert pids
    scorer.close()
    assert all(gone_within(pid, 5.0) for pid in pids)


def test_a_killed_parent_leaves_no_worker() -> None:
    program = (
        "import sys\nfrom r1cli.rewards.registry import parse_specs\nfrom r1cli.rewards.scorer import Scorer\nfrom r1cli.row import Row\n"
        f"scorer = Scorer(parse_specs({FILE + ':misbehaves'!r}), workers=1, timeout=600)\n"
        "rows = iter(scorer.score([Row({'completion': 'pid'}), Row({'completion': 'hang'})]))\n"
        "print(int(next(rows)['reward']), flush=True)\nnext(rows)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.2)  # the second row is hanging now
        parent.kill()
    assert gone_within(pid, 10.0)


def test_a_worker_is_in_a_session_of_its_own_so_that_ctrl_c_passes_it_by() -> None:
    with Scorer(SPECS, workers=1) as scorer:
        (row,) = scorer.score(rows("pid"))
        assert os.getsid(int(row["reward"])) == int(row["reward"])


def test_sigterm_to_every_process_of_a_job_changes_no_score() -> None:
    """It reaches the workers whatever they do: while they start, while they score. Only the process that started them ends them."""
    outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    pool = Pool(parse_specs(f"{FILE}:naps"), 1, 4.0)
    try:
        pool.submit(Request(0, rows("a"), 20.0, outcomes.put))  # starts the worker
        signals = 0
        while outcomes.empty():
            for pid in pool.pids():
                os.kill(pid, signal.SIGTERM)
                signals += 1
            time.sleep(0.01)
        assert (outcomes.get().scores, signals > 50) == ([1.0], True)
    finally:
        pool.close()


def test_what_a_function_starts_can_be_terminated() -> None:
    with Scorer(parse_specs(f"{FILE}:ends_children"), workers=1, timeout=20.0) as scorer:
        assert [row["reward"] for row in scorer.score(rows("a"))] == [2.0]


def test_what_a_function_prints_is_not_on_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    with Scorer(parse_specs(f"{FILE}:polite"), workers=1) as scorer:
        list(scorer.score(rows("please")))
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "this goes to stderr" in captured.err


SLOW = """import os, time
with open(os.environ["IMPORTED"], "a") as file:
    file.write("x")
if os.path.getsize(os.environ["IMPORTED"]) > 1:
    time.sleep(60)
time.sleep(1)
def f(row): return 1.0
"""


def test_a_slow_import_is_said_and_no_row_waits_for_that_of_another_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    monkeypatch.setenv("IMPORTED", str(tmp_path / "imported"))
    monkeypatch.setattr(pool, "SAID_AFTER", 0.1)
    with Scorer(parse_specs(f"{tmp_path}/slow.py:f"), workers=3, timeout=50.0) as scorer:
        assert "importing reward" in caplog.text and "slow.py:f" in caplog.text
        begun = time.monotonic()
        (row,) = scorer.score(rows("a"))
        assert row["reward"] == 1.0 and len((tmp_path / "imported").read_text()) == 1  # one worker is enough for it
        assert [row["reward"] for row in scorer.score(rows(*"abcdefgh"))] == [1.0] * 8
        assert time.monotonic() - begun < 30  # those that still import are not waited for
    assert time.monotonic() - begun < 45
