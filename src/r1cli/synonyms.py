"""What other trainers and servers call a flag of r1, for the hint of a flag that there is not.

Names of TRL 1.16 (`GRPOConfig`, `SFTConfig`, `ModelConfig`) and of transformers' `TrainingArguments`, of verl, and of vLLM's server.
"""

from collections.abc import Collection

from r1cli.errors import nearest

OURS = {  # theirs -> what it may be here, the first that the command has
    "learning-rate": "lr",
    "lr-scheduler-type": "lr-schedule",
    "steps": "epochs",
    "max-steps": "steps epochs",
    "num-train-epochs": "epochs steps",
    "num-epochs": "epochs steps",
    "num-generations": "group-size",
    "rollout-n": "group-size",
    "num-iterations": "epochs-per-rollout",
    "ppo-epochs": "epochs-per-rollout",
    "per-device-train-batch-size": "microbatch-tokens",
    "gradient-accumulation-steps": "microbatch-tokens",
    "train-batch-size": "prompts-per-step batch-rows",
    "batch-size": "batch-rows",
    "max-new-tokens": "max-completion-length",
    "max-tokens": "max-completion-length",
    "max-response-length": "max-completion-length",
    "max-seq-length": "max-length",
    "reward-funcs": "rewards",
    "loss-type": "loss",
    "epsilon": "clip-low",
    "epsilon-high": "clip-high",
    "delta": "clip-cap",
    "kl-coef": "beta",
    "kl-loss-coef": "beta",
    "scale-rewards": "advantage",
    "mask-truncated-completions": "mask-truncated",
    "ref-model-sync-steps": "reference-every",
    "ref-model-mixup-alpha": "reference-mix",
    "assistant-only-loss": "loss-on",
    "completion-only-loss": "loss-on",
    "lora-r": "lora",
    "lora-rank": "lora",
    "use-peft": "lora",
    "lora-target-modules": "lora-targets",
    "bf16": "dtype",
    "save-steps": "save-every",
    "save-total-limit": "keep",
    "eval-steps": "held-out-every",
    "report-to": "track",
    "output-dir": "out",
    "output": "out",
    "resume-from-checkpoint": "resume",
    "model-name-or-path": "model",
    "deepspeed": "accelerate-config",
    "use-vllm": "engine",
    "vllm-gpu-memory-utilization": "gpu-memory",
    "gpu-memory-utilization": "gpu-memory",
    "vllm-enable-sleep-mode": "engine-sleep",
    "vllm-server-base-url": "url",
    "base-url": "url",
    "n": "samples",
    "num-samples": "samples",
    "num-return-sequences": "samples",
}


def instead(name: str, known: Collection[str]) -> str:
    """A hint for a flag (`--learning-rate`) or setting (`learning_rate`) that there is not: ours for it, else as `errors.nearest`.

    known: those that there are, spelt as `name` is.
    """
    flag = name.startswith("--")
    for ours in OURS.get(name.removeprefix("--").replace("_", "-"), "").split():
        spelt = f"--{ours}" if flag else ours.replace("-", "_")
        if spelt in known:
            return f"here it is `{spelt}`"
    return nearest(name, known)
