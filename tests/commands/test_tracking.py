"""What a tracker is told of a run that goes on."""

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest

from r1cli.commands import tracking
from r1cli.commands.tracking import _of_attempt
from r1cli.io.run_dir import RunDir


def told(attempt: int, resumed: int | None) -> dict[str, dict[str, Any]]:
    return _of_attempt("sums", cast(RunDir, SimpleNamespace(attempt=attempt, resumed_step=resumed)))


@pytest.mark.parametrize(("resumed", "purge"), [(2, 3), (None, 1)])
def test_a_resumed_attempt_takes_back_what_it_makes_again(resumed: int | None, purge: int) -> None:
    assert told(2, resumed)["tensorboard"] == {"purge_step": purge}


def test_each_attempt_is_a_run_of_its_own_in_one_group() -> None:
    """trackio goes on with a run of the same name where it is told to resume, and shows its steps twice."""
    first, second = told(1, None), told(2, 2)
    assert "tensorboard" not in first and first["trackio"] == {"name": "sums", "group": "sums"}
    assert second["trackio"] == {"name": "sums (attempt 2)", "group": "sums"}
    assert first["wandb"] == second["wandb"] == {"name": "sums", "group": "sums"}


def test_a_held_out_figure_that_is_not_finite_is_said_and_left_out_and_no_other() -> None:
    said: list[str] = []
    record = {"step": 3, "loss": math.nan, "held_out_loss": math.inf, "held_out_accuracy": 0.5, "held_out/accuracy_before": None}
    found = tracking.finite(record, said.append)
    assert list(found) == ["step", "loss", "held_out_accuracy", "held_out/accuracy_before"]
    assert len(said) == 1 and said[0].startswith("step 3: held_out_loss inf, left out of the metrics")
    assert tracking.finite({"step": 3, "held_out_loss": 1.0}, said.append) == {"step": 3, "held_out_loss": 1.0} and len(said) == 1
