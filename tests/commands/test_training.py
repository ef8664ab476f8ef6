"""What training commands say of their memory at the end, and that no process leaves before the main one has saved."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from r1cli.commands import training as module
from r1cli.commands.training import Training, spent
from r1cli.train.memory import peak_memory


def test_the_process_alone() -> None:
    big = torch.ones(2**27)  # 0.5 GiB
    assert peak_memory().keys() == {"peak_memory_gib"}
    assert big.numel() * 4 / 2**30 < peak_memory()["peak_memory_gib"] < 64
    assert spent(time.time()).endswith(f" {peak_memory()['peak_memory_gib']:.1f} GiB at most")


def test_the_gpu_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 3 * 2**30)
    assert peak_memory()["peak_gpu_memory_gib"] == 3.0
    assert spent(time.time()).endswith(" GiB and 3.0 GiB of the GPU at most")


@pytest.mark.parametrize("what", ["a checkpoint", "the final model", "the end"])
def test_no_process_goes_on_before_the_main_one_has_declared_it_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """One that ends while the main one still syncs its files has that killed by the launcher."""
    happened: list[str] = []

    def note(name: str) -> Any:
        return lambda *given, **more: happened.append(name)

    @contextmanager
    def saving(*given: Any, **more: Any) -> Iterator[Path]:
        yield tmp_path
        happened.append("whole")

    for name in ("save_model", "save_state", "save_random"):
        monkeypatch.setattr(module, name, note(name))
    training: Any = object.__new__(Training)
    training.accelerator = SimpleNamespace(wait_for_everyone=note("wait"), end_training=note("end"))
    training.run = SimpleNamespace(checkpoint=saving, final_model=saving, finish=note("whole"), close=note("close"))
    training.settings, training.context = SimpleNamespace(), SimpleNamespace(command="sft")
    training.policy = training.tokenizer = training.optimizer = training.reference = None
    training.data = training.base = training.held_out = None
    training.start_step = 0
    if what == "the end":
        training.finish()
        assert happened == ["whole", "close", "wait", "end"]
        return
    training.save(2 if what == "the final model" else 1, 2, lambda folder: happened.append("extra"))
    assert happened.count("wait") == 2 and happened[-3:] == ["wait", "whole", "wait"]
    assert ("save_state" in happened) is (what == "a checkpoint")
