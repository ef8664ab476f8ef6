"""Small training runs with toy hooks, shared by the tests of processes, of resuming and of learning.

Run as a module it is one process of a distributed run (`test_processes.py` starts two): python -m tests.train.runs MODEL OUT
"""

import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accelerate.utils import broadcast_object_list

from r1cli.commands.stopping import Stopper
from r1cli.row import Row
from r1cli.train import strategy
from r1cli.train.alarms import Memory, look
from r1cli.train.checkpoints import load_state, save_state
from r1cli.train.grpo import train_grpo
from r1cli.train.grpo_config import Prompts
from r1cli.train.lora import LoraConfig, LoraReference
from r1cli.train.model import frozen, load_policy
from r1cli.train.optimiser import OptimiserConfig, build_optimiser
from r1cli.train.preference import Example
from r1cli.train.progress import Progress, Rollout
from r1cli.train.reward_model import load_reward_model
from r1cli.train.rm import RmConfig, train_rm
from r1cli.train.rollout import Draw, Hooks
from r1cli.train.sft import SftConfig, SftHooks, train_sft
from r1cli.train.strategy import prepare, shard, whole
from r1cli.train.update import NotFinite
from tests.train.toy import PAD, grpo_config, tokens

PROMPTS = [Row({"id": f"p{i}", "prompt": f"prompt {i}"}) for i in range(5)]


def toy_sample(rows: list[Row], draw: Draw) -> list[Rollout]:
    """Four made-up completions a prompt: a function of the prompt and the step, not of the process."""
    rollouts = []
    for row in rows:
        rng = random.Random(f"{row['id']}/{draw.step}" + "/again" * draw.refill)
        prompt = tokens(rng, 3, 9)
        for number in range(4):
            completion = tokens(rng, 1, 12)
            finish = rng.choice(["stop", "stop", "length"])
            made = row.with_fields(sample=number, completion=str(completion), finish_reason=finish)
            rollouts.append(Rollout(made, prompt, completion, [rng.uniform(-9.0, -4.0) for _ in completion]))
    return rollouts


def toy_score(rows: list[Row], step: int) -> list[Row]:
    """Reward 1 when the first token is even; the whole group of prompt p1 gets the same."""
    scores = [0.5 if row["id"] == "p1" else 1.0 - int(row["completion"].strip("[]").split(",")[0]) % 2 for row in rows]
    return [row.with_fields(rewards={"even": score}, reward=score) for row, score in zip(rows, scores, strict=True)]


def grpo_run(
    accelerator: Any,
    folder: str,
    *,
    optimizer: type[torch.optim.Optimizer] | None = None,
    resume: Path | None = None,
    checkpoint: Path | None = None,
    checkpoint_at: int | None = 0,
    stopping: Callable[[float], bool] = lambda seconds: False,
    more: dict[str, Any] | None = None,
    lora: LoraConfig | None = None,
    kept: list[Any] | None = None,
    **changes: Any,
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """(weights, metrics) after a run; `checkpoint` keeps its state after `checkpoint_at` steps (None: at every save).

    resume: start from such a state. more: hooks instead of the toy ones. lora: train an adapter; the reference is the model without it.
    kept: gets the policy, as it is after the run.
    """
    config = grpo_config(**changes)
    policy = load_policy(folder, lora=lora)
    reference = LoraReference(policy) if lora else shard(accelerator, frozen(load_policy(folder)))
    rule = optimizer(policy.parameters(), lr=1.0) if optimizer else build_optimiser(policy.parameters(), config.optimiser)
    progress = None
    place = (accelerator.process_index, accelerator.num_processes)
    if resume is not None:
        policy.load_state_dict(torch.load(resume / "weights.pt"))
        load_state(rule, resume, reference)
        progress = Progress.load(resume, *place)
    policy, rule = prepare(accelerator, policy, rule, 0.0)
    if kept is not None:
        kept.append(policy)
    records: list[dict[str, Any]] = []

    def save(progress: Progress) -> None:
        if checkpoint is not None and checkpoint_at in (progress.step, None):
            if accelerator.is_main_process:
                torch.save(accelerator.unwrap_model(policy).state_dict(), checkpoint / "weights.pt")
            save_state(accelerator, rule, checkpoint, progress.step, reference)
            progress.save(checkpoint, *place)

    def log(record: dict[str, Any], rows: list[Row], memory: Memory) -> None:
        look(record, memory, 2)
        records.append(record)

    own = {"sample": toy_sample, "score": toy_score, "sync": lambda: None, "log": log, "save": save, "stopping": stopping}
    hooks = Hooks(**{**own, **(more or {})})
    train_grpo(accelerator, policy, reference, rule, config, prompts=Prompts([(0, PROMPTS)]), hooks=hooks, progress=progress)
    return {name: whole(value.detach()).clone() for name, value in accelerator.unwrap_model(policy).named_parameters()}, records


def sft_run(
    accelerator: Any,
    folder: str,
    *,
    optimizer: type[torch.optim.Optimizer] | None = None,
    resume: Path | None = None,
    checkpoint: Path | None = None,
    checkpoint_at: int = 0,
    spoil: Callable[[torch.Tensor], None] | None = None,
    broken: bool = False,
    said: list[str] | None = None,
    held_out: int = 0,
    **changes: Any,
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """The same for SFT, on rows of one or two samples.

    spoil: called with the token ids of every forward pass of the last process. broken: that process's log-probabilities are no numbers.
    said: gets the warnings. held_out: samples that are measured only.
    """
    values: dict[str, Any] = {"epochs": 1.0, "batch_rows": 5, "microbatch_tokens": 40, "seed": 3, "pad_id": PAD, "pack_length": 60}
    values["optimiser"] = OptimiserConfig(lr=1e-2, lr_schedule="cosine", warmup_steps=1)
    config = SftConfig(**{**values, **changes})
    made = [rollout for step in range(2) for rollout in toy_sample(PROMPTS[:2], Draw(step, 0, 16))]
    samples = [rollout_sample(rollout, index) for index, rollout in enumerate(made)]
    rows = [samples[0:2], *[[sample] for sample in samples[2:]]]
    others = [rollout_sample(rollout, 0) for rollout in toy_sample(PROMPTS[2:4], Draw(2, 0, 16))]
    policy = load_policy(folder)
    rule = optimizer(policy.parameters(), lr=1.0) if optimizer else build_optimiser(policy.parameters(), config.optimiser)
    start = 0
    if resume is not None:
        policy.load_state_dict(torch.load(resume / "weights.pt"))
        start = load_state(rule, resume)
    policy, rule = prepare(accelerator, policy, rule, 0.0)
    last = accelerator.process_index == accelerator.num_processes - 1
    if spoil is not None and last:
        policy.register_forward_pre_hook(lambda module, given: spoil(given[0]))
    if broken and last:
        policy.register_forward_hook(lambda module, given, found: (found[0] * float("nan"), found[1]))
    records: list[dict[str, Any]] = []

    def save(done: int) -> None:
        if done == checkpoint_at and checkpoint is not None:
            torch.save(accelerator.unwrap_model(policy).state_dict(), checkpoint / "weights.pt")
            save_state(accelerator, rule, checkpoint, done)

    hooks = SftHooks(records.append, save, warn=(said if said is not None else []).append)
    train_sft(accelerator, policy, rule, config, rows=rows, hooks=hooks, held_out=others[:held_out], start_step=start)
    return {name: value.detach().clone() for name, value in accelerator.unwrap_model(policy).named_parameters()}, records


def rm_run(
    accelerator: Any, folder: str, *, optimizer: type[torch.optim.Optimizer], pairs: bool, **changes: Any
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """The same for a reward model; the weights without its head, which a policy has not."""
    values: dict[str, Any] = {"epochs": 1.0, "batch_rows": 7, "microbatch_tokens": 60, "seed": 3, "pad_id": PAD, "center": 0.05 * pairs}
    config = RmConfig(**{**values, "held_out_every": 1, **changes})
    rng = random.Random(11)
    sides = [[tokens(rng, 4, 15) for _ in range(1 + pairs)] for _ in range(9)]
    examples = [Example(tuple(side), 0.2 * number if pairs else float(number % 2)) for number, side in enumerate(sides)]
    model = load_reward_model(folder, pad_id=PAD, seed=4)
    model, rule = prepare(accelerator, model, optimizer(model.parameters(), lr=1.0), 0.0)
    records: list[dict[str, Any]] = []
    train_rm(accelerator, model, rule, config, examples=examples[:7], held_out=examples[7:], log=records.append, save=lambda step: None)
    own = accelerator.unwrap_model(model).named_parameters()
    return {name: value.detach().clone() for name, value in own if "score" not in name}, records


def rollout_sample(rollout: Rollout, index: int) -> Any:
    from r1cli.train.batches import Sample

    return Sample(index, rollout.prompt_ids, rollout.completion_ids)


def one_asks(accelerator: Any, at: int = 10) -> Callable[[float], bool]:
    """The last process, and only that one, is told to end at its `at`th look; the tenth is in the middle of the third step."""
    stopper = Stopper()
    looks: list[float] = []

    def stopping(seconds: float) -> bool:
        looks.append(seconds)
        if len(looks) == at and accelerator.process_index == accelerator.num_processes - 1:
            stopper.reason = "terminate"
        return stopper.agreed(accelerator, 0.0)

    return stopping


def cut_in_a_rollout(accelerator: Any, folder: str, **changes: Any) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], int]:
    """(weights, metrics, updates made of the rollout it was cut in) of a run that one process ends in a rollout, and that goes on."""
    [place] = broadcast_object_list([tempfile.mkdtemp()])
    stopping = one_asks(accelerator, at=12)  # before the second update on the second rollout
    _, before = grpo_run(accelerator, folder, stopping=stopping, checkpoint=Path(place), checkpoint_at=None, **changes)
    accelerator.wait_for_everyone()
    progress = Progress.load(Path(place), accelerator.process_index, accelerator.num_processes)
    done = progress.batch.done if progress and progress.batch else 0
    weights, after = grpo_run(accelerator, folder, resume=Path(place), **changes)
    return weights, [*before, *after], done


def full_once() -> Callable[[torch.Tensor], None]:
    """No memory for the first pass."""
    passes: list[int] = []

    def spoil(ids: torch.Tensor) -> None:
        passes.append(ids.numel())
        if len(passes) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.30 GiB")

    return spoil


def broken(accelerator: Any, folder: str) -> str:
    """What every process says when a pass of the last one gives no number."""

    try:
        sft_run(accelerator, folder, broken=True)
    except NotFinite as error:
        return error.message
    return "nothing"


def every_run(accelerator: Any, folder: str) -> dict[str, Any]:
    """What two processes and one must agree on: the objectives and SFT, one step of plain gradient descent or a few, uneven shares."""
    sgd = torch.optim.SGD
    rate = OptimiserConfig(lr=1.0, max_grad_norm=0.0)
    small = OptimiserConfig(lr=0.02, max_grad_norm=0.0)
    gentle = OptimiserConfig(lr=0.05, max_grad_norm=0.0)  # a step of one row has a steep gradient; at lr 1 it magnifies rounding
    found: dict[str, Any] = {}
    for loss in ("grpo", "dr_grpo", "dapo"):
        found[loss] = grpo_run(accelerator, folder, optimizer=sgd, loss=loss, microbatch_tokens=30, optimiser=rate)
    halves: dict[str, Any] = {"updates_per_rollout": 2, "epochs_per_rollout": 2, "steps": 4, "prompts_per_step": 2}
    halves["importance"] = "sequence"
    with patch.object(strategy, "BIG", 1000):  # the matrices of the tiny model travel by themselves, as large ones do
        found["several updates"] = grpo_run(accelerator, folder, optimizer=sgd, optimiser=small, **halves)
    for loss in ("gspo", "cispo"):
        found[loss] = grpo_run(accelerator, folder, optimizer=sgd, loss=loss, microbatch_tokens=30, optimiser=small, **halves)
    each: dict[str, Any] = {"pack_length": 0, "microbatch_tokens": 1}  # a micro-batch a completion: bnpo's sum depends on how a step is cut
    found["bnpo"] = grpo_run(accelerator, folder, optimizer=sgd, loss="bnpo", optimiser=rate, **each)
    twice = {**halves, "steps": 8, "optimizer": sgd, "optimiser": small}
    found["straight"] = grpo_run(accelerator, folder, **twice)
    *found["goes on"], found["cut after"] = cut_in_a_rollout(accelerator, folder, **twice)
    bonus: dict[str, Any] = {"entropy_coef": 0.5, "kl_correction": True, "kl": "k1", "clip_cap": 3.0}
    found["bonus"] = grpo_run(accelerator, folder, optimizer=sgd, optimiser=rate, **bonus)
    found["dynamic"] = grpo_run(accelerator, folder, optimizer=sgd, optimiser=rate, dynamic_sampling="even", prompts_per_step=4)
    found["asked to end"] = grpo_run(accelerator, folder, optimizer=sgd, optimiser=small, steps=6, stopping=one_asks(accelerator))
    found["batch"] = grpo_run(accelerator, folder, optimizer=sgd, advantage="batch", optimiser=rate)
    found["sft"] = sft_run(accelerator, folder, optimizer=sgd, epochs=0.5, batch_rows=7, optimiser=gentle)  # 7 rows, and one
    for name, number in (("held out", 5), ("one held out", 1)):
        measured: dict[str, Any] = {"held_out": number, "held_out_every": 1}
        found[name] = sft_run(accelerator, folder, optimizer=sgd, batch_rows=4, optimiser=small, **measured)
    said: list[str] = []
    found["runs out"] = sft_run(
        accelerator, folder, optimizer=sgd, epochs=0.5, batch_rows=7, optimiser=gentle, spoil=full_once(), said=said, microbatch_tokens=200
    )
    found["said"] = said
    found["broken"] = broken(accelerator, folder)
    found["one row"] = sft_run(accelerator, folder, optimizer=sgd, epochs=0.1, batch_rows=1, optimiser=gentle)
    found["pairs"] = rm_run(accelerator, folder, optimizer=sgd, pairs=True, optimiser=small)
    found["labels"] = rm_run(accelerator, folder, optimizer=sgd, pairs=False, optimiser=small)
    found["one pair"] = rm_run(accelerator, folder, optimizer=sgd, pairs=True, batch_rows=1, epochs=0.1, optimiser=small)
    return found


if __name__ == "__main__":
    from accelerate import Accelerator

    distributed = Accelerator(cpu=True, mixed_precision="no")
    assert distributed.num_processes == 2
    results = every_run(distributed, sys.argv[1])
    torch.save(results, Path(sys.argv[2]) / f"{distributed.process_index}.pt")
    distributed.end_training()
