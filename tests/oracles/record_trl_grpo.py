"""Records TRL's advantages, loss and gradient for the problem of `problem.py` into tests/data/trl_grpo.json.

    python -m venv trl-env && trl-env/bin/pip install torch==2.13.0 trl==1.16.0 transformers==5.19.0
    PYTHONPATH=. trl-env/bin/python tests/oracles/record_trl_grpo.py

TRL's own GRPOTrainer does all of the arithmetic: `_generate_and_score_completions` (old, reference and importance weights, advantages) and
`_compute_loss`. Only `_generate` is replaced: it hands out the completions of the problem instead of sampling. The test is
tests/train/test_trl_oracle.py; it needs no TRL.
"""

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tests.oracles.problem import (
    CASES,
    COMPLETIONS,
    GROUP_SIZE,
    LIMIT,
    PROMPTS,
    REWARDS,
    TEMPERATURE,
    Case,
    fingerprint,
    move,
    question,
    sampler_error,
    small_model,
    statement,
)
from tests.tiny import tiny_tokenizer

OUT = Path(__file__).parents[1] / "data" / "trl_grpo.json"


def trainer_of(case: Case, folder: Path) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    names = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "mask_truncated_completions": True}
    shape = {"per_device_train_batch_size": len(COMPLETIONS), "num_generations": GROUP_SIZE, "max_completion_length": LIMIT}
    config = GRPOConfig(output_dir=str(folder / "out"), temperature=TEMPERATURE, num_iterations=2, **{**names, **shape, **case.trl})
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token, tokenizer.pad_token = tokenizer.convert_ids_to_tokens([1, 0])

    def reward(completions: list[Any], **_: Any) -> list[float]:
        return REWARDS

    data = Dataset.from_list([{"prompt": f"prompt {number}"} for number in range(len(PROMPTS))])
    return GRPOTrainer(model=str(folder / "model"), reward_funcs=reward, args=config, train_dataset=data, processing_class=tokenizer)


def record(case: Case, folder: Path) -> dict[str, Any]:
    trainer = trainer_of(case, folder)
    model = trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    trainer.eos_token_ids = [1]
    trainer.use_vllm = case.importance
    prompts = [prompt for prompt in PROMPTS for _ in range(GROUP_SIZE)]
    sampler = [[0.0] * len(ids) for ids in COMPLETIONS]
    if case.importance:
        sampler = sampler_logprobs(trainer, prompts)
    trainer._generate = lambda _: (prompts, COMPLETIONS, None, ["text"] * len(prompts), sampler, {}, None, None)
    batch = trainer._generate_and_score_completions([{"prompt": f"prompt {number // GROUP_SIZE}"} for number in range(len(prompts))])
    if case.same_policy:
        batch.pop("old_per_token_logps")
    else:
        move(model)
    model.zero_grad()
    loss = trainer._compute_loss(model, batch)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    found = {"asked": question(case), "loss": loss.item(), "advantages": batch["advantages"].tolist(), "gradient": fingerprint(gradients)}
    return {**found, "sampler_logprobs": sampler} if case.importance else found


def sampler_logprobs(trainer: Any, prompts: list[list[int]]) -> list[list[float]]:
    """The old policy's log-probabilities, one sequence at a time, each off by a little."""
    found = []
    for number, (prompt, completion) in enumerate(zip(prompts, COMPLETIONS, strict=True)):
        ids = torch.tensor([prompt + completion])
        with torch.no_grad():
            logprobs, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, torch.ones_like(ids), len(completion))
        found.append((logprobs[0].float() + sampler_error(number, len(completion))).tolist())
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small_model().save_pretrained(folder / "model")
        cases = {case.name: record(case, folder) for case in CASES}
    made_with = {package: version(package) for package in ("trl", "transformers", "torch")}
    lines = ",\n".join(f"{json.dumps(case)}: {json.dumps(found)}" for case, found in cases.items())
    OUT.write_text(
        f'{{"made_with": {json.dumps(made_with)},\n"problem": {json.dumps(statement())},\n"cases": {{\n{lines}\n}}}}\n', encoding="utf-8"
    )
    sys.stderr.write(f"wrote {len(cases)} cases to {OUT}\n")


if __name__ == "__main__":
    main()
