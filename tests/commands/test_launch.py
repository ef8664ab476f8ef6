"""A launch: its environment (accelerate reads every file of examples/accelerate), and which of its processes' errors is said."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from r1cli.commands import launch
from r1cli.commands.launch import Processes, environment
from r1cli.errors import R1Error
from r1cli.guard import Terminated

EXAMPLES = Path(__file__).parents[2] / "examples" / "accelerate"
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
ZERO = {"ACCELERATE_USE_DEEPSPEED": "true"}
KINDS = {
    "ddp": {},
    "fsdp2": FSDP2,
    "fsdp2-cpu": FSDP2,
    "deepspeed-zero2": {**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"},
    "deepspeed-zero3": {**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
}


def test_every_example_is_tried_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == {*KINDS, "multi-node"}


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_the_example(name: str) -> None:
    found = environment(1, str(EXAMPLES / f"{name}.yaml"))
    assert found["WORLD_SIZE"] == found["LOCAL_WORLD_SIZE"] == ("2" if name == "fsdp2-cpu" else "8")
    strategies = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    assert {key for key in strategies if key in found} == {key for key in strategies if key in KINDS[name]}
    assert {key: found[key] for key in KINDS[name]} == KINDS[name]


def test_the_flag_wins_over_the_file() -> None:
    assert environment(4, str(EXAMPLES / "fsdp2.yaml"))["WORLD_SIZE"] == "4"


@pytest.mark.parametrize("name", KINDS)
def test_a_flag_of_one_process_wins_too(name: str) -> None:
    found = environment(1, str(EXAMPLES / f"{name}.yaml"), given=True)
    assert found["WORLD_SIZE"] == found["LOCAL_WORLD_SIZE"] == "1"


def test_the_only_process_of_a_launch_starts_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads the same flags, and would start one that reads them too."""
    settings = SimpleNamespace(num_processes=1, accelerate_config="one.yaml", dry_run=False)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launch.wanted(settings)
    monkeypatch.setattr(launch, "LAUNCHED", "/tmp/launch")
    assert not launch.wanted(settings)


def test_several_machines_are_for_accelerate_launch() -> None:
    with pytest.raises(R1Error, match="is for 2 machines"):
        environment(1, str(EXAMPLES / "multi-node.yaml"))


def test_what_is_no_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text("distributed_type: FSDP\nsurprise: 1\n")
    with pytest.raises(R1Error, match="is no configuration of accelerate"):
        environment(1, str(tmp_path / "odd.yaml"))


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    assert environment(2, None)["OMP_NUM_THREADS"] == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert environment(2, None)["OMP_NUM_THREADS"] == "5"


# What stands in for `python -m r1cli` in the two processes; `note` leaves an error as a process of a launch does.
PROCESS = """
import json, os, signal, sys, time
rank = int(os.environ["RANK"])
def note(message, echo, at):
    words = {"time": at, "message": message, "hint": "h", "code": 1, "echo": echo}
    open(os.path.join(os.environ["R1CLI_LAUNCH"], f"error_{rank}.json"), "w").write(json.dumps(words))
    sys.exit(1)
"""


def begin(folder: Path, work: str) -> Processes:
    """Two processes that do `work`."""
    package = folder / "fake/r1cli"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(PROCESS + work)
    return Processes(2, {"PYTHONPATH": str(folder / "fake")}, folder)


@pytest.mark.parametrize(
    ("work", "message", "hint", "shown"),
    [
        # who died without a word is named, with its last words, although another one has left a note because of that
        (
            "if rank: sys.stderr.write('why'); os._exit(3)\nnote('gone', True, 1)",
            "process 2 of 2 ended with exit code 3",
            "--debug",
            "2: why",
        ),
        (
            "if rank: os.write(2, b'why'); os.abort()\nnote('gone', True, 1)",
            "process 2 of 2 was ended by SIGABRT",
            "NCCL",
            "process 2: why",
        ),
        ("if rank: os.kill(os.getpid(), 9)\nnote('gone', True, 1)", "process 2 of 2 was ended by SIGKILL", "memory", ""),
        # an echo is said when there is nothing else, and never instead of an error
        ("note(f'gone {rank}', True, 2 - rank)", "gone 1", "h", ""),
        ("note(f'note {rank}', rank == 0, 1 + rank)", "note 1", "h", ""),
    ],
)
def test_the_error_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], work: str, message: str, hint: str, shown: str) -> None:
    processes = begin(tmp_path, work)
    processes.wait()
    with pytest.raises(R1Error) as error:
        processes.end_as_they_did()
    assert error.value.message == message and hint in str(error.value.hint)
    said = capsys.readouterr().err
    assert shown in said and bool(said) is bool(shown)


def test_a_signal_before_a_process_can_take_it_is_no_error(tmp_path: Path) -> None:
    processes = begin(tmp_path, "time.sleep(60)")
    with processes.relaying():
        os.kill(os.getpid(), signal.SIGTERM)
        processes.wait()
    with pytest.raises(Terminated):
        processes.end_as_they_did()


def test_a_wait_without_end_is_left_to_the_launcher_to_say(tmp_path: Path) -> None:
    """The stderr of all processes but the first goes to a file; what one of them waited for must not end there."""
    program = (
        "import time; from r1cli.commands.processes import _take_part; from r1cli.engines.watchdog import Watchdog\n_take_part([])\n"
        "with Watchdog(limit=0.1).waiting('a step that hangs', deadline=0.3): time.sleep(60)"
    )
    env = {**os.environ, "R1CLI_LAUNCH": str(tmp_path), "RANK": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3 and "error:" not in done.stderr
    note = json.loads((tmp_path / "error_1.json").read_text())
    assert note["message"].startswith("waited 0 s for a step that hangs") and note["code"] == 3 and not note["echo"]


# A process that ends as it is asked to by SIGTERM: the second one at once, the first one after it has saved for as long as `saving` says.
ASKED = """
def end(number, frame):
    time.sleep(0 if rank else saving)
    (note("the disk is full", False, 1) if broken and not rank else os._exit(143))
signal.signal(signal.SIGTERM, end)
for name in ("begun", "ready"):
    open(os.path.join(os.environ["R1CLI_LAUNCH"], f"{name}_{rank}"), "w").close()
time.sleep(60)
"""


def ask(folder: Path, saving: float, *, broken: bool = False) -> Processes:
    """Two such processes, asked to end and waited for."""
    return asked(folder, f"saving, broken = {saving}, {broken}\n" + ASKED)


def asked(folder: Path, work: str) -> Processes:
    """Two processes, asked to end once they are ready, and waited for."""
    processes = begin(folder, work)
    deadline = time.monotonic() + 60
    while not all((folder / f"ready_{rank}").exists() for rank in range(2)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with processes.relaying():
        os.kill(os.getpid(), signal.SIGTERM)
        processes.wait()
    return processes


def test_who_saves_is_waited_for_after_another_has_ended_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.2)
    processes = ask(tmp_path, 1.5)
    assert not processes.killed and [process.returncode for process in processes.running] == [143, 143]
    with pytest.raises(Terminated):
        processes.end_as_they_did()


def test_who_was_killed_while_it_saved_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "END_SECONDS", 0.2)
    with pytest.raises(R1Error, match="process 1 of 2 did not end within 0 s of the others, and was killed") as error:
        ask(tmp_path, 60).end_as_they_did()
    assert "the last whole checkpoint" in (error.value.hint or "")


# None of them has come to where it could save, and some do not hear SIGTERM.
DEAF = """
signal.signal(signal.SIGTERM, signal.SIG_IGN if rank in deaf else lambda number, frame: os._exit(143))
open(os.path.join(os.environ["R1CLI_LAUNCH"], f"ready_{rank}"), "w").close()
time.sleep(60)
"""


@pytest.mark.parametrize("deaf", [{1}, {0, 1}])
def test_nobody_is_waited_for_long_before_there_is_anything_to_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: set[int]
) -> None:
    """One that does not hear a signal, in torch's rendezvous, is no reason for another exit code."""
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.5)
    processes = asked(tmp_path, f"deaf = {deaf}\n" + DEAF)
    assert processes.killed == deaf
    with pytest.raises(Terminated):
        processes.end_as_they_did()


def test_a_signal_to_one_process_at_the_start_ends_all_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.5)
    processes = begin(tmp_path, "os._exit(143) if rank else time.sleep(60)")
    processes.wait()
    assert processes.killed == {0}
    with pytest.raises(R1Error, match="process 2 of 2 was asked to end before the first step, and not by this command") as error:
        processes.end_as_they_did()
    assert error.value.code == 143


def test_who_could_not_save_when_asked_to_end_is_heard(tmp_path: Path) -> None:
    with pytest.raises(R1Error, match="the disk is full"):
        ask(tmp_path, 0, broken=True).end_as_they_did()


def test_a_process_whose_launcher_is_gone_ends(tmp_path: Path) -> None:
    """Killed before the process asked to be told of that: its parent is another one by then."""
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True).stdout
    program = "from r1cli.commands.processes import _take_part; from r1cli.guard import Terminated\n"
    program += "try: _take_part([])\nexcept Terminated: raise SystemExit(143)\nimport os; assert 'R1CLI_LAUNCHER' not in os.environ"
    for launcher, code in ((gone.strip(), 143), (str(os.getpid()), 0)):
        env = {**os.environ, "R1CLI_LAUNCH": str(tmp_path), launch.LAUNCHER: launcher}
        assert subprocess.run([sys.executable, "-c", program], env=env, timeout=60, check=False).returncode == code
