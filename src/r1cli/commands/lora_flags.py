"""The flags of LoRA: what contradicts itself is refused before anything is loaded, and what follows a run that saved adapters alone."""

import dataclasses
import importlib.util
from collections.abc import Mapping
from typing import Any

from r1cli.errors import Exit, R1Error, nearest
from r1cli.guard import Context
from r1cli.shared_settings import LoraSettings

FLAGS = tuple(field.name for field in dataclasses.fields(LoraSettings))
PARTS = ("optimizer", "reference")
RATE_HINT = "--lr 1e-4: LoRA learns best at about ten times the learning rate of all weights"


def check_lora(settings: Any, context: Context) -> None:
    """Refuse (`R1Error`) flags that would do nothing (exit 2) and --lora without peft (exit 3); say when the learning rate is that of all
    weights."""
    sources = context.sources
    check_offload(settings)
    if settings.lora is None:
        _refuse_given(sources)
        return
    if importlib.util.find_spec("peft") is None:
        raise R1Error("--lora needs the package `peft`, which is not installed", hint="pip install 'r1cli[lora]'", code=Exit.ENVIRONMENT)
    if hasattr(settings, "group_size"):
        _check_reinforcement(settings, sources)
    if sources.get("lr", "default") == "default":
        context.console.warn(f"--lr {settings.lr:g} is the default for training all weights; {RATE_HINT}")


def check_offload(settings: Any) -> None:
    """Refuse (`R1Error`, exit 2) parts of --offload that are none, or that this run does not have."""
    for part in filter(None, (settings.offload or "").split(",")):
        if part not in PARTS:
            raise R1Error(f"`--offload` knows no part `{part}`", hint=nearest(part, PARTS), code=Exit.USAGE)
        if part == "reference" and not getattr(settings, "beta", 0.0):
            raise R1Error("--offload reference does nothing: there is no reference", hint="--offload optimizer", code=Exit.USAGE)
        if part == "reference" and getattr(settings, "lora", None) is not None:
            raise R1Error(
                "--offload reference does nothing: with --lora the reference is the policy without its adapter",
                hint="--offload optimizer",
                code=Exit.USAGE,
            )


def _refuse_given(sources: Mapping[str, str]) -> None:
    for name in FLAGS[1:]:
        if sources.get(name) == "flag":
            raise R1Error(f"--{name.replace('_', '-')} does nothing without --lora", hint="--lora 16", code=Exit.USAGE)


def _check_reinforcement(settings: Any, sources: Mapping[str, str]) -> None:
    if settings.lora_dropout:
        raise R1Error(
            "--lora-dropout would train another policy than the one that samples",
            hint="leave it out: r1 grpo trains without dropout",
            code=Exit.USAGE,
        )
    if settings.beta and settings.reference_mix != 1.0:
        raise R1Error(
            "--reference-mix averages weights, and the average of two adapters is not an adapter of this rank",
            hint="leave it out: with --lora the reference is the base, and a copy of the adapter every --reference-every steps",
            code=Exit.USAGE,
        )


def following(settings: Any) -> str:
    """What a user may do with the final model of a run."""
    if getattr(settings, "lora_export", "merged") == "adapter":
        return f"next: merge `{settings.out}/final` into its base to evaluate it, or serve both (vLLM: --enable-lora)"
    return f"next: r1 eval --model {settings.out} problems.jsonl"
