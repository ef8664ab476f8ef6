"""Two processes and the signals of a scheduler: what Slurm and systemd do (everybody gets it), what a launcher adds, and a death."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.contract.conftest import Run, command_line, environment
from tests.contract.test_launch import ROOT, TWO, assert_same, children, figures, gone
from tests.contract.test_orphans import children_of
from tests.contract.test_training import LESSONS, PROMPTS

GRPO = "--engine transformers --rewards mine.py:slow --prompts-per-step 2 --group-size 4 --max-completion-length 16 --lr 1e-3 --steps 6 "
GRPO += "--dtype float32 --no-mask-truncated --save-every 2 --keep 9 --reward-workers 1"
# `scoring` is there while a row is being scored; the sleep is long enough for a test to see it and to send its signals
SLOW = """
import time
from pathlib import Path
def slow(row):
    Path("scoring").touch()
    time.sleep(0.3)
    Path("scoring").unlink(missing_ok=True)
    return 1 + len(row["completion"]) / 100
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


def command(tiny: Path, folder: Path, how: Sequence[str] = TWO) -> list[str]:
    (folder / "problems.jsonl").write_text(PROMPTS)
    (folder / "mine.py").write_text(SLOW)
    return ["grpo", "--model", str(tiny), *GRPO.split(), *how, "problems.jsonl"]


@pytest.fixture(scope="module")
def straight(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes that nothing happened to."""
    folder = tmp_path_factory.mktemp("straight")
    words = [*command_line(), *command(tiny, folder), "-o", "run"]
    done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert all(record["grad_norm"] > 0 for record in figures(folder / "run"))  # a wrong score would change the weights
    return folder / "run"


def begun(words: list[str], folder: Path, steps: int = 1) -> "subprocess.Popen[str]":
    """The run in its own group, after some steps and while a row of the next one is scored."""
    words = [*words, "-o", "run"]
    process = subprocess.Popen(words, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline, metrics = time.monotonic() + 200, folder / "run/metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") >= steps and (folder / "scoring").exists()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    return process


def ended(process: "subprocess.Popen[str]") -> str:
    """What it said until its end; nothing it started is left in any case."""
    everyone = children_of(process.pid)
    try:
        return process.communicate(timeout=200)[1]
    finally:
        process.kill()
        assert all(gone(child) for child in everyone)


def assert_saved(folder: Path) -> None:
    """A checkpoint that nothing but the signal asked for."""
    assert [path.parent.name for path in (folder / "run/checkpoints").glob("step_*/manifest.json")] == ["step_000001"]


def assert_goes_on(r1: Run, tiny: Path, folder: Path, straight: Path) -> None:
    assert 0 < len(figures(folder / "run")) < len(figures(straight))
    done = r1(*command(tiny, folder), "-o", "run", "--resume")
    assert done.returncode == 0, done.stderr
    assert_same(folder / "run", straight, exactly=True)


def signal_all(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@pytest.mark.parametrize("whom", ["the launcher", "everybody"])
def test_sigterm_saves_and_the_run_goes_on_as_if_nothing_was(r1: Run, tiny: Path, tmp_path: Path, straight: Path, whom: str) -> None:
    """Everybody: launcher, ranks and reward workers, as slurmstepd and systemd do; ranks get the launcher's own as well. All that twice:
    somebody above them may pass it on."""
    process = begun([*command_line(), *command(tiny, tmp_path)], tmp_path)
    everyone = {process.pid, *children_of(process.pid)}
    assert len(everyone) == 1 + 2 + 2
    signal_all([process.pid] if whom == "the launcher" else everyone, signal.SIGTERM)
    if whom == "everybody":
        time.sleep(0.1)
        signal_all(everyone, signal.SIGTERM)
    said = ended(process)
    assert process.returncode == 143, said
    assert "error:" not in said and said.count("saving what is done") == 1
    assert_saved(tmp_path)
    assert_goes_on(r1, tiny, tmp_path, straight)


def test_sigterm_to_everybody_under_accelerate_launch_saves_as_well(r1: Run, tiny: Path, tmp_path: Path, straight: Path) -> None:
    """torch's agent gets it too, and sends its processes one of its own."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ROOT / "examples/accelerate/ddp.yaml")]
    launch += ["--num_processes", "2", "--main_process_port", "0", "-m", "r1cli"]
    process = begun([*launch, *command(tiny, tmp_path, how=())], tmp_path)
    signal_all({process.pid, *children_of(process.pid)}, signal.SIGTERM)
    ended(process)
    assert_saved(tmp_path)
    assert_goes_on(r1, tiny, tmp_path, straight)


def test_ctrl_c_that_comes_twice_is_one_wish(tiny: Path, tmp_path: Path) -> None:
    """A terminal's goes to the whole group, and a parent in it passes it on."""
    process = begun([*command_line(), *command(tiny, tmp_path)], tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    signal_all(children(process.pid), signal.SIGINT)
    os.killpg(process.pid, signal.SIGINT)
    said = ended(process)
    assert process.returncode == 130, said
    assert "error:" not in said and said.count("saving what is done") == 1 and "--resume" in said
    assert_saved(tmp_path)


def test_a_later_ctrl_c_kills(tiny: Path, tmp_path: Path) -> None:
    process = begun([*command_line(), *command(tiny, tmp_path)], tmp_path)
    everyone = children_of(process.pid)
    signal_all(children(process.pid), signal.SIGSTOP)  # they cannot end by themselves
    process.send_signal(signal.SIGINT)
    time.sleep(2.2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert all(gone(child) for child in everyone)


def test_a_process_that_is_killed_takes_nothing_with_it(r1: Run, tiny: Path, tmp_path: Path, straight: Path) -> None:
    process = begun([*command_line(), *command(tiny, tmp_path)], tmp_path, steps=3)  # the last checkpoint has two
    os.kill(children(process.pid)[1], signal.SIGKILL)
    said = ended(process)
    assert process.returncode == 1, said
    assert [line for line in said.splitlines() if line.startswith("error:")] == ["error: process 2 of 2 was ended by SIGKILL"]
    assert_goes_on(r1, tiny, tmp_path, straight)


# The disk of the main process is slow to keep a checkpoint, and the launcher has less patience than that with the rest after a failure.
SLOW_DISK = """
import os, time
import r1cli.commands.launch as launch
import r1cli.io.whole_folder as whole_folder

launch.GRACE_SECONDS = 1.0
sync = whole_folder.sync

def slow(folder):
    if os.environ.get("RANK") == "0":
        time.sleep(5)
    sync(folder)

whole_folder.sync = slow
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_main_process_is_waited_for_while_it_saves(tiny: Path, tmp_path: Path, number: int) -> None:
    """Only GRPO has a word between the processes after a save; the others ended, and took the main one's checkpoint with them."""
    (tmp_path / "lessons.jsonl").write_text(LESSONS)
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow/sitecustomize.py").write_text(SLOW_DISK)
    env = environment(PYTHONPATH=os.pathsep.join([str(tmp_path / "slow"), os.environ.get("PYTHONPATH", "")]))
    words = [*command_line(), "sft", "--model", str(tiny), "--batch-rows", "4", "--dtype", "float32", "--epochs", "9999", *TWO]
    words += ["--no-progress", "-o", "run", "lessons.jsonl"]
    process = subprocess.Popen(words, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline, metrics = time.monotonic() + 200, tmp_path / "run/metrics.jsonl"
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    said = ended(process)
    assert process.returncode == 128 + number and "error:" not in said, said
    assert len(list((tmp_path / "run/checkpoints").glob("step_*/manifest.json"))) == 1


# The first process comes late, so that the second one waits in torch's rendezvous, where Python calls no handler of a signal.
LATE = """
import os, time
from pathlib import Path
if "RANK" in os.environ:
    import r1cli.train.strategy as strategy
    import r1cli.train.model as model
    start = strategy.start

    def late(dtype):
        Path("rank_" + os.environ["RANK"]).touch()
        time.sleep(120 if os.environ["RANK"] == "0" else 0)
        return start(dtype)

    strategy.start = model.start = late
"""


def starting(tiny: Path, folder: Path) -> "subprocess.Popen[str]":
    """A run of which one process waits for the other."""
    (folder / "late").mkdir()
    (folder / "late/sitecustomize.py").write_text(LATE)
    env = environment(PYTHONPATH=os.pathsep.join([str(folder / "late"), os.environ.get("PYTHONPATH", "")]))
    words = [*command_line(), *command(tiny, folder), "-o", "run"]
    process = subprocess.Popen(words, cwd=folder, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 200
    while not all((folder / f"rank_{rank}").exists() for rank in range(2)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(3.0)  # until it waits
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_one_process_waits_for_another_to_start_ends_all(tiny: Path, tmp_path: Path, number: int) -> None:
    process = starting(tiny, tmp_path)
    begun, everyone = time.monotonic(), children_of(process.pid)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number and "error:" not in said, said
    assert time.monotonic() - begun < 12 and all(gone(child) for child in everyone)  # the launcher kills after 15 s


def test_no_process_that_waits_for_another_to_start_outlives_the_launcher(tiny: Path, tmp_path: Path) -> None:
    process = starting(tiny, tmp_path)
    everyone = children_of(process.pid)
    assert len(everyone) == 2
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 20
    while not all(gone(child) for child in everyone):
        assert time.monotonic() < deadline
        time.sleep(0.1)
