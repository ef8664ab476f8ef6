"""What an engine is given where nobody says."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from r1cli.commands.sampling import gpu_share
from r1cli.engines import load
from r1cli.settings import DistillSettings, SampleSettings


def test_vllm_leaves_room_for_a_trainer_beside_it() -> None:
    sample = SampleSettings(inputs=["p.jsonl"], model="m")
    distill = DistillSettings(inputs=["p.jsonl"], student="m", out="d")
    assert (gpu_share(sample), gpu_share(distill)) == (0.9, 0.9)
    assert gpu_share(dataclasses.replace(distill, on_policy=True)) == 0.3
    assert gpu_share(dataclasses.replace(distill, on_policy=True, gpu_memory=0.5)) == 0.5


@pytest.mark.parametrize(("engine", "installed", "most"), [("auto", True, 256), ("auto", False, 64), ("transformers", True, 64)])
def test_as_many_sequences_as_the_engine_there_is_likes(engine: str, installed: bool, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(load.importlib.util, "find_spec", lambda name: SimpleNamespace() if installed else None)
    assert load.usual_batch_size(engine) == most
