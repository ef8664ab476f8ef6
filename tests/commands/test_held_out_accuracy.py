"""Rule accuracy on held-out problems: with the length limit in force, whole or not at all."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from r1cli.commands.held_out_accuracy import HeldOutAccuracy
from r1cli.engines.protocol import SamplingParams
from r1cli.row import Row
from r1cli.settings import GrpoSettings
from r1cli.shared_settings import Changing
from r1cli.train.rollout import Interrupted

PROBLEMS = [Row({"id": number, "prompt": f"{number} + 1?", "answer": str(number + 1)}) for number in range(4)]
ALONE = SimpleNamespace(process_index=0, num_processes=1)


@dataclass
class Sampler:
    """Answers "2" to every problem, which is right for one of the four."""

    params: SamplingParams = field(default_factory=lambda: SamplingParams(max_tokens=5))

    def draw(self, rows: list[Row], **_: Any) -> Iterator[Any]:
        for row in rows:
            yield SimpleNamespace(row=row.with_fields(completion="\\boxed{2}", finish_reason="stop", num_tokens=3))


def accuracy(stopping: bool = False) -> tuple[HeldOutAccuracy, Sampler]:
    settings = GrpoSettings(
        inputs=[], model="m", out="o", rewards="accuracy,format", max_completion_length=Changing("8,16@4"), reward_workers=1
    )
    sampler = Sampler()
    return HeldOutAccuracy(settings, PROBLEMS, sampler, ALONE, lambda: stopping), sampler  # type: ignore[arg-type]


def test_it_is_drawn_with_the_limit_of_the_step_whatever_was_drawn_before() -> None:
    held_out, sampler = accuracy()
    assert held_out.measured(4) == {"held_out/accuracy": 0.25, "held_out/problems": 4.0} and sampler.params.max_tokens == 16
    assert held_out.measured(3) and sampler.params.max_tokens == 8


def test_a_run_that_is_asked_to_end_measures_nothing() -> None:
    with pytest.raises(Interrupted):
        accuracy(stopping=True)[0].measured(0)
