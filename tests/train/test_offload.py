"""What is moved away between its uses is there when it is used, and nothing changes. A machine without a GPU has no second device: rooms
of ordinary memory stand for the other place, and are filled with NaN while their tensors are meant to be on the device."""

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from r1cli.commands import training as module
from r1cli.commands.grpo_run import resumed
from r1cli.commands.lora_flags import PARTS as FLAG_PARTS
from r1cli.commands.training import Training
from r1cli.guard import Context
from r1cli.report.console import Console
from r1cli.settings import GrpoSettings
from r1cli.train import offload
from r1cli.train.batches import collate, group_rows, micro_batches
from r1cli.train.grpo import train_grpo, train_on
from r1cli.train.grpo_config import Prompts
from r1cli.train.model import frozen
from r1cli.train.offload import PARTS, OffloadedReference, OffloadedStates, page_locked, visiting
from r1cli.train.optimiser import OptimiserConfig, build_optimiser
from r1cli.train.reference import renew_reference
from r1cli.train.rollout import Hooks
from r1cli.train.update import forward, measure
from tests.train.runs import PROMPTS, toy_sample, toy_score
from tests.train.toy import PAD, group_samples, grpo_config, largest_difference, rollout_batch, weights


class Rooms:
    """Makes rooms and knows them."""

    def __init__(self) -> None:
        self.made: list[Tensor] = []

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        new = [torch.empty_like(tensor) for tensor in tensors]
        self.made += new
        return new

    def hold(self, tensor: Tensor) -> bool:
        return tensor.data_ptr() in {room.data_ptr() for room in self.made}

    def forget(self) -> None:
        """What is read from here now, instead of from the device, is wrong."""
        for room in self.made:
            room.fill_(float("nan"))


def moments(rule: torch.optim.Optimizer) -> list[Tensor]:
    return [state for states in rule.state.values() for state in states.values() if state.ndim]


def steps(policy: Any, rule: torch.optim.Optimizer, count: int = 3) -> None:
    for _ in range(count):
        rule.zero_grad()
        forward(policy, collate(group_rows(group_samples(groups=2, size=2)), PAD))[0].sum().backward()
        rule.step()


def test_states_are_away_between_steps_and_the_weights_are_the_same(new_policy: Callable[..., Any]) -> None:
    rooms = Rooms()
    inside: list[list[bool]] = []
    ends = []

    def in_a_step(rule: torch.optim.Optimizer, *_: Any) -> None:
        inside.append([rooms.hold(state) for state in moments(rule)])
        rooms.forget()

    for offloaded in (False, True):
        policy = new_policy()
        rule = build_optimiser(policy.parameters(), OptimiserConfig(lr=0.01))
        if offloaded:
            OffloadedStates(rule, rooms)
            rule.register_step_pre_hook(in_a_step)
        steps(policy, rule)
        assert all(rooms.hold(state) for state in moments(rule)) is offloaded
        ends.append(weights(policy))
    assert largest_difference(*ends) == 0.0
    many = len(moments(rule))
    assert inside == [[], [False] * many, [False] * many]  # the first step makes its states where it runs
    assert len(rooms.made) == many, "each is asked for once"


def test_states_that_were_loaded_go_away_before_the_next_step(new_policy: Callable[..., Any]) -> None:
    policy = new_policy()
    rule = build_optimiser(policy.parameters(), OptimiserConfig(lr=0.01))
    steps(policy, rule, 2)
    other = new_policy()
    other.load_state_dict(policy.state_dict())
    resumed = build_optimiser(other.parameters(), OptimiserConfig(lr=0.01))
    resumed.load_state_dict(copy.deepcopy(rule.state_dict()))
    rooms = Rooms()
    states = OffloadedStates(resumed, rooms)
    states.rest()
    assert all(rooms.hold(state) for state in moments(resumed))
    steps(policy, rule, 1)
    steps(other, resumed, 1)
    assert largest_difference(weights(policy), weights(other)) == 0.0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_reference_visits_for_its_measurements_only(accelerator: Any, new_policy: Callable[..., Any], dtype: str) -> None:
    """In bfloat16 it computes in a copy, which must go away with it."""
    rooms = Rooms()
    rows = micro_batches(group_rows(group_samples(groups=2, size=2)), 4096, PAD)
    reference = OffloadedReference(frozen(new_policy()), torch.device("cpu"), rooms)
    alone = frozen(new_policy())
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        expected = measure(accelerator, alone, rows)
        parts = [*reference.policy.parameters(), *reference.policy.buffers()]
        assert len(rooms.made) == len(parts) and all(map(rooms.hold, parts))
        with pytest.raises(ZeroDivisionError), visiting(reference):
            rooms.forget()
            found = measure(accelerator, reference, rows)
            assert not any(map(rooms.hold, parts)) and len(reference.policy.computing()) == (1 if dtype == "float32" else 2)
            raise ZeroDivisionError
    assert all(torch.equal(found[index], expected[index]) for index in expected)
    assert len(rooms.made) == len(parts) and all(map(rooms.hold, parts)) and reference.policy.computing() == [reference.model]
    assert not any(part.isnan().any() for part in parts)


def test_a_step_of_grpo_is_the_same_and_a_renewal_reaches_the_reference(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    config = grpo_config(steps=2, epochs_per_rollout=2, optimiser=OptimiserConfig(lr=0.01, max_grad_norm=0.0))
    ends, figures, renewed = [], [], []
    for offloaded in (False, True):
        policy, plain = new_policy(), frozen(new_policy())
        reference: Any = OffloadedReference(plain, torch.device("cpu"), Rooms()) if offloaded else plain
        rule = torch.optim.SGD(policy.parameters(), lr=1.0)
        figures.append(train_on(accelerator, policy, reference, rule, rollout_batch(group_samples(groups=3, size=4), config), config))
        ends.append(weights(policy))
        renew_reference(accelerator, reference, policy)
        renewed.append({name: value.float() for name, value in weights(plain).items()})
    assert figures[0] == figures[1] and figures[0]["kl"] > 0
    assert largest_difference(*ends) == 0.0
    assert largest_difference(*renewed) == 0.0 == largest_difference(renewed[0], ends[0])


def test_the_reference_of_a_sharded_run_comes_back(new_policy: Callable[..., Any]) -> None:
    """Its state has each tensor once, a tied head under its first name only; it may be elsewhere when it is loaded."""
    policy, plain = new_policy(), frozen(new_policy())
    assert len(policy.state_dict()) > len(list(policy.named_parameters())), "the head is tied"
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.5)
    rooms = Rooms()
    reference = OffloadedReference(plain, torch.device("cpu"), rooms)
    for state in (dict(policy.named_parameters()), policy.state_dict()):
        with torch.no_grad():
            for weight in plain.parameters():
                weight.zero_()
        reference.load_state_dict(state)
        assert all(map(rooms.hold, plain.parameters()))
        assert largest_difference(weights(policy), {name: value.float() for name, value in weights(plain).items()}) == 0.0


class Killed(Exception):
    """Nothing is saved after it."""


def training_of(tiny: Path, out: Path, *, killed_at: int = 0, offload: str | None = None, look: Any = None) -> dict[str, Tensor]:
    """The weights after a run of four steps with a checkpoint after each, which goes on from the newest there is; or after it was killed
    when a step was done and not saved. look: called with the run once it is loaded."""
    rate = OptimiserConfig(lr=1e-2)
    settings = GrpoSettings(inputs=[], model=str(tiny), out=str(out), steps=4, lr=1e-2, dtype="float32", resume=True, offload=offload)
    training = Training(settings, Context("grpo", {}, Console(quiet=2)), folder=str(tiny), total=4, reference=True)
    if look is not None:
        look(training)
    config = grpo_config(steps=4, save_every=1, reference_every=2, optimiser=rate)

    def log(record: dict[str, Any], *_: Any) -> None:
        if record["step"] == killed_at:
            raise Killed

    hooks = Hooks(toy_sample, toy_score, lambda: None, log, lambda at: training.save(at.step, 4, lambda folder: at.save(folder, 0, 1)))
    parts = training.policy, training.reference, training.optimizer
    with suppress(Killed):
        train_grpo(training.accelerator, *parts, config, prompts=Prompts([(0, PROMPTS)]), hooks=hooks, progress=resumed(training, config))
    assert training.run is not None
    training.run.close()
    return weights(training.policy)


def test_a_run_with_offload_that_was_killed_goes_on_to_the_same_weights(
    accelerator: Any, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it loads, moments and a reference that has followed the policy, is away from the device before the first step."""
    straight = training_of(tiny, tmp_path / "straight")
    states, of_reference, loaded = Rooms(), Rooms(), list[tuple[int, int]]()

    def look(training: Training) -> None:
        rule = training.optimizer.optimizer
        rule.register_step_pre_hook(lambda *_: states.forget())
        assert all(map(of_reference.hold, training.reference.policy.parameters()))  # type: ignore[union-attr]
        loaded.append((training.start_step, sum(map(states.hold, moments(rule)))))

    monkeypatch.setattr(module, "check_strategy", lambda *_: None)  # which refuses it on a CPU
    monkeypatch.setattr(module, "OffloadedStates", partial(OffloadedStates, rooms=states))
    monkeypatch.setattr(module, "OffloadedReference", partial(OffloadedReference, rooms=of_reference))
    offloaded: dict[str, Any] = {"offload": "optimizer,reference", "look": look}
    training_of(tiny, tmp_path / "killed", killed_at=3, **offloaded)
    went_on = training_of(tiny, tmp_path / "killed", **offloaded)
    assert loaded == [(0, 0), (2, 2 * len(straight))]
    assert largest_difference(straight, went_on) == 0.0


def test_rooms_are_views_of_memory_that_is_locked_once_a_type(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """No room is larger than its tensor: torch's own page-locked memory comes in powers of two."""
    locked: list[tuple[int, int, int]] = []
    kept: list[Tensor] = []
    monkeypatch.setattr(offload, "_LOCKED", kept)

    def register(place: int, size: int, flag: int) -> int:
        locked.append((place, size, flag))
        return 0 if len(locked) < 3 else 2

    monkeypatch.setattr(torch.cuda, "cudart", lambda: SimpleNamespace(cudaHostRegister=register))
    given = [torch.rand(3, 5), torch.rand(7).bfloat16(), torch.rand(0).half(), torch.rand(()), torch.rand(2, 2, 2)]
    rooms = page_locked(given)
    assert [(room.shape, room.dtype) for room in rooms] == [(tensor.shape, tensor.dtype) for tensor in given]
    assert [size for _, size, _ in locked] == [4 * (15 + 1 + 8), 2 * 7] and {flag for *_, flag in locked} == {1}
    for room, tensor in zip(rooms, given, strict=True):
        room.copy_(tensor)
    assert all(torch.equal(room, tensor) for room, tensor in zip(rooms, given, strict=True)), "none lies over another"
    begin = locked[0][0]
    assert [rooms[index].data_ptr() - begin for index in (0, 3, 4)] == [0, 60, 64]
    assert not caplog.text
    assert len(kept) == 2, "what is locked is not freed"
    page_locked(given)
    assert len(kept) == 2 and "cannot be page-locked (CUDA error 2)" in caplog.text
    assert PARTS == FLAG_PARTS


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_states_lie_in_pinned_memory(new_policy: Callable[..., Any]) -> None:
    weight = torch.nn.Parameter(torch.ones(8, 8, device="cuda"))
    rule = torch.optim.AdamW([weight], fused=True)
    OffloadedStates(rule)
    for _ in range(2):
        weight.grad = torch.ones_like(weight)
        rule.step()
    moment = rule.state[weight]["exp_avg"]
    assert moment.device.type == "cpu" and moment.is_pinned() and weight.is_cuda
