"""`rollout_lag`: the next rollout is drawn during the update, with the weights of before it, and never while weights are handed over."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from r1cli.row import Row
from r1cli.train.grpo import train_grpo
from r1cli.train.grpo_config import Prompts
from r1cli.train.optimiser import OptimiserConfig, build_optimiser
from r1cli.train.overlap import Overlap
from r1cli.train.progress import Progress, Rollout
from r1cli.train.rollout import Draw, Hooks
from tests.train.runs import PROMPTS, toy_sample, toy_score
from tests.train.toy import grpo_config

RATE = OptimiserConfig(lr=1e-2)


class Engine:
    """A sampler with its own weights: a number that says after how many updates they were handed over."""

    def __init__(self, policy: Any) -> None:
        self.policy, self.busy, self.weights = policy, threading.Lock(), 0
        self.drawn: list[tuple[int, int, bool]] = []  # (step of the rollout, weights it was drawn with, in the main thread?)
        self.syncs = 0

    def sample(self, rows: list[Row], draw: Draw) -> list[Rollout]:
        with self.busy:
            self.drawn.append((draw.step, self.weights, threading.current_thread() is threading.main_thread()))
            return toy_sample(rows, draw)

    def sync(self) -> None:
        assert self.busy.acquire(blocking=False), "weights were handed over while the sampler was at work"
        self.syncs += 1
        self.weights = self.syncs
        self.busy.release()


def run(accelerator: Any, policy: Any, lag: int, **more: Any) -> tuple[Engine, list[dict[str, Any]], Progress]:
    engine, records = Engine(policy), []
    config = grpo_config(steps=4, rollout_lag=lag, beta=0.0, optimiser=RATE)
    hooks = Hooks(engine.sample, toy_score, engine.sync, lambda record, *_: records.append(record), lambda progress: None, **more)
    rule = build_optimiser(policy.parameters(), RATE)
    progress = train_grpo(accelerator, policy, None, rule, config, prompts=Prompts([(0, PROMPTS)]), hooks=hooks)
    return engine, records, progress


def test_without_lag_every_rollout_has_the_newest_weights(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    engine, _, _ = run(accelerator, new_policy(), 0)
    assert engine.drawn == [(0, 0, True), (1, 1, True), (2, 2, True), (3, 3, True)]


def test_with_lag_a_rollout_has_the_weights_of_before_the_update(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    engine, records, progress = run(accelerator, new_policy(), 1)
    assert engine.drawn == [(0, 0, True), (1, 0, False), (2, 1, False), (3, 2, False)]
    assert [record["step"] for record in records] == [1, 2, 3, 4] and progress.taken == {0: 12} and progress.ahead is None


def test_both_train_on_the_same_prompts(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    straight, lagging = (run(accelerator, new_policy(), lag)[1] for lag in (0, 1))
    assert [record["reward"] for record in straight] == [record["reward"] for record in lagging]


def test_the_other_thread_uses_the_gpu_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread begins with GPU 0; the device of a process that no launcher started has no number."""
    chosen: list[tuple[int, bool]] = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda number: chosen.append((number, threading.current_thread() is threading.main_thread()))
    )
    with Overlap(
        grpo_config(steps=4, rollout_lag=1), Hooks(toy_sample, toy_score, lambda: None, lambda *_: None, lambda progress: None), Progress()
    ) as overlap:
        overlap.begin(SimpleNamespace(device=torch.device("cuda"), num_processes=1, process_index=0), Prompts([(0, PROMPTS)]), 1)
    assert chosen == [(3, False)]


def test_an_error_in_the_other_thread_ends_the_run(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    def sample(rows: list[Row], draw: Draw) -> list[Rollout]:
        if draw.step == 2:
            raise OSError("the server went away")
        return toy_sample(rows, draw)

    hooks = Hooks(sample, toy_score, lambda: None, lambda *_: None, lambda progress: None)
    policy = new_policy()
    config = grpo_config(steps=4, rollout_lag=1, beta=0.0, optimiser=RATE)
    with pytest.raises(OSError, match="the server went away"):
        train_grpo(
            accelerator, policy, None, build_optimiser(policy.parameters(), RATE), config, prompts=Prompts([(0, PROMPTS)]), hooks=hooks
        )
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rollout ahead")]


def test_an_error_in_the_update_ends_the_other_thread(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    ended = threading.Event()

    def sample(rows: list[Row], draw: Draw) -> list[Rollout]:
        if draw.step == 1:
            assert ended.wait(timeout=60)
        return toy_sample(rows, draw)

    class Broken(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            raise ArithmeticError("broken")

    policy = new_policy()
    hooks = Hooks(sample, toy_score, lambda: None, lambda *_: None, lambda progress: None, abandon=ended.set)
    config = grpo_config(steps=4, rollout_lag=1, beta=0.0, optimiser=RATE)
    with pytest.raises(ArithmeticError):
        train_grpo(accelerator, policy, None, Broken(policy.parameters(), lr=1.0), config, prompts=Prompts([(0, PROMPTS)]), hooks=hooks)
    assert ended.is_set()


@pytest.mark.parametrize("lag", [0, 1])
def test_a_rollout_has_the_limit_of_its_own_first_step(accelerator: Any, new_policy: Callable[..., Any], lag: int) -> None:
    """Drawn ahead or not: not that of the step at which it is drawn."""
    limits: list[tuple[int, int]] = []

    def sample(rows: list[Row], draw: Draw) -> list[Rollout]:
        limits.append((draw.step, draw.limit))
        return toy_sample(rows, draw)

    policy = new_policy()
    hooks = Hooks(sample, toy_score, lambda: None, lambda *_: None, lambda progress: None)
    config = grpo_config(steps=4, rollout_lag=lag, beta=0.0, optimiser=RATE, max_completion_length=((0, 16), (2, 20)))
    train_grpo(accelerator, policy, None, build_optimiser(policy.parameters(), RATE), config, prompts=Prompts([(0, PROMPTS)]), hooks=hooks)
    assert limits == [(0, 16), (1, 16), (2, 20), (3, 20)]
