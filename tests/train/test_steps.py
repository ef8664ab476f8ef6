"""The loop of supervised training: what is saved when, and how it ends early."""

import time
from typing import Any

import pytest

from r1cli.train.steps import train_steps


def run(stop_before: int | None = None, start: int = 0, total: int = 5, save_every: int = 0) -> tuple[int, list[int], list[int]]:
    """(steps done, steps logged, steps saved)"""
    logged: list[int] = []
    saved: list[int] = []

    def one(step: int) -> dict[str, Any]:
        return {"step": step + 1}

    def stopping(seconds: float) -> bool:
        assert seconds >= 0
        return stop_before is not None and start + len(logged) >= stop_before

    def log(record: dict[str, Any]) -> None:
        logged.append(record["step"])

    done = train_steps(one, start_step=start, total=total, save_every=save_every, log=log, save=saved.append, stopping=stopping)
    return done, logged, saved


@pytest.mark.parametrize(
    ("how", "done", "saved"),
    [
        ({}, 5, [5]),
        ({"save_every": 2}, 5, [2, 4, 5]),
        ({"save_every": 2, "start": 2}, 5, [4, 5]),
        ({"stop_before": 3}, 3, [3]),
        ({"stop_before": 2, "save_every": 2}, 2, [2]),  # not a second time
        ({"stop_before": 0}, 0, []),  # there is nothing to save
        ({"stop_before": 3, "start": 3}, 3, []),
        ({"start": 5}, 5, [5]),  # its checkpoint has all steps behind it, and there is no final model
        ({"start": 7}, 5, [5]),
    ],
)
def test_checkpoints(how: dict[str, int], done: int, saved: list[int]) -> None:
    found, logged, kept = run(**how)
    assert (found, kept) == (done, saved)
    assert logged == list(range(how.get("start", 0) + 1, done + 1))


def test_a_time_limit_leaves_time_for_the_longest_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second step takes 40 seconds, the others 10; for saves the one who is asked leaves time (`Stopper.saving`)."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    asked = []

    def passing(seconds: float) -> None:
        now[0] += seconds

    def one(step: int) -> dict[str, Any]:
        passing(40.0 if step == 1 else 10.0)
        return {}

    def stopping(seconds: float) -> bool:
        asked.append(seconds)
        return False

    train_steps(
        one,
        start_step=0,
        total=5,
        save_every=2,
        log=lambda record: None,
        save=lambda step: passing(100.0),
        stopping=stopping,
    )
    assert asked == [0.0, 10.0, 40.0, 40.0, 40.0]
