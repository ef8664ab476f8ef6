"""What a training run is started with."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DeepSpeedPlugin, DistributedType

from r1cli.errors import R1Error
from r1cli.train.model import accelerator_for
from r1cli.train.strategy import backward, prepare, take_step


def test_float16_is_refused_before_anything_is_loaded() -> None:
    """Its gradients would need a scaled loss; without it small ones are 0, and an overflow would end the run as a broken one."""
    with pytest.raises(R1Error, match="float16 is for sampling") as error:
        accelerator_for("float16")
    assert error.value.code == 2 and "--dtype bfloat16" in (error.value.hint or "")


def test_accelerates_accumulation_steps_do_not_make_the_gradient_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    accelerator = accelerator_for("float32")
    assert accelerator.gradient_accumulation_steps == 1
    weight = torch.nn.Parameter(torch.ones(()))
    backward(accelerator, 3.0 * weight, last=True)
    assert weight.grad is not None and weight.grad.item() == 3.0


@pytest.mark.parametrize("batch", [{}, {"train_batch_size": 8}])
def test_deepspeeds_accumulation_steps_are_one_in_a_users_own_configuration(tmp_path: Path, batch: dict[str, int]) -> None:
    file = tmp_path / "zero.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 2}, "gradient_accumulation_steps": 4, **batch}))
    plugin = DeepSpeedPlugin(hf_ds_config=str(file))
    accelerator: Any = SimpleNamespace(
        distributed_type=DistributedType.DEEPSPEED, state=SimpleNamespace(deepspeed_plugin=plugin), prepare=lambda *parts: parts
    )
    assert prepare(accelerator, "policy", "optimizer", 1.0) == ("policy", "optimizer")
    assert plugin.get_value("gradient_accumulation_steps") == 1
    plugin.fill_match("train_batch_size", train_batch_size=2)  # as accelerate does, with the number of processes
    assert plugin.get_value("train_batch_size") == 2


class Engine:
    """DeepSpeed's with ZeRO, which is not installed here: it steps whatever the gradient is, and tells -1 of one that is not finite."""

    def __init__(self, norm: float, optimizer: Any) -> None:
        self.norm, self.optimizer, self.steps = norm, optimizer, 0

    def step(self) -> None:
        self.steps += 1

    def get_global_grad_norm(self) -> float:
        return self.norm


def stepped(engine: Engine) -> float:
    return take_step(SimpleNamespace(deepspeed_engine_wrapped=SimpleNamespace(engine=engine)))


def test_deepspeed_does_not_step_with_a_gradient_that_is_not_finite() -> None:
    """Of two groups of weights one is broken: sqrt((-1)^2 + 2^2) looks like any norm."""
    engine = Engine(5**0.5, SimpleNamespace(overflow=False, has_overflow=lambda: True))
    assert math.isnan(stepped(engine)) and engine.steps == 0
    engine = Engine(2.0, SimpleNamespace(overflow=False, has_overflow=lambda: False))
    assert stepped(engine) == 2.0 and engine.steps == 1


@pytest.mark.parametrize(("norm", "overflow"), [(-1.0, False), (2.0, True)])
def test_a_norm_that_deepspeed_has_no_number_for_is_none(norm: float, overflow: bool) -> None:
    """Optimizers of DeepSpeed that cannot be asked before the step."""
    assert math.isnan(stepped(Engine(norm, SimpleNamespace(overflow=overflow))))
