"""Two real processes (gloo) take the steps of one, where a process has more than a policy: a rollout that is drawn ahead, an adapter.

Run as a module it is one of the processes: python -m tests.train.test_pairs MODEL OUT
"""

import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from r1cli.row import Row
from r1cli.train.lora import LoraConfig
from r1cli.train.optimiser import OptimiserConfig
from r1cli.train.progress import Rollout
from r1cli.train.rollout import Draw
from tests.train.runs import cut_in_a_rollout, grpo_run, one_asks, toy_sample
from tests.train.test_processes import pair_of
from tests.train.test_resume import same_figures, untimed
from tests.train.toy import largest_difference, weights

AHEAD = ["no lag", "lag", "lag, several updates", "lag, asked to end"]
ADAPTED = ["adapter", "adapter, renewed reference"]


@pytest.fixture(scope="module")
def both(tiny: Path, accelerator: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(what one process found, what each of two processes found)."""
    pytest.importorskip("peft")
    out = tmp_path_factory.mktemp("pairs")
    with pair_of("tests.train.test_pairs", str(tiny), str(out)):
        alone = every_run(accelerator, str(tiny))
    return alone, [torch.load(out / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("run", [*AHEAD, *ADAPTED])
def test_two_processes_take_the_steps_of_one(both: Any, new_policy: Any, run: str) -> None:
    alone, (first, second) = both
    assert largest_difference(first[run][0], second[run][0]) == 0.0
    assert largest_difference(first[run][0], alone[run][0]) < 2e-6
    for one, *others in zip(alone[run][1], first[run][1], second[run][1], strict=True):
        for other in others:
            assert untimed(other) == pytest.approx(untimed(one), abs=2e-5, rel=1e-4)


@pytest.mark.parametrize("run", AHEAD)
def test_every_process_draws_ahead_with_the_weights_of_before_the_update(both: Any, new_policy: Any, run: str) -> None:
    alone, pair = both
    assert largest_difference(alone[run][0], weights(new_policy())) > 1e-4
    for found in (alone, *pair):
        drawn = found[f"{run}: drawn"]
        lag = int(run != "no lag")
        assert [(version, ahead) for _, version, ahead in drawn] == [(max(0, n - lag), n > 0 and lag == 1) for n in range(len(drawn))]
        assert len(drawn) > 2
    assert not same_figures(alone["no lag"][1], alone["lag"][1])


def test_a_run_with_lag_that_is_cut_in_a_rollout_goes_on_as_if_it_had_not(both: Any) -> None:
    """What one process had drawn ahead by then and the other had not is drawn again."""
    for found in (both[0], *both[1]):
        assert found["cut after"] == 1
        assert largest_difference(found["lag, goes on"][0], found["lag, straight"][0]) == 0.0
        assert same_figures(found["lag, goes on"][1], found["lag, straight"][1])


@pytest.mark.parametrize("run", ADAPTED)
def test_the_divergence_from_the_model_without_its_adapter_is_that_of_all(both: Any, run: str) -> None:
    alone, pair = both
    for found in (alone, *pair):
        divergences = [record["kl"] for record in found[run][1]]
        assert divergences[0] == 0.0 and max(divergences) > 1e-4  # B starts at 0
        assert divergences == pytest.approx([record["kl"] for record in alone[run][1]], rel=1e-3, abs=1e-6)
    frozen = {name: value for name, value in alone[run][0].items() if ".lora_" not in name}
    assert all(torch.equal(found[run][0][name], value) for found in pair for name, value in frozen.items())


def test_a_renewed_reference_is_another_one(both: Any) -> None:
    fixed, renewed = ([record["kl"] for record in both[0][run][1]] for run in ADAPTED)
    assert fixed[:2] == pytest.approx(renewed[:2], rel=1e-3, abs=1e-6) and abs(fixed[2] - renewed[2]) > 1e-4


class Versions:
    """A sampler whose completions tell which weights it had: how often they were handed over. The last process is the slow one."""

    def __init__(self, accelerator: Any) -> None:
        several = accelerator.num_processes > 1
        self.slow = several and accelerator.process_index == accelerator.num_processes - 1
        self.busy = threading.Lock()
        self.version = 0
        self.drawn: list[tuple[int, int, bool]] = []  # (step, version, in another thread?)

    def sample(self, rows: list[Row], draw: Draw) -> list[Rollout]:
        with self.busy:
            ahead = threading.current_thread() is not threading.main_thread()
            self.drawn.append((draw.step, self.version, ahead))
            if self.slow and ahead:
                time.sleep(0.2)
            return toy_sample(rows, Draw(100 * draw.step + self.version, draw.refill, draw.limit))

    def sync(self) -> None:
        assert self.busy.acquire(blocking=False), "weights were handed over while the sampler was at work"
        self.version += 1
        self.busy.release()


def every_run(accelerator: Any, folder: str) -> dict[str, Any]:
    sgd = torch.optim.SGD
    small = OptimiserConfig(lr=0.02, max_grad_norm=0.0)
    plain: dict[str, Any] = {"optimizer": sgd, "optimiser": small, "steps": 4, "microbatch_tokens": 30}
    halves: dict[str, Any] = {**plain, "steps": 8, "updates_per_rollout": 2, "epochs_per_rollout": 2, "importance": "sequence"}
    ways: dict[str, dict[str, Any]] = {
        "no lag": plain,
        "lag": {**plain, "rollout_lag": 1},
        "lag, several updates": {**halves, "prompts_per_step": 2, "steps": 12, "rollout_lag": 1},
        "lag, asked to end": {**plain, "steps": 6, "rollout_lag": 1, "stopping": one_asks(accelerator)},
    }
    found: dict[str, Any] = {}
    for name, way in ways.items():
        sampler = Versions(accelerator)
        found[name] = grpo_run(accelerator, folder, more={"sample": sampler.sample, "sync": sampler.sync}, **way)
        found[f"{name}: drawn"] = sampler.drawn
    twice = {**halves, "prompts_per_step": 2, "rollout_lag": 1}
    found["lag, straight"] = grpo_run(accelerator, folder, **twice)
    *found["lag, goes on"], found["cut after"] = cut_in_a_rollout(accelerator, folder, **twice)
    adapter: dict[str, Any] = {
        **plain,
        "optimiser": OptimiserConfig(lr=0.2, max_grad_norm=0.0),
        "beta": 0.5,
        "lora": LoraConfig(rank=4, alpha=8.0),
    }
    found["adapter"] = grpo_run(accelerator, folder, **adapter)
    found["adapter, renewed reference"] = grpo_run(accelerator, folder, reference_every=2, **adapter)
    return found


if __name__ == "__main__":
    from accelerate import Accelerator

    distributed = Accelerator(cpu=True, mixed_precision="no")
    assert distributed.num_processes == 2
    torch.save(every_run(distributed, sys.argv[1]), Path(sys.argv[2]) / f"{distributed.process_index}.pt")
    distributed.end_training()
