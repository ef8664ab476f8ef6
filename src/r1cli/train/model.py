"""Models for training: loaded in float32 from a Hugging Face folder, wrapped as a `Policy`."""

import ctypes
import sys
from typing import Any

import torch
from accelerate import Accelerator
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from r1cli.errors import Exit, R1Error
from r1cli.train.attention import NAME, supported
from r1cli.train.logprobs import Policy
from r1cli.train.strategy import start

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def accelerator_for(dtype: str) -> Accelerator:
    """The accelerator of this process (its device, its place among the processes of a launch), computing in `dtype`."""
    keep_freed_memory()
    return start(dtype)


def keep_freed_memory() -> None:
    """Let malloc (glibc) reuse blocks of up to 32 MiB instead of giving them back: their pages would be asked for again in every step.

    Larger ones go back at once: kept, they leave holes that no other block fits, and a run grows from step to step (docs/log.md).
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**25)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Return what malloc (glibc) holds of freed blocks to the system: between the phases of a step the next one has other sizes."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def load_tokenizer(folder: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model folder."""
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)


def load_policy(folder: str, *, temperature: float = 1.0, gradient_checkpointing: bool = False, trust_remote_code: bool = False) -> Policy:
    """The model with float32 weights: small updates vanish in bfloat16's 8 bits of mantissa. It may compute in bfloat16 (autocast)."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    attention = NAME if supported(config) and not torch.cuda.is_available() else "sdpa"
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation=attention, trust_remote_code=trust_remote_code
    )
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
