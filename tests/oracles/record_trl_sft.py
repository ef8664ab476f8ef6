"""Records the loss and gradient of TRL's SFTTrainer for the rows of `problem.py` into tests/data/trl_sft.json.

    python -m venv trl-env && trl-env/bin/pip install torch==2.13.0 trl==1.16.0 transformers==5.19.0
    PYTHONPATH=. trl-env/bin/python tests/oracles/record_trl_sft.py

TRL makes the labels, packs, collates and computes the loss; the test is tests/train/test_trl_sft_oracle.py and needs no TRL.
"""

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.oracles.problem import COMPLETIONS, GROUP_SIZE, PROMPTS, SFT_CASES, fingerprint, small_model, statement
from tests.tiny import tiny_tokenizer

OUT = Path(__file__).parents[1] / "data" / "trl_sft.json"


def record(name: str, folder: Path) -> dict[str, Any]:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    names = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "completion_only_loss": True}
    config = SFTConfig(output_dir=str(folder / "out"), per_device_train_batch_size=len(COMPLETIONS), **{**names, **SFT_CASES[name]})
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token, tokenizer.pad_token = tokenizer.convert_ids_to_tokens([1, 0])
    rows = [(PROMPTS[number // GROUP_SIZE], completion) for number, completion in enumerate(COMPLETIONS)]
    columns = [{"input_ids": prompt + ids, "completion_mask": [0] * len(prompt) + [1] * len(ids)} for prompt, ids in rows]
    trainer = SFTTrainer(model=str(folder / "model"), args=config, train_dataset=Dataset.from_list(columns), processing_class=tokenizer)
    model = trainer.model.train()
    batch = trainer.data_collator(list(trainer.train_dataset))
    learnt = int((batch["labels"] != -100).sum())
    model.zero_grad()
    loss = trainer.compute_loss(model, dict(batch))
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    shape = list(batch["input_ids"].shape)
    return {"asked": SFT_CASES[name], "shape": shape, "tokens": learnt, "loss": loss.item(), "gradient": fingerprint(gradients)}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small_model().save_pretrained(folder / "model")
        cases = {case: record(case, folder) for case in SFT_CASES}
    made_with = {package: version(package) for package in ("trl", "transformers", "torch")}
    lines = ",\n".join(f"{json.dumps(case)}: {json.dumps(found)}" for case, found in cases.items())
    head = f'"made_with": {json.dumps(made_with)},\n"problem": {json.dumps(statement())},'
    OUT.write_text(f'{{{head}\n"cases": {{\n{lines}\n}}}}\n', encoding="utf-8")
    sys.stderr.write(f"wrote {len(cases)} cases to {OUT}\n")


if __name__ == "__main__":
    main()
