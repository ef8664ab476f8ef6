"""One job at a time in a run directory: refused, waited for, and free again however the other one ended."""

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from r1cli.errors import R1Error
from r1cli.io import run_dir
from r1cli.io.lock import Lock, check_free
from tests.io.test_run_dir import open_run

HOLD = """
import os, sys, time
from pathlib import Path
from r1cli.io.lock import Lock

lock = Lock(Path(sys.argv[1]))
if sys.argv[2] == "and forks" and os.fork() == 0:
    os.write(1, f"{os.getpid()}\\n".encode())  # at once: the other one writes too
    time.sleep(60)
os.write(1, b"held\\n")
time.sleep(float(sys.argv[3]))
"""


@contextmanager
def held(folder: Path, seconds: float = 60.0, how: str = "alone") -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Another process that has a directory's lock, and what it printed before it had."""
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), how, str(seconds)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    said = [other.stdout.readline().strip() for _ in range(2 if how == "and forks" else 1)]
    assert "held" in said
    try:
        yield other, said
    finally:
        other.kill()
        other.wait()


LOOK = """
import fcntl, os, sys, time

file = open(sys.argv[1])
fcntl.lockf(file, fcntl.LOCK_SH)
os.write(1, b"looking\\n")
time.sleep(0.3)
"""


def test_a_job_that_only_looks_whether_a_directory_is_free_turns_nobody_away(tmp_path: Path) -> None:
    """Two jobs that start together: one looks (`check_free`, for far less than this) when the other one takes the lock."""
    Lock(tmp_path).close()
    with subprocess.Popen([sys.executable, "-c", LOOK, str(tmp_path / ".lock")], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "looking\n"
        Lock(tmp_path).close()


def test_a_directory_that_another_process_writes_to_is_refused_by_name_of_the_process(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    open_run(folder).close()
    before = (folder / "config.json").read_bytes()
    with held(folder) as (other, _):
        for attempt in (lambda: open_run(folder), lambda: open_run(folder, force=True), lambda: run_dir.check_unused(folder, force=True)):
            with pytest.raises(R1Error, match=rf"`{folder}` is being written by another job \(process {other.pid} on ") as caught:
                attempt()
            assert caught.value.code == 2
            assert "another name" in (caught.value.hint or "")
    assert (folder / "config.json").read_bytes() == before
    open_run(folder, force=True).close()


def test_resume_waits_for_the_process_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "run"
    open_run(folder).close()
    with held(folder, seconds=1.0) as (other, _), caplog.at_level(logging.WARNING, "r1cli"):
        run_dir.check_unused(folder, resume=True)
        other.wait(0.5)  # it is over, or nothing was waited for
        assert f"for another job to leave `{folder}`" in caplog.text
        open_run(folder, resume=True).close()


def test_waiting_has_an_end(tmp_path: Path) -> None:
    with held(tmp_path):
        started = time.monotonic()
        with pytest.raises(R1Error, match="another job"):
            Lock(tmp_path, seconds=0.5)
        assert time.monotonic() - started >= 0.5


def test_a_child_that_outlives_a_killed_job_does_not_hold_its_directory(tmp_path: Path) -> None:
    with held(tmp_path, how="and forks") as (other, said):
        child = int(next(word for word in said if word != "held"))
        try:
            other.send_signal(signal.SIGKILL)
            other.wait()
            Lock(tmp_path).close()
            os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)


def test_closing_a_run_frees_its_directory(tmp_path: Path) -> None:
    taking = [sys.executable, "-c", HOLD, str(tmp_path / "run"), "alone", "0"]
    with open_run(tmp_path / "run"):
        assert subprocess.run(taking, capture_output=True, text=True).returncode == 1
    assert subprocess.run(taking, capture_output=True, text=True).stdout == "held\n"


def test_a_folder_with_nothing_but_a_lock_is_unused(tmp_path: Path) -> None:
    Lock(tmp_path).close()
    assert not run_dir.check_unused(tmp_path)
    open_run(tmp_path).close()


def test_a_file_system_without_locks_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(file: object, kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", none)
    with caplog.at_level(logging.WARNING, "r1cli"):
        Lock(tmp_path).close()
    assert "cannot be locked (No locks available)" in caplog.text
    open_run(tmp_path / "run").close()
    with pytest.raises(R1Error, match="is in use"):  # there the one that has not begun may be another job's, which loads its model
        open_run(tmp_path / "run")
    check_free(tmp_path / "nowhere")
