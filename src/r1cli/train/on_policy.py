"""On-policy distillation, top to bottom: the student samples -> the teacher scores its tokens -> reverse KL -> update -> sync -> log.

The student learns on the prefixes it gets itself into, not on the teacher's. Each token is weighed by min(pi_student / pi_sampler, cap),
because the sampler's kernels are not the trainer's; every token of a step weighs the same (the loss is `distil_loss.py`). Completions cut
at the length limit count like others: each of their tokens was drawn from the student.

A step that is asked to end before its update is thrown away, and drawn again by the run that goes on: its completions follow from its
number and the student's weights.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from r1cli.errors import Exit, R1Error
from r1cli.row import Row
from r1cli.train.batches import PACK_LENGTH, MicroBatch, Sample, group_rows, micro_batches
from r1cli.train.clock import Pace
from r1cli.train.distil_loss import reverse_kl_loss
from r1cli.train.importance import importance_weights
from r1cli.train.optimiser import OptimiserConfig, learning_rate
from r1cli.train.order import step_rows
from r1cli.train.rollout import Interrupted
from r1cli.train.steps import Log, Save, Stopping, never, train_steps
from r1cli.train.update import TokenBudget, measure, update


@dataclass(frozen=True, kw_only=True)
class OnPolicyConfig:
    """The fields of `DistillSettings` that the loop needs, under the same names."""

    steps: int
    prompts_per_step: int
    microbatch_tokens: int
    seed: int
    pad_id: int
    optimiser: OptimiserConfig
    importance_cap: float = 2.0
    save_every: int = 0
    pack_length: int = PACK_LENGTH
    alone_beyond: int | None = None


@dataclass(slots=True)
class OnPolicyHooks:
    """What the loop needs from outside; for the last four see also `steps.train_steps`.

    sample:   (prompt rows of this process, step) -> samples with `prompt_ids`, `completion_ids` and `sampler_logprobs`; it may return
              early, with fewer, once the run is asked to end
    sync:     give the student's weights to the sampler
    log:      a metrics record after every step, the same on every process
    save:     (steps done) when a checkpoint is due
    warn:     (text) something the user must know
    stopping: (seconds that the next piece of work may take) -> whether to end now; the same answer on every process
    """

    sample: Callable[[list[Row], int], list[Sample]]
    sync: Callable[[], None]
    log: Log
    save: Save
    warn: Callable[[str], None] = lambda text: None
    stopping: Stopping = never


def train_on_policy(
    accelerator: Any,
    student: Any,
    teacher: Any,
    optimizer: torch.optim.Optimizer,
    config: OnPolicyConfig,
    *,
    prompts: Sequence[Row],
    hooks: OnPolicyHooks,
    start_step: int = 0,
) -> int:
    """Run the steps `start_step` .. `config.steps`, or until the run is asked to end; returns the steps done.

    `student` and `teacher` are `Policy` modules over the same tokens.
    """
    _check_processes(accelerator, config)
    accelerator.unwrap_model(student).without_dropout()
    if 0 < start_step < config.steps:
        hooks.sync()
    budget = TokenBudget(accelerator, config.microbatch_tokens, hooks.warn)
    known = teacher.model.get_input_embeddings().weight.shape[0]
    pace = Pace()
    done = saved = start_step

    def one(step: int) -> dict[str, Any]:
        nonlocal done
        done = step
        started = time.perf_counter()
        taken = step_rows(len(prompts), step, config.prompts_per_step, config.seed)
        samples = hooks.sample([prompts[i] for i in taken[accelerator.process_index :: accelerator.num_processes]], step)
        sampled = time.perf_counter()
        if hooks.stopping(pace.update):  # before anything is made of samples that may be too few
            raise Interrupted
        check_known(samples, known, f"step {step + 1}")
        figures = _learnt(accelerator, student, teacher, optimizer, config, samples, step, budget)
        hooks.sync()
        pace.updated(time.perf_counter() - sampled)
        seconds = time.perf_counter() - started
        clock = {"seconds/sample": sampled - started, "seconds": seconds, "tokens_per_second": figures["tokens"] / seconds}
        return {"step": step + 1, "steps": config.steps, **figures, **clock}

    def save(steps: int) -> None:
        nonlocal saved
        hooks.save(steps)
        saved = steps

    plan: dict[str, Any] = {"start_step": start_step, "total": config.steps, "save_every": config.save_every}
    try:
        return train_steps(one, **plan, log=hooks.log, save=save, stopping=hooks.stopping)
    except Interrupted:
        if done > saved:
            save(done)
        return done


def _check_processes(accelerator: Any, config: OnPolicyConfig) -> None:
    if config.prompts_per_step < accelerator.num_processes:
        raise R1Error(
            f"{accelerator.num_processes} processes cannot share {config.prompts_per_step} prompts a step",
            hint="raise --prompts-per-step, or start fewer processes",
            code=Exit.USAGE,
        )


def check_known(samples: Sequence[Sample], known: int, where: str) -> None:
    """Refuse (`R1Error`) a token that the teacher has no row for: `known` is how many it has.

    Models of one family share their tokens and are padded to different sizes (Qwen2.5: 151,936 rows and, from 7B on, 152,064), so a
    student can draw a number that is no token at all. On a GPU the look-up would end the process without a name.
    """
    for sample in samples:
        beyond = max(sample.completion_ids, default=0)
        if beyond >= known:
            raise R1Error(
                f"{where}: the student drew token {beyond}, and the teacher has only {known} rows",
                hint=f"cut the student's embedding to the teacher's first: model.resize_token_embeddings({known})",
                code=Exit.USAGE,
            )


def _learnt(
    accelerator: Any,
    student: Any,
    teacher: Any,
    optimizer: torch.optim.Optimizer,
    config: OnPolicyConfig,
    samples: list[Sample],
    step: int,
    budget: TokenBudget,
) -> dict[str, float]:
    """The update on these samples of this process and those of the others; what it measured."""
    teacher_logprobs = _measured(budget, accelerator, teacher, samples, config)
    own = [len(samples), sum(len(sample.completion_ids) for sample in samples)]
    count, tokens = accelerator.reduce(torch.tensor(own, device=accelerator.device), "sum").tolist()
    total = accelerator.reduce(torch.tensor(surplus(samples, teacher_logprobs), device=accelerator.device), "sum").item()
    objective = ReverseKl(teacher_logprobs, tokens, total / tokens, config.importance_cap)
    lr = learning_rate(step, config.steps, config.optimiser)
    figures = _updated(budget, accelerator, student, optimizer, samples, objective, config, lr, f"step {step + 1}")
    del figures["loss"]  # the surrogate's value means nothing
    return {**figures, "completion_length": tokens / count, "tokens": tokens}


def _cut(samples: Sequence[Sample], most: int, config: OnPolicyConfig) -> list[MicroBatch]:
    return micro_batches(group_rows(samples, min(config.pack_length, most)), most, config.pad_id, config.alone_beyond)


def _measured(budget: TokenBudget, accelerator: Any, teacher: Any, samples: list[Sample], config: OnPolicyConfig) -> dict[int, Tensor]:
    return budget.within(lambda most: measure(accelerator, teacher, _cut(samples, most, config)))


def _updated(
    budget: TokenBudget,
    accelerator: Any,
    student: Any,
    optimizer: torch.optim.Optimizer,
    samples: list[Sample],
    objective: "ReverseKl",
    config: OnPolicyConfig,
    lr: float,
    where: str,
) -> dict[str, float]:
    def attempt(most: int) -> dict[str, float]:
        batches = _cut(samples, most, config)
        return update(accelerator, student, optimizer, batches, objective, lr=lr, config=config.optimiser, where=where)

    return budget.within(attempt)


def surplus(samples: Sequence[Sample], teacher: dict[int, Tensor]) -> float:
    """By how much the sampler found its tokens likelier than the teacher does, in nats, summed over all tokens."""
    return sum(sum(sample.sampler_logprobs or ()) - float(teacher[sample.index].double().sum()) for sample in samples)


class ReverseKl:
    """The objective of a micro-batch: (batch, log-probabilities, entropies) -> (its part of the loss, figures to sum).

    teacher: the teacher's log-probabilities by sample index. tokens: completion tokens of the step, over all processes.
    baseline: the mean over them of log sampler - log teacher.
    """

    def __init__(self, teacher: dict[int, Tensor], tokens: int, baseline: float, importance_cap: float) -> None:
        self.teacher, self.tokens, self.baseline, self.importance_cap = teacher, tokens, baseline, importance_cap

    def __call__(self, batch: MicroBatch, student_logprobs_N: Tensor, entropies_N: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        device = student_logprobs_N.device
        teacher_logprobs_N = torch.cat([self.teacher[sample.index] for sample in batch.samples]).to(device)
        sampler_logprobs_N = torch.tensor([p for sample in batch.samples for p in sample.sampler_logprobs or ()], device=device)
        loss_N, kl_N = reverse_kl_loss(student_logprobs_N, teacher_logprobs_N, self.baseline)
        correction_N = importance_weights(
            student_logprobs_N, sampler_logprobs_N, batch.sequence_N.to(device), len(batch.samples), cap=self.importance_cap
        )
        figures = {
            "reverse_kl": (kl_N * correction_N).sum() / self.tokens,
            "entropy": entropies_N.detach().sum() / self.tokens,
            "importance_weight": correction_N.sum() / self.tokens,
        }
        return (loss_N * correction_N).sum() / self.tokens, figures
