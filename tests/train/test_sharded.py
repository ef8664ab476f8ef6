"""FSDP2 in two processes on a CPU: what is cut, what stays float32, what a pass without gradients leaves behind, and the steps of one.

Run as a module it is one of the processes: python -m tests.train.test_sharded MODEL OUT DTYPE
"""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from r1cli.commands.launch import environment
from r1cli.train.batches import group_rows, micro_batches
from r1cli.train.checkpoints import named_weights
from r1cli.train.model import accelerator_for, load_policy
from r1cli.train.optimiser import OptimiserConfig, build_optimiser
from r1cli.train.strategy import prepare, shard
from r1cli.train.update import measure
from tests.train.runs import grpo_run
from tests.train.test_processes import pair_of
from tests.train.test_resume import untimed
from tests.train.toy import PAD, group_samples, largest_difference, weights

ROOT = Path(__file__).parents[2]
RUNS = ["uneven", "idle", "average"]


def in_two_processes(folder: Path, out: Path, dtype: str) -> list[dict[str, Any]]:
    """What each of two processes found (`work`)."""
    common = environment(1, str(ROOT / "examples/accelerate/fsdp2-cpu.yaml"))
    with pair_of("tests.train.test_sharded", str(folder), str(out), dtype, shared=common):
        pass
    return [torch.load(out / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def plain(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return in_two_processes(tiny, tmp_path_factory.mktemp("float32"), "float32")


@pytest.fixture(scope="module")
def rounded(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return in_two_processes(tiny, tmp_path_factory.mktemp("bfloat16"), "bfloat16")


@pytest.fixture(scope="module")
def alone(tiny: Path, accelerator: Any) -> dict[str, Any]:
    return every_run(accelerator, str(tiny))


def test_weights_are_cut_and_stay_float32(tiny: Path, rounded: list[dict[str, Any]]) -> None:
    plain = dict(load_policy(str(tiny)).model.named_parameters())
    for one in rounded:
        assert one["weights"].keys() == one["local"].keys() == plain.keys()
        assert all(torch.equal(one["weights"][name], plain[name]) for name in plain)  # bfloat16 would have rounded the embedding
    assert all(sum(one["local"][name] for one in rounded) == plain[name].numel() for name in plain)
    for model in ("policy", "reference"):
        for number, values in rounded[0][model].items():
            assert values.dtype == torch.float32 and torch.equal(values, rounded[1][model][number])
            assert not torch.equal(values, values.bfloat16().float()) or len(values) < 3  # not cast on the way out


@pytest.mark.parametrize("run", RUNS)
def test_two_processes_take_the_steps_of_one(alone: dict[str, Any], plain: list[dict[str, Any]], new_policy: Any, run: str) -> None:
    """A gradient travels once a step, with the last pass of each process, whichever of them has work left for it."""
    assert largest_difference(plain[0][run][0], plain[1][run][0]) == 0.0
    assert largest_difference(plain[0][run][0], alone[run][0]) < 2e-6
    assert largest_difference(alone[run][0], weights(new_policy())) > 1e-4
    for one, first, second in zip(alone[run][1], plain[0][run][1], plain[1][run][1], strict=True):
        assert untimed(first) == untimed(second) == pytest.approx(untimed(one), abs=2e-5, rel=1e-4)


def test_the_runs_are_what_they_are_for(alone: dict[str, Any]) -> None:
    [uneven] = alone["uneven"][1]
    assert uneven["grad_norm"] > 2 * CLIP
    assert any(record["signal_groups"] == 0.5 and record["updates"] == 1.0 for record in alone["idle"][1])  # one process has nothing
    kept = alone["average with a fixed reference"][1]
    moved = [abs(one["kl"] - other["kl"]) for one, other in zip(alone["average"][1], kept, strict=True)]
    assert moved[0] == 0.0 and min(moved[1:]) > 1e-4  # the reference follows the policy


def length(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    """2-norm of the difference of all weights."""
    return float(sum((some[name].double() - others[name].double()).square().sum() for name in others)) ** 0.5


@pytest.mark.parametrize("run", RUNS)
def test_training_in_bfloat16_stays_close(alone: dict[str, Any], rounded: list[dict[str, Any]], new_policy: Any, run: str) -> None:
    moved = largest_difference(alone[run][0], weights(new_policy()))
    assert largest_difference(rounded[0][run][0], rounded[1][run][0]) == 0.0
    assert largest_difference(rounded[0][run][0], alone[run][0]) < 0.2 * moved
    assert length(rounded[0][run][0], alone[run][0]) < 0.1 * length(alone[run][0], weights(new_policy()))
    assert all(values.dtype == torch.float32 for values in rounded[0][run][0].values())


CLIP = 0.5


def every_run(accelerator: Any, folder: str) -> dict[str, Any]:
    """(weights, metrics) of GRPO runs whose work does not come out even between two processes."""
    sgd = torch.optim.SGD
    clipped = OptimiserConfig(lr=1.0, max_grad_norm=CLIP)
    small = OptimiserConfig(lr=0.02, max_grad_norm=0.0)
    average: dict[str, Any] = {"beta": 0.5, "updates_per_rollout": 2, "steps": 6, "microbatch_tokens": 30}
    runs: dict[str, dict[str, Any]] = {
        # 3 prompts in 2 processes, so that one has more micro-batches than the other
        "uneven": {"optimiser": clipped, "microbatch_tokens": 30},
        # all completions of a prompt have the same reward: without a KL its process has nothing to train on
        "idle": {"optimiser": small, "beta": 0.0, "prompts_per_step": 2, "steps": 5, "microbatch_tokens": 30},
        "average": {"optimiser": small, "reference_every": 1, "reference_mix": 0.25, **average},
        "average with a fixed reference": {"optimiser": small, "reference_every": 0, **average},
    }
    found = {}
    for name, changes in runs.items():
        accelerator.free_memory()  # it looks for the model of a gradient among all that it has prepared
        found[name] = grpo_run(accelerator, folder, optimizer=sgd, **changes)
    return found


def work(folder: str, out: str, dtype: str) -> None:
    accelerator = accelerator_for(dtype)
    policy = load_policy(folder)
    policy, _ = prepare(accelerator, policy, build_optimiser(policy.parameters(), OptimiserConfig(lr=1.0)), 1.0)
    reference = shard(accelerator, load_policy(folder).requires_grad_(False).eval())
    batches = micro_batches(group_rows(group_samples(2, 3), 60), 200, PAD)
    found: dict[str, Any] = {name: measure(accelerator, model, batches) for name, model in (("policy", policy), ("reference", reference))}
    found["weights"] = {name: value.clone() for name, value in named_weights(accelerator, policy)}
    found["local"] = {name: value.to_local().numel() for name, value in policy.model.named_parameters()}
    torch.save({**found, **every_run(accelerator, folder)}, Path(out) / f"{accelerator.process_index}.pt")
    accelerator.end_training()


if __name__ == "__main__":
    work(*sys.argv[1:])
