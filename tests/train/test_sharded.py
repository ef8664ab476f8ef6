"""FSDP2 in bfloat16, two processes on a CPU: what is cut, what stays float32, and what a pass without gradients leaves behind.

Run as a module it is one of the processes: python -m tests.train.test_sharded MODEL OUT
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from r1cli.commands.launch import environment
from r1cli.train.checkpoints import named_weights
from r1cli.train.model import accelerator_for, load_policy
from r1cli.train.optimiser import OptimiserConfig, build_optimiser
from r1cli.train.strategy import prepare, shard
from r1cli.train.update import measure
from tests.train.toy import PAD, group_samples

ROOT = Path(__file__).parents[2]
LIMIT = 300  # seconds; only so that a hang ends


def test_weights_are_cut_and_stay_float32(tiny: Path, tmp_path: Path) -> None:
    common = environment(1, str(ROOT / "examples/accelerate/fsdp2-cpu.yaml"))
    command = [sys.executable, "-m", "tests.train.test_sharded", str(tiny), str(tmp_path)]
    processes = [
        subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True
        )
        for rank in ("0", "1")
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=LIMIT)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    plain = dict(load_policy(str(tiny)).model.named_parameters())
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for one in found:
        assert one["weights"].keys() == one["local"].keys() == plain.keys()
        assert all(torch.equal(one["weights"][name], plain[name]) for name in plain)  # bfloat16 would have rounded the embedding
    assert all(sum(one["local"][name] for one in found) == plain[name].numel() for name in plain)
    for model in ("policy", "reference"):
        for number, values in found[0][model].items():
            assert values.dtype == torch.float32 and torch.equal(values, found[1][model][number])
            assert not torch.equal(values, values.bfloat16().float()) or len(values) < 3  # not cast on the way out


def work(folder: str, out: str) -> None:
    accelerator = accelerator_for("bfloat16")
    policy = load_policy(folder)
    policy, _ = prepare(accelerator, policy, build_optimiser(policy.parameters(), OptimiserConfig(lr=1.0)), 1.0)
    reference = shard(accelerator, load_policy(folder).requires_grad_(False).eval())
    from r1cli.train.batches import group_rows, micro_batches

    batches = micro_batches(group_rows(group_samples(2, 3), 60), 200, PAD)
    found: dict[str, Any] = {name: measure(accelerator, model, batches) for name, model in (("policy", policy), ("reference", reference))}
    found["weights"] = {name: value.clone() for name, value in named_weights(accelerator, policy)}
    found["local"] = {name: value.to_local().numel() for name, value in policy.model.named_parameters()}
    torch.save(found, Path(out) / f"{accelerator.process_index}.pt")
    accelerator.end_training()


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2])
