"""The problem that an oracle and our code both solve: a small model whose weights are a formula, and a batch of two prompts.

Nothing here depends on a random generator, so that two environments with different libraries build the same numbers.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

VOCAB, END, PAD = 64, 1, 0
GROUP_SIZE = 3
TEMPERATURE = 0.8
LIMIT = 12  # max_completion_length
PROMPTS = [[5, 9, 22, 31], [7, 44, 13]]
COMPLETIONS = [  # three a prompt; those that do not end with END were cut at the limit
    [12, 33, 8, 50, END],
    [40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51],
    [9, END],
    [60, 3, 17, 28, 36, 52, 11, END],
    [25, 25, 26, END],
    [38, 15, 63, 2, 19, 21, 57, 6, 10, END],
]
REWARDS = [1.0, 0.25, 0.0, 0.5, 0.0, 2.0]


@dataclass(frozen=True)
class Case:
    """One objective: `trl` are fields of TRL's GRPOConfig, `ours` those of our GrpoConfig."""

    name: str
    trl: dict[str, Any]
    ours: dict[str, Any]
    importance: bool = False  # sampler log-probabilities take part (TRL: use_vllm)
    same_policy: bool = False  # the old policy is the policy: the first update of a rollout
    extra: dict[str, Any] = field(default_factory=dict)


def _case(name: str, trl: dict[str, Any] | None = None, ours: dict[str, Any] | None = None, **how: Any) -> Case:
    return Case(name, {"loss_type": "grpo", **(trl or {})}, {"loss": "grpo", **(ours or {})}, **how)


KL = {"beta": 0.2, "use_bias_correction_kl": False}
CLIP = {"epsilon": 0.05, "epsilon_high": 0.08}
OUR_CLIP = {"clip_low": 0.05, "clip_high": 0.08}


GSPO, OUR_GSPO = {"importance_sampling_level": "sequence", **CLIP}, {"loss": "gspo", **OUR_CLIP}
CISPO, OUR_CISPO = {"loss_type": "cispo", "epsilon_high": 1.08}, {"loss": "cispo", "clip_high": 0.08}


def _importance(
    mode: str, rule: str, objective: str = "", trl: dict[str, Any] | None = None, ours: dict[str, Any] | None = None, **bounds: float
) -> Case:
    clips = {f"vllm_importance_sampling_clip_{end}": bounds.get(end) for end in ("min", "max")}
    limits = {"importance_cap": bounds.get("max", 0.0), "importance_floor": bounds.get("min", 0.0)}
    name = "-".join([*([objective] if objective else []), mode, rule, *bounds])
    return _case(
        name,
        {**(trl or CLIP), **clips, "vllm_importance_sampling_mode": f"{mode}_{rule}"},
        {**(ours or OUR_CLIP), **limits, "importance": mode, "importance_rule": rule},
        importance=True,
    )


CASES = [
    *[_case(loss, {"loss_type": loss, **CLIP}, {"loss": loss, **OUR_CLIP}) for loss in ("grpo", "dr_grpo", "dapo", "bnpo")],
    *[
        _case(f"{loss}-kl", {"loss_type": loss, **CLIP, **KL}, {"loss": loss, **OUR_CLIP, "beta": 0.2})
        for loss in ("grpo", "dr_grpo", "dapo", "bnpo")
    ],
    _case("first-update", {**CLIP, **KL}, {**OUR_CLIP, "beta": 0.2}, same_policy=True),
    _case("gspo", GSPO, OUR_GSPO),
    _case("gspo-kl", {**GSPO, **KL}, {**OUR_GSPO, "beta": 0.2}),
    _case("cispo", CISPO, OUR_CISPO),
    _case("cispo-kl", {**CISPO, **KL}, {**OUR_CISPO, "beta": 0.2}),
    _case("delta", {"epsilon": 0.05, "epsilon_high": 0.08, "delta": 1.15}, {**OUR_CLIP, "clip_cap": 1.15}),
    _case("kl-correction", {**CLIP, "beta": 0.2, "use_bias_correction_kl": True}, {**OUR_CLIP, "beta": 0.2, "kl_correction": True}),
    _case("entropy", {**CLIP, "entropy_coef": 0.3}, {**OUR_CLIP, "entropy_coef": 0.3}),
    _case("all-counted", {**CLIP, "mask_truncated_completions": False}, {**OUR_CLIP, "mask_truncated": False}),
    _case("mean", {"scale_rewards": "none", **CLIP}, {"advantage": "mean", **OUR_CLIP}),
    _case("batch", {"scale_rewards": "batch", **CLIP}, {"advantage": "batch", **OUR_CLIP}),
    _importance("token", "truncate", max=1.1),
    _importance("token", "truncate", min=0.9, max=1.1),
    _importance("token", "mask", min=0.85, max=1.15),
    _importance("sequence", "truncate", max=1.1),
    _importance("sequence", "mask", min=0.8, max=1.2),
    _importance("token", "truncate", "gspo", GSPO, OUR_GSPO, max=1.1),
    _importance("sequence", "truncate", "gspo", GSPO, OUR_GSPO, max=1.1),
    _importance("sequence", "mask", "gspo", GSPO, OUR_GSPO, min=0.8, max=1.2),
    _importance("token", "truncate", "cispo", CISPO, OUR_CISPO, max=1.1),
]

SFT_CASES: dict[str, dict[str, Any]] = {  # fields of TRL's SFTConfig; the rows are the prompts with their completions
    "padded": {"max_length": 64},
    "padding-free": {"max_length": None, "padding_free": True},
    "packed": {"max_length": 24, "packing": True},
}


def statement() -> dict[str, Any]:
    """All of the problem but the weights, which are a formula, as JSON has it: what was recorded was recorded for this."""
    rows: dict[str, Any] = {"prompts": PROMPTS, "completions": COMPLETIONS, "rewards": REWARDS}
    limits: dict[str, Any] = {"group_size": GROUP_SIZE, "temperature": TEMPERATURE, "limit": LIMIT, "end": END}
    weights = fingerprint(dict(small_model().named_parameters()))
    return {**rows, **limits, "weights": weights}


def question(case: Case) -> dict[str, Any]:
    """What TRL was asked for a case."""
    return {"trl": case.trl, "importance": case.importance, "same_policy": case.same_policy}


def wave(shape: torch.Size, number: int, scale: float) -> Tensor:
    """Numbers between -scale and scale that look random and are a formula (float64 inside, float32 out)."""
    count = torch.arange(shape.numel(), dtype=torch.float64)
    return (scale * torch.sin(count * 12.9898 + number * 78.233 + (count * 0.7).sin() * 43.7)).reshape(shape).float()


def small_model() -> Any:
    """A Llama of two layers with every weight set by `wave`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=2,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for number, (name, parameter) in enumerate(sorted(model.named_parameters())):
            parameter.copy_(wave(parameter.shape, number, 0.3) + (1.0 if "norm" in name else 0.0))
    return model


@torch.no_grad()
def move(model: Any, scale: float = 0.03) -> None:
    """From the old policy to the policy: every weight moves a little."""
    for number, (_, parameter) in enumerate(sorted(model.named_parameters())):
        parameter.add_(wave(parameter.shape, 1000 + number, scale))


def sampler_error(sequence: int, length: int) -> Tensor:
    """How much the sampler's log-probabilities differ from the old policy's, token by token."""
    return wave(torch.Size([length]), 5000 + sequence, 0.25)


def fingerprint(gradients: dict[str, Tensor]) -> dict[str, list[float]]:
    """For every parameter its gradient's norm and three projections onto fixed signs: 4 numbers that move with every entry."""
    found = {}
    for number, name in enumerate(sorted(gradients)):
        flat = gradients[name].detach().double().flatten()
        signs = [torch.sign(wave(flat.shape, 9000 + 10 * number + k, 1.0).double()) for k in range(3)]
        found[name] = [float(flat.norm()), *[float((flat * sign).sum()) for sign in signs]]
    return found
