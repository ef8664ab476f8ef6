"""TRL's side of `grpo_vs_trl.py` and `sft_vs_trl.py`: runs in TRL's own environment and imports nothing of r1.

python trl_side.py grpo|sft|longest|updates SETTINGS.json

One JSON line on stdout: {"seconds": [of each step], "phases": {"sample": [of each step], "sync": [...]}, "tokens": [...], "rewards": [...],
"device_gib": most memory of the GPU, or null}; what a step has beyond its phases is training and, with vLLM, TRL's pass for the correction;
`longest`: what `longest.py` found; `updates`: grpo that also writes each step's completions and the weights after it.
"""

import json
import re
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import torch
import transformers
import trl  # type: ignore[import-not-found, unused-ignore]
from datasets import Dataset  # type: ignore[import-not-found, unused-ignore]
from longest import limit_memory, longest
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer  # type: ignore[import-not-found, unused-ignore]

VERSIONS = {package.__name__: package.__version__ for package in (trl, transformers, torch)}


class Timer(TrainerCallback):
    """Seconds of each optimizer step, its generation included; ends the run after so many minutes of them."""

    def __init__(self, minutes: float | None) -> None:
        self.seconds: list[float] = []
        self.phases: dict[str, list[float]] = {}
        self.minutes = minutes

    def watch(self, owner: Any, method: str, phase: str) -> None:
        """Seconds that each step spends in a method of TRL's, as a phase; for methods that do not call each other."""
        self.phases[phase] = []
        asked = getattr(owner, method)

        def timed(*arguments: Any, **named: Any) -> Any:
            started = self._now()
            result = asked(*arguments, **named)
            self.phases[phase][-1] += self._now() - started
            return result

        setattr(owner, method, timed)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        for seconds in self.phases.values():
            seconds.append(0.0)
        self.started = self._now()

    def _now(self) -> float:
        """The time when everything asked of the device is done."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_step_end(self, _arguments: Any, _state: Any, control: Any, **_: Any) -> None:
        self.seconds.append(self._now() - self.started)
        if self.minutes is not None and sum(self.seconds) > 60 * self.minutes:
            control.should_training_stop = True  # never False: the trainer itself says True after the last step


def right(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
    """1 where the last whole number of the completion is the answer."""
    found = [re.findall(r"-?\d+", text[-1]["content"] if isinstance(text, list) else text) for text in completions]
    return [float(bool(numbers) and int(numbers[-1]) == int(gold)) for numbers, gold in zip(found, answer, strict=True)]


class Spread:
    """A reward that differs within the groups of the prompts in `signal`, and is 0 for the others."""

    __name__ = "spread"

    def __init__(self, signal: list[str]) -> None:
        self.signal = set(signal)

    def __call__(self, prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
        loud = [prompt[-1]["content"] in self.signal for prompt in prompts]
        return [self.of(str(text), place) if loud[place] else 0.0 for place, text in enumerate(completions)]

    def of(self, completion: str, place: int) -> float:
        return zlib.crc32(completion.encode()) % 1000 / 1000 + place * 1e-4


def hand_over_by_reload() -> None:
    """On a CPU, where TRL's own way of handing weights to vLLM fails (its packed layers take no tensors), hand them over by vLLM's reload.

    For seconds, not for learning: a tied output layer stays packed as it was (r1 packs it again).
    """
    from trl.generation.vllm_generation import VLLMGeneration  # type: ignore[import-not-found, unused-ignore]

    def sync_weights(self: Any) -> None:
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": self._iter_named_params()})
        self.llm.reset_prefix_cache()

    VLLMGeneration.sync_weights = sync_weights


def grpo(settings: dict[str, Any], timer: Timer, common: dict[str, Any]) -> GRPOTrainer:
    group, prompts = settings["group"], settings["prompts"]
    if settings.get("sampler") == "vllm":
        if not torch.cuda.is_available():
            hand_over_by_reload()
        common = {**common, "use_vllm": True, "vllm_mode": "colocate", **settings["vllm"]}
    config = GRPOConfig(
        per_device_train_batch_size=settings["trl_batch"], gradient_accumulation_steps=group * prompts // settings["trl_batch"],
        num_generations=group, max_completion_length=settings["max_completion_length"], beta=0.0, temperature=1.0, **common,
    )  # fmt: skip
    made = [{"prompt": [{"role": "user", "content": text}]} for text in settings["texts"]]
    if "answers" in settings:
        made = [{**row, "answer": answer} for row, answer in zip(made, settings["answers"], strict=True)]
    rows, reward = Dataset.from_list(made), right if "answers" in settings else Spread(settings["signal"])
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(settings["model"], dtype=settings["weights"]), reward_funcs=reward,
        args=config, train_dataset=rows, processing_class=AutoTokenizer.from_pretrained(settings["model"]), callbacks=[timer],
    )  # fmt: skip
    if config.use_vllm:
        timer.watch(trainer.vllm_generation, "generate", "sample")
        timer.watch(trainer.vllm_generation, "sync_weights", "sync")
    else:
        timer.watch(trainer, "_generate_single_turn", "sample")
    return trainer


class Recorder(TrainerCallback):
    """Writes what each step was trained on (`steps.pt`, at the end of a step) and the weights after it (`weights-1.pt` for the first)."""

    def __init__(self, trainer: GRPOTrainer, folder: Path) -> None:
        self.trainer, self.folder = trainer, folder
        self.steps: list[Any] = []
        draw = trainer._generate_and_score_completions

        def recorded(inputs: Any) -> Any:
            made = draw(inputs)
            ids = [
                [row[mask.bool()].tolist() for row, mask in zip(made[f"{part}_ids"], made[f"{part}_mask"], strict=True)]
                for part in ("prompt", "completion")
            ]
            self.steps.append([*ids, made["advantages"].tolist()])
            return made

        trainer._generate_and_score_completions = recorded

    def on_step_end(self, _arguments: Any, state: Any, _control: Any, **_: Any) -> None:
        torch.save(self.steps, self.folder / "steps.pt")
        weights = {name: weight.detach().cpu() for name, weight in self.trainer.model.named_parameters()}
        torch.save(weights, self.folder / f"weights-{state.global_step}.pt")


def sft(settings: dict[str, Any], timer: Timer, common: dict[str, Any]) -> SFTTrainer:
    config = SFTConfig(
        packing=True, max_length=settings["length"], per_device_train_batch_size=1,
        gradient_accumulation_steps=settings["tokens"] // settings["length"], **common,
    )  # fmt: skip
    rows = [
        {"prompt": [{"role": "user", "content": one}], "completion": [{"role": "assistant", "content": two}]}
        for one, two in settings["rows"]
    ]
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(settings["model"], dtype=settings["weights"]), args=config, callbacks=[timer],
        train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(settings["model"]),
    )  # fmt: skip


def search(trainer: GRPOTrainer, settings: dict[str, Any]) -> dict[str, Any]:
    """The longest completion whose training pass fits, one sequence a pass; the completions are made up, not drawn."""
    vocabulary, device = trainer.model.config.vocab_size, trainer.accelerator.device

    def made(count: int, length: int) -> dict[str, Any]:
        prompt, completion = (torch.randint(vocabulary, (count, size), device=device) for size in (settings["prompt_length"], length))
        return {
            "prompt_ids": prompt, "prompt_mask": torch.ones_like(prompt), "completion_ids": completion,
            "completion_mask": torch.ones_like(completion), "advantages": torch.ones(count, device=device),
            "num_items_in_batch": torch.tensor(float(count * length), device=device),
        }  # fmt: skip

    trainer._generate_and_score_completions = lambda _: made(2, 1024)
    trainer.train()  # one step: the gradients' room, the moments

    def attempt(length: int) -> None:
        batch = made(1, length)
        trainer._prepare_inputs = lambda _: batch
        trainer.training_step(trainer.model_wrapped, batch, None)

    for weight in trainer.model.parameters():
        weight.grad = torch.zeros_like(weight)
    return longest(attempt, settings["first"], settings["most"], settings["within"])


def main() -> None:
    settings = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    if sys.argv[1] in ("grpo", "updates"):
        torch.backends.cuda.enable_cudnn_sdp(False)  # a plan for each new length, of which sampling has many
    timer = Timer(settings.get("minutes"))
    common = {
        "output_dir": settings["out"], "max_steps": settings["steps"], "use_cpu": not torch.cuda.is_available(), "bf16": True,
        "report_to": [], "save_strategy": "no", "logging_steps": 1, "learning_rate": settings.get("lr", 1e-6),
        "lr_scheduler_type": "constant", "gradient_checkpointing": settings.get("gradient_checkpointing", False), "disable_tqdm": True,
    }  # fmt: skip
    if "memory_gib" in settings:
        limit_memory(settings["memory_gib"])
    trainer = {"grpo": grpo, "sft": sft, "longest": grpo, "updates": grpo}[sys.argv[1]](settings, timer, common)
    if sys.argv[1] == "longest":
        sys.stdout.write("\n" + json.dumps({**search(trainer, settings), "versions": VERSIONS}) + "\n")
        return
    if sys.argv[1] == "updates":
        trainer.add_callback(Recorder(trainer, Path(settings["save"])))
        settings["save"] = None
    trainer.train()
    if settings.get("save"):
        trainer.save_model(settings["save"])
    counts = [record["num_tokens"] for record in trainer.state.log_history if "num_tokens" in record]
    tokens = [b - a for a, b in zip([0, *counts], counts, strict=False)]
    rewards = [record["reward"] for record in trainer.state.log_history if "reward" in record]
    device_gib = torch.cuda.max_memory_reserved() / 2**30 if torch.cuda.is_available() else None
    record = {
        "seconds": timer.seconds, "phases": timer.phases, "tokens": tokens, "rewards": rewards, "device_gib": device_gib,
        "versions": VERSIONS,
    }  # fmt: skip
    sys.stdout.write("\n" + json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
