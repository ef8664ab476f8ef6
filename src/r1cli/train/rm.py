"""Training a reward model: Bradley-Terry on pairs, binary cross-entropy on labelled completions; the mean over a step's examples.

Every example of a step weighs the same, whichever micro-batch or process it is in (global normalisation).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from r1cli.train.optimiser import OptimiserConfig, learning_rate
from r1cli.train.order import rows_a_step, step_rows, steps_of
from r1cli.train.preference import Example, example_batches, loss_of
from r1cli.train.steps import Log, Save, Stopping, never, train_steps
from r1cli.train.update import TokenBudget, measure, update

Scores = list[tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class RmConfig:
    """epochs: passes over the examples. batch_rows: examples a step, over all processes. center: weight of (chosen + rejected)^2.

    shared: whether the sides of a pair may share a row (`Policy.row_length`). held_out_every: steps between measurements; 0 is only after
    the last.
    """

    epochs: float
    batch_rows: int
    microbatch_tokens: int
    seed: int
    pad_id: int
    optimiser: OptimiserConfig
    center: float = 0.0
    shared: bool = True
    alone_beyond: int | None = None
    save_every: int = 0
    held_out_every: int = 0

    def steps(self, rows: int) -> int:
        return steps_of(rows, self.epochs, self.batch_rows)


def train_rm(
    accelerator: Any,
    model: Any,
    optimizer: torch.optim.Optimizer,
    config: RmConfig,
    *,
    examples: Sequence[Example],
    log: Log,
    save: Save,
    held_out: Sequence[Example] = (),
    measured: Callable[[Scores], None] = lambda scores: None,
    start_step: int = 0,
    stopping: Stopping = never,
    warn: Callable[[str], None] = lambda text: None,
) -> int:
    """Train on examples that are all pairs or all labelled; returns the steps done.

    log(record) gets one record a step, on every process with the same figures; held_out: examples that are never trained on, whose
    loss and accuracy are in the records; measured(scores) gets their scores each time; warn(text): something the user must know.
    """
    total = config.steps(len(examples))
    batch_rows = rows_a_step(len(examples), config.batch_rows)
    budget = TokenBudget(accelerator, config.microbatch_tokens, warn)

    def one(step: int) -> dict[str, Any]:
        started = time.perf_counter()
        taken = step_rows(len(examples), step, batch_rows, config.seed, config.epochs)
        mine, weight = taken[accelerator.process_index :: accelerator.num_processes], 1.0 / len(taken)
        if not mine:  # more processes than rows: take part in the collectives with an example that weighs nothing
            mine, weight = taken[:1], 0.0
        loss = loss_of(examples, config.center, weight)
        lr = learning_rate(step, total, config.optimiser)

        def attempt(most: int) -> dict[str, float]:
            batches = example_batches(examples, mine, most, config.pad_id, shared=config.shared, alone_beyond=config.alone_beyond)
            return update(accelerator, model, optimizer, batches, loss, lr=lr, config=config.optimiser, where=f"step {step + 1}")

        figures = budget.within(attempt)
        seconds = time.perf_counter() - started
        if held_out and (step + 1 == total or (config.held_out_every and (step + 1) % config.held_out_every == 0)):
            scores = score(accelerator, model, held_out, config, budget)
            measured(scores)
            figures |= held_out_figures(scores, held_out)
        tokens = sum(examples[number].tokens for number in taken)
        clock = {"tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds}
        return {"step": step + 1, "steps": total, "epoch": min(config.epochs, (step + 1) * batch_rows / len(examples)), **figures, **clock}

    return train_steps(one, start_step=start_step, total=total, save_every=config.save_every, log=log, save=save, stopping=stopping)


def score(accelerator: Any, model: Any, examples: Sequence[Example], config: RmConfig, budget: TokenBudget | None = None) -> Scores:
    """The scores of every example's sides, the same on all processes; each computes a share of them."""
    sides = len(examples[0].sides)
    numbers = range(len(examples))
    mine = list(numbers[accelerator.process_index :: accelerator.num_processes])
    budget = budget or TokenBudget(accelerator, config.microbatch_tokens)

    def attempt(most: int) -> dict[int, Tensor]:
        chosen = mine or [0]
        batches = example_batches(examples, chosen, most, config.pad_id, shared=config.shared, alone_beyond=config.alone_beyond)
        return measure(accelerator, model, batches)

    measured = budget.within(attempt)
    found = {number * sides + side: float(measured[number * sides + side][0]) for number in mine for side in range(sides)}
    everyone = dict(gather_object(list(found.items()))) if accelerator.num_processes > 1 else found
    return [tuple(everyone[number * sides + side] for side in range(sides)) for number in numbers]


def held_out_figures(scores: Scores, examples: Sequence[Example]) -> dict[str, float]:
    """Loss (without centring) and accuracy, as records have them."""
    scores_NS = torch.tensor(scores, dtype=torch.float64)
    target_N = torch.tensor([example.target for example in examples], dtype=torch.float64)
    value_N = scores_NS[:, 0] - scores_NS[:, 1] if scores_NS.shape[1] == 2 else scores_NS[:, 0]
    loss: Tensor
    if scores_NS.shape[1] == 2:
        loss, right_N = -logsigmoid(value_N - target_N).mean(), value_N > 0
    else:
        loss, right_N = binary_cross_entropy_with_logits(value_N, target_N), (value_N > 0) == (target_N > 0.5)
    return {"held_out_loss": loss.item(), "held_out_accuracy": right_N.double().mean().item()}
