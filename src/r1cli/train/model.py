"""Models for training: loaded in float32 from a Hugging Face folder, wrapped as a `Policy`."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM

from r1cli.errors import Exit, R1Error
from r1cli.train.logprobs import Policy


def load_policy(folder: str, *, temperature: float = 1.0, gradient_checkpointing: bool = False, trust_remote_code: bool = False) -> Policy:
    """The model with float32 weights: small updates vanish in bfloat16's 8 bits of mantissa. Computation may still be bfloat16 (autocast)."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=trust_remote_code)
    if model.get_output_embeddings() is None:
        raise R1Error(f"`{folder}` has no language-model head", hint="give a causal language model", code=Exit.USAGE)
    model.config.use_cache = False
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return Policy(model, temperature=temperature)


def frozen(policy: Policy) -> Policy:
    """A reference policy: no gradients, evaluation mode."""
    policy.requires_grad_(False)
    return policy.eval()
