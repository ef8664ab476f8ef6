"""Models for training: loaded in float32 from a Hugging Face folder, wrapped as a `Policy`."""

import ctypes
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from r1cli.errors import Exit, R1Error
from r1cli.layers.adopt import adopt
from r1cli.model_folder import FETCH_AGAIN, loading
from r1cli.train.logprobs import Policy
from r1cli.train.lora import LoraConfig, add_lora
from r1cli.train.probe import settle
from r1cli.train.strategy import WHOLE, start

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def accelerator_for(dtype: str, seed: int = 0) -> Accelerator:
    """The accelerator of this process (its device, its place among the processes of a launch), computing in `dtype`.

    seed: of torch's random numbers (dropout), which are other ones in every process.
    """
    keep_freed_memory()
    torch.backends.cuda.enable_cudnn_sdp(False)  # cuDNN's attention makes a plan (half a second) for each new length
    accelerator = start(dtype)
    torch.manual_seed(seed + accelerator.process_index)
    return accelerator


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


def load_config(folder: str, *, trust_remote_code: bool = False) -> Any:
    """The configuration of a model folder. Raises `R1Error` (exit 2) for one that cannot be read."""
    with loading(folder):
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)


def check_weights(folder: str | Path, hint: str = FETCH_AGAIN) -> None:
    """Refuse (`R1Error`, exit 2) safetensors files of a local folder that are torn. Only their headers are read."""
    for file in sorted(Path(folder).rglob("*.safetensors")):
        with loading(file, hint), safe_open(file, framework="pt"):
            pass


def check_vocabulary(folder: str, tokenizer: Any, config: Any) -> frozenset[int]:
    """Refuse (`R1Error`, exit 2) a tokenizer that gives numbers for which the embedding has no row.

    Special tokens that nothing writes by itself may have none, and are returned: Gemma 3's text models share a tokenizer with those that
    see, and have no row for its image token.
    """
    rows = getattr(config.get_text_config(), "vocab_size", None)
    vocabulary = tokenizer.get_vocab()
    beyond = {} if rows is None else {token: number for token, number in vocabulary.items() if number >= rows}
    added, template = tokenizer.added_tokens_decoder, str(getattr(tokenizer, "chat_template", None) or "")
    named = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}
    for token, number in beyond.items():
        if number in named or number not in added or not added[number].special or token in template:
            raise R1Error(
                f"the tokenizer of `{folder}` has {1 + max(vocabulary.values())} tokens, the model {rows}",
                hint="take the tokenizer that belongs to it, or save it after model.resize_token_embeddings(len(tokenizer))",
                code=Exit.USAGE,
            )
    return frozenset(beyond.values())


def load_policy(
    folder: str,
    *,
    temperature: float = 1.0,
    gradient_checkpointing: bool = False,
    trust_remote_code: bool = False,
    lora: LoraConfig | None = None,
    dtype: str = "float32",
) -> Policy:
    """The model with float32 weights: small updates vanish in bfloat16's 8 bits of mantissa. It may compute in bfloat16 (autocast).

    With `lora` only its adapter is float32 and trained; the weights themselves are in `dtype`, which without it must be float32.

    Raises `R1Error` (exit 2) for an architecture whose log-probabilities cannot be had from its last hidden state (`probe.settle`).
    Damaged files are errors of transformers and safetensors: see `loading`.
    """
    assert lora is not None or dtype == "float32"
    model = _load(folder, dtype, trust_remote_code)
    train_every_row(model)
    policy = _settled(model, temperature)
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if lora:
        policy.lora = add_lora(model, lora)
    return policy


def load_reference(folder: str, *, dtype: str, temperature: float = 1.0, trust_remote_code: bool = False) -> Policy:
    """A frozen policy in the type that computes: weights that do not move need no float32 beside it.

    In the same type it gives what the float32 policy of `load_policy` gives under autocast, bit by bit, for a third of its memory.
    """
    with loading(folder):
        model = _load(folder, dtype, trust_remote_code)
    policy = _settled(model, temperature)
    if dtype != "float32" and PartialState().distributed_type in WHOLE:
        adopt(model, {}, PartialState().device.type)  # as the policy's copy: rounding otherwise is a divergence from what it is a copy of
    return frozen(policy)


def _load(folder: str, dtype: str, trust_remote_code: bool) -> Any:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=dtype, trust_remote_code=trust_remote_code)
    if model.get_output_embeddings() is None:
        raise R1Error(f"`{folder}` has no language-model head", hint="give a causal language model", code=Exit.USAGE)
    return model


def train_every_row(model: Any) -> None:
    """Let the padding token's embedding be trained: in many models it is the token that ends a turn, and padding itself has no gradient."""
    model.get_input_embeddings().padding_idx = None


def _settled(model: Any, temperature: float) -> Policy:
    policy = Policy(model, temperature=temperature)
    settle(policy, temperature)
    return policy


def frozen(policy: Policy) -> Policy:
    """A reference policy: no gradients, evaluation mode."""
    policy.requires_grad_(False)
    return policy.eval()
