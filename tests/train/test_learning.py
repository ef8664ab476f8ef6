"""The loops learn: a tiny policy finds the token that is rewarded, and SFT the rows it is shown."""

from pathlib import Path
from typing import Any

import torch

from r1cli.row import Row
from r1cli.train.grpo import train_grpo
from r1cli.train.grpo_config import Prompts
from r1cli.train.optimiser import OptimiserConfig, build_optimiser
from r1cli.train.progress import Rollout
from r1cli.train.rollout import Draw, Hooks
from tests.train.runs import sft_run
from tests.train.toy import grpo_config

WANTED = range(100, 200)  # the rewarded tokens: about a quarter of the vocabulary


def test_grpo_raises_the_reward(accelerator: Any, new_policy: Any) -> None:
    policy = new_policy()
    config = grpo_config(
        steps=15,
        prompts_per_step=4,
        group_size=8,
        beta=0.0,
        max_completion_length=((0, 1),),
        optimiser=OptimiserConfig(lr=3e-3, max_grad_norm=1.0),
    )
    generator = torch.Generator().manual_seed(0)
    rewards: list[float] = []

    def sample(rows: list[Row], draw: Draw) -> list[Rollout]:
        prompts = torch.tensor([[10 + row["id"], 20, 30] for row in rows])
        with torch.no_grad():
            logprobs = torch.log_softmax(policy.model(input_ids=prompts).logits[:, -1], dim=-1)
        drawn = torch.multinomial(logprobs.exp(), config.group_size, replacement=True, generator=generator)
        return [
            Rollout(row.with_fields(sample=n, completion=str(token), finish_reason="stop"), prompt, [token], [float(own[token])])
            for row, prompt, tokens, own in zip(rows, prompts.tolist(), drawn.tolist(), logprobs, strict=True)
            for n, token in enumerate(tokens)
        ]

    def score(rows: list[Row], step: int) -> list[Row]:
        right = [float(int(row["completion"]) in WANTED) for row in rows]
        return [row.with_fields(rewards={"wanted": r}, reward=r) for row, r in zip(rows, right, strict=True)]

    hooks = Hooks(sample, score, lambda: None, lambda record, rows, memory: rewards.append(record["reward"]), lambda progress: None)
    prompts = Prompts([(0, [Row({"id": i, "prompt": str(i)}) for i in range(8)])])
    train_grpo(accelerator, policy, None, build_optimiser(policy.parameters(), config.optimiser), config, prompts=prompts, hooks=hooks)
    assert sum(rewards[:2]) / 2 < 0.5
    assert sum(rewards[-3:]) / 3 > 0.9


def test_sft_lowers_the_loss_of_what_it_is_shown(accelerator: Any, tiny: Path) -> None:
    _, records = sft_run(accelerator, str(tiny), epochs=6.0, batch_rows=15)
    assert records[0]["loss"] > 4.0 and records[-1]["loss"] < 0.5 * records[0]["loss"]
