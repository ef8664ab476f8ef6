"""What training commands say of their memory at the end."""

import time

import pytest
import torch

from r1cli.commands.training import spent
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
