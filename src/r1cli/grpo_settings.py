"""The flags of `r1 grpo`; see `settings.py`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from r1cli.shared_settings import (
    INPUT,
    MODEL,
    REWARDS,
    RUN,
    SAMPLING,
    TRAINING,
    Changing,
    EngineSettings,
    Flag,
    InputSettings,
    LaunchSettings,
    LoraSettings,
    ModelSettings,
    OptimizerSettings,
    PreferenceSettings,
    PromptSettings,
    RewardSettings,
    RunDirSettings,
    RunSettings,
    StopSettings,
    TrackSettings,
)

LOSSES = ("grpo", "dr_grpo", "dapo", "bnpo", "gspo", "cispo")
OF_LOSS: dict[str, dict[str, Any]] = {  # the method's own default, only where that of the flag would break its loss
    "gspo": {"clip_low": 3e-4, "clip_high": 4e-4},  # arXiv 2507.18071, section 5.1: the ratio is a mean over a sequence
    "dr_grpo": {"advantage": "mean"},  # arXiv 2503.20783: no division by the standard deviation
}
FILLED_IN = frozenset(name for own in OF_LOSS.values() for name in own)
"""Settings whose default another setting decides. A run writes down what it took; `-c RUN` has them decided anew (`config.py`)."""
ALARMS = ("constant-reward", "zero-gradient", "clipped", "entropy", "language", "truncated", "reward-length", "reward-hacking")


@dataclass(frozen=True, kw_only=True)
class GrpoSettings(
    InputSettings,
    RunDirSettings,
    ModelSettings,
    EngineSettings,
    PromptSettings,
    RewardSettings,
    PreferenceSettings,
    OptimizerSettings,
    LoraSettings,
    StopSettings,
    LaunchSettings,
    TrackSettings,
    RunSettings,
):
    """r1 grpo"""

    gpu_memory: Annotated[float, Flag("share of GPU memory vLLM may take; the trainer needs the rest", MODEL, min=0.05, max=1.0)] = 0.3
    lr: Annotated[float, Flag("peak learning rate (R1-Zero: 3e-6)", TRAINING, min=0.0)] = 3e-6
    steps: Annotated[int, Flag("optimizer updates in all, each on prompts-per-step x group-size completions", TRAINING, min=1)] = 100
    prompts_per_step: Annotated[int, Flag("prompts an update (R1-Zero: 32)", TRAINING, min=1)] = 32
    group_size: Annotated[int, Flag("completions a prompt (R1-Zero: 16)", TRAINING, min=2)] = 16
    updates_per_rollout: Annotated[
        int, Flag("minibatches (optimizer steps) per rollout, split at random (R1-Zero: 16)", TRAINING, min=1)
    ] = 1
    epochs_per_rollout: Annotated[int, Flag("passes over each rollout", TRAINING, min=1)] = 1
    loss: Annotated[str, Flag("objective and its divisor", TRAINING, choices=LOSSES)] = "grpo"
    clip_low: Annotated[float, Flag("lower clip: the ratio is held above 1 - this (--loss gspo: 3e-4)", TRAINING, min=0.0)] = 0.2
    clip_high: Annotated[
        float | None,
        Flag("upper clip: the ratio is held below 1 + this (default: as clip-low; gspo: 4e-4; R1 stage 2: 10)", TRAINING, min=0.0),
    ] = None
    clip_cap: Annotated[
        float | None, Flag("dual clip: the ratio is held below this for negative advantages too (usual: 3; default: off)", TRAINING, min=1)
    ] = None
    beta: Annotated[float, Flag("weight of the KL to the reference (R1-Zero: 0.001); 0 needs no reference", TRAINING, min=0.0)] = 0.001
    kl: Annotated[str, Flag("estimate of the KL (R1: k3)", TRAINING, choices=("k1", "k2", "k3"))] = "k3"
    kl_correction: Annotated[
        bool, Flag("weigh the KL by the policy's ratio: the gradient of the reverse KL (k1 and k3; k2 has it without)", TRAINING)
    ] = False
    entropy_coef: Annotated[float, Flag("weight of an entropy bonus", TRAINING, min=0.0)] = 0.0
    reference_every: Annotated[int, Flag("steps after which the reference follows the policy; 0 is never", TRAINING, min=0)] = 400
    reference_mix: Annotated[
        float,
        Flag(
            "share of the policy in the new reference: 1 copies; 0.01 with --reference-every 1 is an exponential moving average",
            TRAINING,
            min=0,
            max=1,
        ),
    ] = 1.0
    advantage: Annotated[
        str, Flag("how rewards become advantages (--loss dr_grpo: mean)", TRAINING, choices=("group", "batch", "mean", "loo"))
    ] = "group"
    mask_truncated: Annotated[bool, Flag("completions cut at the length limit give no gradient", TRAINING)] = True
    importance: Annotated[
        str,
        Flag(
            "importance-sampling ratio trainer / sampler: per token, geometric mean, or product over the sequence",
            TRAINING,
            choices=("token", "geometric", "sequence"),
        ),
    ] = "token"
    importance_rule: Annotated[
        str, Flag("weights outside of floor and cap are held at them, or masked (0)", TRAINING, choices=("truncate", "mask"))
    ] = "truncate"
    importance_floor: Annotated[float, Flag("least weight between trainer and sampler; 0 is none", TRAINING, min=0.0)] = 0.0
    importance_cap: Annotated[float, Flag("largest weight between trainer and sampler; 0 is none, both 0 is off", TRAINING, min=0.0)] = 2.0
    dynamic_sampling: Annotated[
        str | None,
        Flag(
            "keep only groups with right (score 1 or more) and wrong completions by this reward, draw others (DAPO: accuracy)",
            TRAINING,
            metavar="REWARD",
        ),
    ] = None
    max_refills: Annotated[int, Flag("times that dynamic sampling draws anew before it gives up", TRAINING, min=0)] = 10
    rollout_lag: Annotated[int, Flag("1 draws the next rollout during the update, with the weights before it", TRAINING, min=0, max=1)] = 0
    server_weights: Annotated[
        str, Flag("how servers of --url get new weights; nccl is from GPU to GPU", MODEL, choices=("folder", "nccl"))
    ] = "folder"
    engine_sleep: Annotated[bool, Flag("vLLM gives its GPU memory to the trainer during updates", MODEL)] = False
    temperature: Annotated[float, Flag("sampling temperature (R1: 1)", SAMPLING, min=0.01, max=2.0)] = 1.0
    max_completion_length: Annotated[
        int | Changing, Flag("most new tokens a completion, and from a step on (R1-Zero: 32768,65536@8200)", SAMPLING)
    ] = 1024
    max_prompt_length: Annotated[int, Flag("longer prompts are left out and counted", SAMPLING, min=1)] = 1024
    stop: Annotated[list[str], Flag("end a completion after this string (repeatable)", SAMPLING)] = field(default_factory=list)
    inputs: Annotated[
        list[str],
        Flag(
            "rows: JSONL (.gz, .zst), Parquet, a data set folder, hf:org/name@revision:split, or - for stdin; FILE=SHARE keeps a file at "
            "this share of every step",
            INPUT,
            positional=True,
        ),
    ]
    add: Annotated[
        list[str], Flag("prompt rows that join at a step (repeatable): FILE@STEP, FILE=SHARE@STEP", INPUT, metavar="FILE@STEP")
    ] = field(default_factory=list)
    reward_model_from: Annotated[
        int, Flag("step from which a --reward-model without an @STEP of its own counts (R1 stage 4: 1300 of 1700)", REWARDS, min=0)
    ] = 0
    held_out: Annotated[
        str | None, Flag("problems that are never trained on, whose accuracy by a rule is measured on the way", TRAINING, metavar="FILE")
    ] = None
    held_out_every: Annotated[
        int, Flag("steps between measurements of --held-out; 0 is only before the first and after the last", TRAINING, min=0)
    ] = 0
    samples_every: Annotated[int, Flag("steps between readable samples in samples.jsonl", RUN, min=1)] = 1
    alarm_steps: Annotated[int, Flag("rollouts that must show a sign of trouble before it is said", RUN, min=1)] = 10
    stop_on: Annotated[str | None, Flag("alarms that end the run with exit code 1: " + ", ".join(ALARMS), RUN, metavar="NAME,...")] = None


def of_loss(settings: GrpoSettings, sources: Mapping[str, str]) -> tuple[GrpoSettings, list[str]]:
    """(the settings with the defaults of their loss's method in place of those that nobody gave, what was set as words of a command line).

    sources: setting -> the layer that set it. A lower clip that was given is the upper one too, as with any loss. A preset's numbers
    are for the loss of the preset: where another layer gives the loss, they count as given by nobody.
    """
    weak = ("default",) if sources.get("loss") in ("preset", "default", None) else ("default", "preset")
    own = {name: value for name, value in OF_LOSS.get(settings.loss, {}).items() if sources.get(name, "default") in weak}
    if "clip_low" not in own:
        own.pop("clip_high", None)
    return dataclasses.replace(settings, **own), [f"--{name.replace('_', '-')} {value}" for name, value in own.items()]
