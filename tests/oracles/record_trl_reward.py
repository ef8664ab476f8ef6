"""Records what TRL's RewardTrainer makes of the rows of `reward_problem.py` into tests/data/trl_reward.json: tokens, loss and gradient.

    python -m venv trl-env && trl-env/bin/pip install torch==2.13.0 trl==1.16.0 transformers==5.19.0
    PYTHONPATH=. trl-env/bin/python tests/oracles/record_trl_reward.py

TRL tokenises, collates and computes the loss; the test is tests/train/test_trl_reward_oracle.py and needs no TRL.
"""

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.oracles.problem import fingerprint
from tests.oracles.reward_problem import CASES, Case, small_scorer, tokenizer_of

OUT = Path(__file__).parents[1] / "data" / "trl_reward.json"


def record(case: Case, folder: Path) -> dict[str, Any]:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    tokenizer = tokenizer_of(case)
    model = small_scorer(tokenizer.pad_token_id)
    names = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "max_length": None}
    config = RewardConfig(output_dir=str(folder), per_device_train_batch_size=len(case.rows()), **{**names, **case.trl})
    trainer = RewardTrainer(model=model, args=config, train_dataset=Dataset.from_list(case.rows()), processing_class=tokenizer)
    examples = list(trainer.train_dataset)
    batch = trainer.data_collator(examples)
    model.train().zero_grad()
    loss = trainer.compute_loss(model, dict(batch))
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    tokens = [[example["chosen_ids"], example["rejected_ids"]] for example in examples]
    rewards = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.squeeze(-1).tolist()
    return {"tokens": tokens, "rewards": rewards, "loss": loss.item(), "gradient": fingerprint(gradients)}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        cases = {case.name: record(case, Path(name)) for case in CASES}
    made_with = {package: version(package) for package in ("trl", "transformers", "torch")}
    lines = ",\n".join(f"{json.dumps(case)}: {json.dumps(found)}" for case, found in cases.items())
    OUT.write_text(f'{{"made_with": {json.dumps(made_with)},\n"cases": {{\n{lines}\n}}}}\n', encoding="utf-8")
    sys.stderr.write(f"wrote {len(cases)} cases to {OUT}\n")


if __name__ == "__main__":
    main()
