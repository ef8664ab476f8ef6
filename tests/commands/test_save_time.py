"""What a time limit leaves for a save before there was one: the size of a checkpoint over the speed of the disk, twice."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from r1cli.commands import save_time
from r1cli.commands.disk_room import MIB, checkpoint_size
from r1cli.commands.save_time import first_save, speed
from r1cli.commands.stopping import Stopper


def training(folder: Path, **changed: Any) -> Any:
    """Of a million weights, and a frozen one: 4 MiB, 8 for two moments, 4 for a reference."""
    weights = [torch.nn.Parameter(torch.zeros(MIB)), torch.nn.Parameter(torch.zeros(1), requires_grad=False)]
    policy = SimpleNamespace(parameters=lambda: iter(weights))
    fields: dict[str, Any] = {
        "accelerator": SimpleNamespace(num_processes=1),
        "run": SimpleNamespace(path=folder),
        "policy": policy,
        "reference": SimpleNamespace(model=policy),
    }
    return SimpleNamespace(**{**fields, "settings": SimpleNamespace(time_limit="1h"), **changed})


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Clocks that stand, but for a disk that keeps a MiB in ten seconds."""
    found = [1000.0]

    def fsync(descriptor: int) -> None:
        found[0] += 10.0 * os.fstat(descriptor).st_size / MIB

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(time, "time", lambda: found[0])
    monkeypatch.setattr(time, "perf_counter", lambda: found[0])
    return found


def test_the_first_save_is_guessed_by_a_part_of_it(tmp_path: Path, now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(save_time, "PART", 2 * MIB)
    assert checkpoint_size(training(tmp_path)) == 16 * MIB + 8
    assert first_save(training(tmp_path)) == pytest.approx(1.0 + 2 * 160.0, rel=1e-3)
    sharded = SimpleNamespace(numel=lambda: 0, ds_numel=1000, element_size=lambda: 2, requires_grad=True)  # by DeepSpeed
    assert checkpoint_size(training(tmp_path, policy=SimpleNamespace(parameters=lambda: [sharded]), reference=None)) == 10_000
    assert now[0] == 1020.0 and not list(tmp_path.iterdir())


def test_a_disk_that_takes_a_part_at_once_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(save_time, "speed", lambda folder, size: 1e12)
    assert first_save(training(tmp_path)) == pytest.approx(1.0 + 2 * 16 / 256, rel=1e-3)


def test_every_process_leaves_the_same_time(tmp_path: Path, now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each leaves its sampler by its own clock; only one of them writes."""
    guesses: list[float] = []
    monkeypatch.setattr(save_time, "of_all", lambda accelerator, things: guesses + things)
    guesses.append(first_save(training(tmp_path)))
    assert guesses[0] > 1.0 and first_save(training(tmp_path, run=None)) == guesses[0]


def test_nothing_is_measured_without_need(tmp_path: Path, now: list[float]) -> None:
    for changed in ({"run": None}, {"settings": SimpleNamespace(time_limit=None)}, {"settings": SimpleNamespace()}):
        assert first_save(training(tmp_path, **changed)) == 0.0
    assert now[0] == 1000.0


def test_a_full_disk_is_for_the_save_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    assert speed(tmp_path, MIB) == save_time.SLOW and not list(tmp_path.iterdir())


def test_a_kill_while_the_disk_is_tried_leaves_nothing(tmp_path: Path) -> None:
    killed = "import os, signal, pathlib, r1cli.commands.save_time as save_time\n"
    killed += "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
    killed += f"save_time.speed(pathlib.Path({str(tmp_path)!r}), 1)\n"
    assert subprocess.run([sys.executable, "-c", killed], check=False, timeout=60).returncode == -signal.SIGKILL
    assert not list(tmp_path.iterdir())


def test_a_save_that_was_made_tells_better_than_a_guess(now: list[float]) -> None:
    stopper = Stopper(limit=100.0, first_save=40.0)
    assert not stopper.wanted(59.0)
    with stopper.saving():
        now[0] += 5.0
    assert not stopper.wanted(89.0)
    assert stopper.wanted(91.0)
    assert Stopper(limit=100.0, first_save=40.0).wanted(61.0)
