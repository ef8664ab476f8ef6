"""`r1 distill` whose time limit passes while the student is loaded: the rows that were made before are what a later start goes on from."""

import subprocess
import sys
from pathlib import Path

from tests.contract.conftest import Done, command_line, environment
from tests.contract.test_distill_stops import PASSING, files, offline

# Loading the student takes an hour, by the clock.
LATE = """
import sys, time
from r1cli.commands.training import Training

made, now = Training.__init__, time.time

def slowly(self, *given, **named):
    made(self, *given, **named)
    time.time = lambda: now() + 3600

Training.__init__ = slowly
from r1cli.cli import main

sys.argv[0] = "r1"
sys.exit(main())
"""


def r1(folder: Path, *words: str, late: bool = False) -> Done:
    command = [sys.executable, "-c", LATE] if late else command_line()
    return subprocess.run([*command, *words], cwd=folder, env=environment(), capture_output=True, text=True, timeout=300, check=False)


def test_it_ends_as_at_any_other_time_and_goes_on(tiny: Path, tmp_path: Path) -> None:
    files(tmp_path)
    words = [*offline(tiny, "--traces", "traces.jsonl", *PASSING), "-o", "run"]
    done = r1(tmp_path, *words, "--time-limit", "30m", late=True)
    assert done.returncode == 0, done.stderr
    assert "distill: time limit reached, " in done.stderr and "what is finished is kept" in done.stderr
    assert "next: r1 distill " in done.stderr and "--resume" in done.stderr and "error" not in done.stderr
    made = (tmp_path / "run/train.jsonl").read_bytes()
    assert made and not (tmp_path / "run/final").exists() and not list((tmp_path / "run/checkpoints").iterdir())
    again = r1(tmp_path, *words, "--time-limit", "30m", "--resume", late=True)
    assert again.returncode == 1 and "the time limit left no time for anything" in again.stderr  # else jobs would start each other for ever
    resumed = r1(tmp_path, *words, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert (tmp_path / "run/train.jsonl").read_bytes() == made and (tmp_path / "run/final/manifest.json").exists()
