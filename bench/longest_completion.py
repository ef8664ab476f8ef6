"""The longest completion whose training pass fits a GPU, in r1 and in TRL, for a model of real size with random weights.

    python bench/longest_completion.py --tokenizer FOLDER [--model qwen2.5-1.5b] [--memory-gib 78] [--first 16384] [--most 131072]
                                       [--within 4096] [--trl-weights float32|bfloat16] [--environment PYTHON]
                                       [--sides r1,trl]

A pass trains on one completion of random tokens behind a short prompt: forward and backward under gradient checkpointing, while weights,
gradients and the moments of AdamW are there, which one whole step has made first. r1's weights are float32, and so are TRL's here
(`--trl-weights bfloat16`: less memory, and small updates are lost); both compute in bfloat16. Lengths double from `--first` to the first
that does not fit, or to `--most`; halves then close in on the longest, to `--within`. `--memory-gib` is what a process may take, whatever
the card has: with enough of it, two runs may each take a side (`--sides`). One JSON line: for each side the longest that fits, and (length,
seconds, GiB) of all that were tried; GiB is null where memory ran out.
"""

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from against_trl import facts, parser, run_trl
from architectures import folder_of
from longest import limit_memory, longest

from r1cli.train.batches import Sample, group_rows, micro_batches
from r1cli.train.grpo_config import GrpoConfig
from r1cli.train.losses import StepCounts
from r1cli.train.model import accelerator_for, load_policy
from r1cli.train.objective import Objective
from r1cli.train.optimiser import OptimiserConfig, build_optimiser
from r1cli.train.strategy import backward, prepare
from r1cli.train.update import forward, update

PROMPT = 64


def ours(flags: Any, folder: str) -> dict[str, Any]:
    """What `longest` found for r1."""
    accelerator = accelerator_for("bfloat16")
    limit_memory(flags.memory_gib)
    policy = load_policy(folder, gradient_checkpointing=True)
    rule = OptimiserConfig(lr=1e-6)
    policy, optimizer = prepare(accelerator, policy, build_optimiser(policy.parameters(), rule), rule.max_grad_norm)
    vocabulary, draw = policy.model.config.vocab_size, random.Random(0)

    def batch_of(length: int) -> tuple[Any, Objective]:
        prompt, completion = ([draw.randrange(vocabulary) for _ in range(size)] for size in (PROMPT, length))
        sample = Sample(0, prompt, completion, sampler_logprobs=[-12.0] * length, advantage=1.0)
        config = GrpoConfig(
            steps=1, prompts_per_step=1, group_size=1, max_completion_length=((0, length),), microbatch_tokens=length, seed=0, pad_id=0,
            optimiser=rule, beta=0.0,
        )  # fmt: skip
        return micro_batches(group_rows([sample]), length, 0)[0], Objective(
            config, StepCounts(1, length, length), {}, {}, idle=False, microbatches=1
        )

    def attempt(length: int) -> None:
        batch, objective = batch_of(length)
        with accelerator.autocast():
            given = forward(policy, batch.to(accelerator.device))
        backward(accelerator, objective(batch.to(accelerator.device), *given)[0], last=True)

    batch, objective = batch_of(1024)
    update(accelerator, policy, optimizer, [batch], objective, lr=rule.lr, config=rule, where="the first step")
    return longest(attempt, flags.first, flags.most, flags.within)


def main() -> None:
    flags = parser((__doc__ or "").splitlines()[0], rows=False)
    flags.set_defaults(model="qwen2.5-1.5b")
    flags.add_argument("--memory-gib", type=float, default=78.0, help="of the GPU, for a side")
    flags.add_argument("--first", type=int, default=16384, help="tokens of the first completion")
    flags.add_argument("--most", type=int, default=131072, help="tokens of the longest that is tried")
    flags.add_argument("--within", type=int, default=4096, help="tokens to which the longest is known")
    flags.add_argument("--trl-weights", choices=["bfloat16", "float32"], default="float32", help="TRL's; float32 computes under autocast")
    flags.add_argument("--sides", default="trl,r1", help="which to measure")
    given = flags.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model = folder_of(given.model, str(work / "model"), given.tokenizer)
        settings = {
            "model": model, "weights": given.trl_weights, "memory_gib": given.memory_gib, "first": given.first, "most": given.most,
            "within": given.within, "steps": 1, "group": 2, "prompts": 1, "trl_batch": 1, "max_completion_length": given.most,
            "texts": ["a"], "signal": ["a"], "prompt_length": PROMPT, "gradient_checkpointing": True,
        }  # fmt: skip
        found = {"trl": run_trl("longest", settings, given.environment, work)[0]} if "trl" in given.sides.split(",") else {}
        if "r1" in given.sides.split(","):
            found["r1"] = ours(given, model)
    figures = {f"{side}_{name}": side_found[name] for side, side_found in found.items() for name in ("longest", "tried")}
    record = {**figures, "settings": vars(given), **facts(found.get("trl"))}
    if not given.json:
        sys.stderr.write("; ".join(f"{side}: {figures[f'{side}_longest']:,} tokens" for side in found) + "\n")
    sys.stdout.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
