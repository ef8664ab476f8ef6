"""Does an update teach what TRL's teaches? r1 trains on the completions that TRL drew, and the weights are compared.

    python bench/updates_vs_trl.py --model runs/demo/cold-start --rows problems.jsonl [--steps 3] [--prompts 16] [--group 8]
                                   [--max-completion-length 80] [--lr 2e-5] [--trl-batch 32] [--json]

Rows and reward as in `learning.py`, loss dapo, float32 weights. TRL makes its steps and writes what it was trained on and the weights
after each; r1 makes the same steps with its own loss, gradients, clipping and AdamW, once with products in bfloat16, as it trains by
default where the hardware has it, and once all in float32. `cosine` is that between the movements since the start, all weights as one
vector, after each step: 1 where both moved alike. Adam's first steps are nearly the signs of the gradient, so rounding turns the weights
whose gradient is smallest; `float32` against TRL, which rounds too, says how many those are.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from against_trl import facts, parser, run_trl, sums_of
from architectures import folder_of
from torch import Tensor

from r1cli.train.batches import Sample
from r1cli.train.grpo import train_on
from r1cli.train.grpo_config import GrpoConfig
from r1cli.train.model import load_policy
from r1cli.train.optimiser import OptimiserConfig, build_optimiser
from r1cli.train.progress import RolloutBatch

Weights = dict[str, Tensor]


def ours(given: Any, model: str, steps: list[Any], precision: str) -> list[Weights]:
    """The weights after each of the steps, made by r1."""
    AcceleratorState._reset_state()  # a second one in a process keeps the first one's precision
    accelerator = Accelerator(mixed_precision="bf16" if precision == "bfloat16" else "no")
    optimiser = OptimiserConfig(lr=given.lr)
    config = GrpoConfig(
        steps=len(steps), prompts_per_step=given.prompts, group_size=given.group, max_completion_length=((0, given.max_completion_length),),
        microbatch_tokens=2048, seed=0, pad_id=0, optimiser=optimiser, beta=0.0, importance_cap=0.0, loss="dapo", mask_truncated=False,
    )  # fmt: skip
    policy = load_policy(model, temperature=1.0)
    policy.without_dropout()
    policy, optimizer = accelerator.prepare(policy, build_optimiser(policy.parameters(), optimiser))
    found = []
    for number, (prompts, completions, advantages) in enumerate(steps):
        samples = [
            Sample(index, prompt, completion, sampler_logprobs=[0.0] * len(completion), advantage=advantage, key=divmod(index, given.group))
            for index, (prompt, completion, advantage) in enumerate(zip(prompts, completions, advantages, strict=True))
        ]
        train_on(accelerator, policy, None, optimizer, RolloutBatch(number, 1, given.max_completion_length, samples), config)
        found.append(copied(accelerator.unwrap_model(policy).model))
    return found


def copied(model: Any) -> Weights:
    return {name: weight.detach().cpu().clone() for name, weight in model.named_parameters()}


def cosine(start: Weights, one: Weights, other: Weights) -> float:
    """Between the movements of two sets of weights from the start."""
    products = torch.zeros(3, dtype=torch.float64)
    for name, before in start.items():
        a, b = (weights[name].float() - before for weights in (one, other))
        products += torch.stack([(x * y).sum(dtype=torch.float64) for x, y in ((a, b), (a, a), (b, b))])
    return round(float(products[0] / (products[1] * products[2]).sqrt()), 4)


def main() -> None:
    flags = parser((__doc__ or "").splitlines()[0])
    flags.add_argument("--prompts", type=int, default=16)
    flags.add_argument("--group", type=int, default=8)
    flags.add_argument("--max-completion-length", type=int, default=80)
    flags.add_argument("--lr", type=float, default=2e-5)
    flags.add_argument("--trl-batch", type=int, help="completions in a pass of TRL's (default: all of a step)")
    flags.set_defaults(steps=3)
    given = flags.parse_args()
    with Path(given.rows).open(encoding="utf-8") as lines:
        rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        model = folder_of(given.model, str(work / "model"), given.tokenizer)
        settings = {**sums_of(given, model, rows), "steps": given.steps, "weights": "float32", "save": str(work)}
        theirs, _ = run_trl("updates", settings, given.environment, work)
        steps = torch.load(work / "steps.pt")[: given.steps]
        start = copied(load_policy(model, temperature=1.0).model)
        moved = [torch.load(work / f"weights-{number}.pt") for number in range(1, given.steps + 1)]
        cosines = {
            precision: [cosine(start, one, other) for one, other in zip(ours(given, model, steps, precision), moved, strict=True)]
            for precision in ("bfloat16", "float32")
        }
    record = {"cosine": cosines, "trl_rewards": theirs["rewards"], "settings": vars(given), **facts(theirs)}
    sys.stdout.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
