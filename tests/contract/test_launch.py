"""`r1 sft` and `r1 grpo` in two processes on a CPU, as a shell runs them: DDP and FSDP2, errors, signals, deaths, resuming."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from r1cli.train.progress import Progress
from tests.contract.conftest import Done, Run, assert_error, command_line, environment
from tests.contract.test_rm import pairs
from tests.contract.test_training import LESSONS, PROMPTS

ROOT = Path(__file__).parents[2]
FSDP2 = ["--accelerate-config", str(ROOT / "examples/accelerate/fsdp2-cpu.yaml")]
TWO = ["--num-processes", "2"]
SFT = ["--epochs", "2", "--batch-rows", "4", "--lr", "1e-2", "--dtype", "float32", "--save-every", "2", "--keep", "9"]
GRPO = [
    "--engine",
    "transformers",
    "--rewards",
    "mine.py:brief",
    "--steps",
    "4",
    "--prompts-per-step",
    "2",
    "--group-size",
    "4",
    "--max-completion-length",
    "16",
]
GRPO += ["--lr", "1e-3", "--dtype", "float32", "--save-every", "1", "--keep", "9", "--reference-every", "2"]
GRPO += ["--updates-per-rollout", "2", "--no-mask-truncated"]  # the tiny model never ends its turn: no completion would give a gradient
ENDING = """
import os, pathlib, signal

def brief(row):
    metrics = pathlib.Path("two/metrics.jsonl")
    if metrics.exists() and metrics.read_text():  # this is the second rollout
        try:
            pathlib.Path("ended").touch(exist_ok=False)
            os.kill(os.getppid(), signal.SIGTERM)
        except FileExistsError:
            pass
    return -len(row["completion"]) / 100
"""
CLOCK = ("time", "seconds", "tokens_per_second")


def figures(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(CLOCK)} for line in lines]


def weights(run: Path) -> dict[str, Any]:
    return load_file(run / "final/model.safetensors")


def assert_same(one: Path, other: Path, *, exactly: bool = False) -> None:
    """The same metrics and the same model: to the digit, or to what the order of sums changes."""
    ours, theirs = figures(one), figures(other)
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert a == b if exactly else a == pytest.approx(b, rel=1e-4, abs=2e-5)
    mine, yours = weights(one), weights(other)
    assert mine.keys() == yours.keys()
    largest = max(float((mine[name] - yours[name]).abs().max()) for name in mine)
    assert largest == 0.0 if exactly else largest < 2e-4


def assert_trained(run: Path, start: Path, *, more: float = 1e-3) -> None:
    """Every step moved the weights, and together they moved some by more than `more`."""
    assert all(record["updates"] >= 1 and record["grad_norm"] > 0 for record in figures(run))
    before, after = load_file(start / "model.safetensors"), weights(run)
    assert max(float((after[name].float() - before[name]).abs().max()) for name in before) > more


def rewind(run: Path, step: int) -> None:
    """Make a finished run one that was killed some time after a step's checkpoint."""
    for folder in (run / "checkpoints").iterdir():
        if folder.name > f"step_{step:06d}":
            shutil.rmtree(folder)
    shutil.rmtree(run / "final")
    (run / "manifest.json").unlink()


def files(folder: Path) -> None:
    (folder / "problems.jsonl").write_text(PROMPTS)
    (folder / "lessons.jsonl").write_text(LESSONS)
    (folder / "mine.py").write_text("def brief(row):\n    return -len(row['completion']) / 100\n")


@pytest.fixture(scope="module")
def alone(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what one process makes: `sft` and `grpo`."""
    folder = tmp_path_factory.mktemp("alone")
    files(folder)
    for name, more in (("sft", [*SFT, "lessons.jsonl"]), ("grpo", [*GRPO, "problems.jsonl"])):
        done = launched([*command_line(), name, "--model", str(tiny), *more, "-o", name], folder)
        assert done.returncode == 0, done.stderr
    assert_trained(folder / "grpo", tiny)
    return folder


@pytest.mark.parametrize("how", [TWO, FSDP2], ids=["ddp", "fsdp2"])
def test_sft_in_two_processes_is_sft_in_one(r1: Run, tiny: Path, alone: Path, tmp_path: Path, how: list[str]) -> None:
    command = ["sft", "--model", str(tiny), *SFT, "-o", "two", "-"]
    done = r1(*command, *how, stdin=LESSONS)  # both processes read all of stdin
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr.count("written: two/final") == 1
    assert_same(tmp_path / "two", alone / "sft")
    if how is FSDP2:  # what a sharded run leaves is an unsharded run's: one process goes on from it
        rewind(tmp_path / "two", 2)
        done = r1(*command, "--resume", stdin=LESSONS)
        assert done.returncode == 0, done.stderr
        assert "step_000002" in done.stderr
        assert_same(tmp_path / "two", alone / "sft")


@pytest.mark.parametrize("how", [TWO, FSDP2], ids=["ddp", "fsdp2"])
def test_grpo_in_two_processes_is_grpo_in_one_and_resumes_exactly(r1: Run, tiny: Path, alone: Path, tmp_path: Path, how: list[str]) -> None:
    """Later rollouts come from the weights the sampler was given: they are the same only if the sync is right."""
    files(tmp_path)
    command = ["grpo", "--model", str(tiny), *GRPO, *how, "-o", "two", "problems.jsonl"]
    done = r1(*command)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "two", alone / "grpo")
    (tmp_path / "two").rename(tmp_path / "straight")
    if how is FSDP2:
        shutil.copytree(tmp_path / "straight", tmp_path / "two", symlinks=True)
        rewind(tmp_path / "two", 2)
    else:  # asked to end while the second rollout is scored: its scores are not to be trusted, and it is drawn again
        (tmp_path / "mine.py").write_text(ENDING)
        done = r1(*command, "--save-every", "0", "--reward-workers", "1")
        assert done.returncode == 143, done.stderr
        found = [Progress.load(tmp_path / "two/checkpoints/step_000002", rank, 2) for rank in range(2)]
        assert [(progress.step, progress.taken, progress.batch) for progress in found if progress] == [(2, {0: 4}, None)] * 2
    done = r1(*command, "--resume")
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "two", tmp_path / "straight", exactly=True)


@pytest.mark.parametrize("how", [TWO, FSDP2], ids=["ddp", "fsdp2"])
def test_rm_in_two_processes_is_rm_in_one(r1: Run, tiny: Path, tmp_path: Path, how: list[str]) -> None:
    (tmp_path / "pairs.jsonl").write_text(pairs(0, 16))
    command = ["rm", "--model", str(tiny), "--dtype", "float32", "--batch-rows", "8", "--lr", "1e-3", "pairs.jsonl"]
    assert r1(*command, "-o", "one").returncode == 0
    done = r1(*command, *how, "-o", "two", "--track", "tensorboard")
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "two", tmp_path / "one")
    assert list((tmp_path / "two/trackers").rglob("events.out.*"))


def test_accelerate_launch_is_the_same_run(tiny: Path, alone: Path, tmp_path: Path) -> None:
    files(tmp_path)
    command = ["sft", "--model", str(tiny), *SFT]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", FSDP2[1], "--main_process_port", "0", "-m", "r1cli"]
    done = launched([*launch, *command, "-o", "two", "lessons.jsonl"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "two", alone / "sft")


def test_a_stdin_that_all_would_share_is_refused(r1: Run, tiny: Path) -> None:
    done = r1("sft", "--model", str(tiny), "-o", "run", "-", stdin=LESSONS, env={"WORLD_SIZE": "2", "RANK": "0"})
    assert_error(done, 2, "the processes of `accelerate launch` cannot share stdin", "--num-processes")


def launched(words: list[str], folder: Path) -> Done:
    return subprocess.run(words, cwd=folder, env=environment(), input="", capture_output=True, text=True, timeout=300, check=False)


def test_an_error_of_any_process_is_one_line(r1: Run, tiny: Path, tmp_path: Path) -> None:
    files(tmp_path)
    (tmp_path / "mine.py").write_text("def brief(row):\n    return 1 / (row['id'] != '1+2')\n")  # a row of the second process
    done = r1("grpo", "--model", str(tiny), *GRPO, "--prompts-per-step", "12", *TWO, "-o", "run", "--no-progress", "problems.jsonl")
    assert_error(done, 1, "reward `brief` failed on problems.jsonl:2: ZeroDivisionError")
    done = r1("grpo", "--model", str(tiny), *GRPO, *TWO, "-o", "other", "--no-progress", "-", stdin="{}\n")
    assert_error(done, 2, "stdin:1")


def begun(tiny: Path, folder: Path) -> "subprocess.Popen[str]":
    """A run of two processes without end, after its first step."""
    files(folder)
    words = ["grpo", "--model", str(tiny), *GRPO, "--steps", "100000", "--save-every", "0", *TWO, "-o", "run", "problems.jsonl"]
    process = subprocess.Popen([*command_line(), *words], cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True)
    deadline, metrics = time.monotonic() + 200, folder / "run/metrics.jsonl"
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return process


def children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def gone(process: int) -> bool:
    deadline = time.monotonic() + 200  # only so that a hang ends
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_reaches_all_and_saves(tiny: Path, tmp_path: Path, number: int, code: int) -> None:
    process = begun(tiny, tmp_path)
    process.send_signal(number)
    _, said = process.communicate(timeout=200)
    assert process.returncode == code, said
    assert "error:" not in said and said.count("saving what is done") == 1
    assert ("--resume" in said) is (number == signal.SIGINT)
    assert list((tmp_path / "run/checkpoints").glob("step_*/manifest.json"))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
def test_a_process_that_is_killed_ends_the_run_and_is_named(tiny: Path, tmp_path: Path) -> None:
    process = begun(tiny, tmp_path)
    ranks = children(process.pid)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 1, said
    assert [line for line in said.splitlines() if line.startswith("error:")] == ["error: process 2 of 2 was ended by SIGKILL"]
    assert all(gone(rank) for rank in ranks)


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death is a signal on Linux only")
def test_processes_end_with_the_one_that_started_them(tiny: Path, tmp_path: Path) -> None:
    process = begun(tiny, tmp_path)
    ranks = children(process.pid)
    process.kill()
    process.communicate(timeout=200)
    assert all(gone(rank) for rank in ranks)
    assert list((tmp_path / "run/checkpoints").glob("step_*/manifest.json"))


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["--accelerate-config", "none.yaml"], "`none.yaml` does not exist", "accelerate config"),
        (["--accelerate-config", str(ROOT / "examples/accelerate/multi-node.yaml")], "is for 2 machines", "accelerate launch"),
    ],
)
def test_a_configuration_that_starts_nothing_is_refused(
    r1: Run, tiny: Path, tmp_path: Path, words: list[str], message: str, hint: str
) -> None:
    files(tmp_path)
    done = r1("sft", "--model", str(tiny), *words, "-o", "run", "lessons.jsonl")
    assert_error(done, 2, message, hint)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs DeepSpeed")
@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_takes_the_same_steps(r1: Run, tiny: Path, alone: Path, tmp_path: Path, stage: int) -> None:
    """In accelerate's own words all tensors of the tiny model would stay whole in stage 3, so DeepSpeed's are used."""
    files(tmp_path)
    zero = {"stage": stage, "stage3_param_persistence_threshold": 0}
    (tmp_path / "zero.json").write_text(
        json.dumps({"zero_optimization": zero, "gradient_accumulation_steps": 1, "train_micro_batch_size_per_gpu": 1})
    )
    config = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "DEEPSPEED",
        "num_machines": 1,
        "num_processes": 2,
        "machine_rank": 0,
    }
    config["deepspeed_config"] = {"deepspeed_config_file": "zero.json", "zero3_init_flag": False}
    (tmp_path / "zero.yaml").write_text(json.dumps(config))  # JSON is YAML
    flags = ["--accelerate-config", "zero.yaml", "-o", "two", "problems.jsonl"]
    done = r1("grpo", "--model", str(tiny), *GRPO, *flags, env={"DS_ACCELERATOR": "cpu"})
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "two", alone / "grpo")
