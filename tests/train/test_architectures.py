"""Log-probabilities of many architectures, as r1 lays out their rows, against the model's own, one sequence at a time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.llama import modeling_llama
from transformers.models.llama.modeling_llama import LlamaAttention

from r1cli.errors import R1Error
from r1cli.train.attention import NAME
from r1cli.train.batches import collate, group_rows
from r1cli.train.logprobs import Policy
from r1cli.train.lora import LoraConfig
from r1cli.train.model import load_policy, load_reference
from r1cli.train.reward_model import load_reward_model
from r1cli.train.update import forward
from tests.train.toy import PAD, VOCAB, group_samples, plain_logprobs

TEMPERATURE = 0.7
TOKENS: dict[str, Any] = {"vocab_size": VOCAB, "pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2}
LLAMA: dict[str, Any] = {
    **TOKENS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
GPT: dict[str, Any] = {**TOKENS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
MAMBA: dict[str, Any] = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 16, "mamba_chunk_size": 16}
LINEAR: dict[str, Any] = {"linear_num_value_heads": 2, "linear_num_key_heads": 1, "linear_key_head_dim": 16, "linear_value_head_dim": 16}
EYES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 16, "patch_size": 8}
GEMMA = {**LLAMA, "head_dim": 16, "sliding_window": 4, "final_logit_softcapping": 3.0}
QWEN = {**LLAMA, **LINEAR, "head_dim": 16, "layer_types": ["linear_attention", "full_attention"]}

SHARING: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("Llama", LLAMA),
    "Granite, logits divided": ("Granite", {**LLAMA, "logits_scaling": 4.0}),
    "HyperCLOVA X, logits multiplied": ("HyperCLOVAX", {**LLAMA, "logits_scaling": 0.25}),
    "Cohere, logits scaled": ("Cohere", {**LLAMA, "logit_scale": 0.25}),
    "GPT-NeoX": ("GPTNeoX", {**LLAMA, "num_key_value_heads": 2}),
}
ALONE: dict[str, tuple[str, dict[str, Any]]] = {
    "Bloom, ALiBi": ("Bloom", {**TOKENS, "hidden_size": 32, "n_layer": 2, "n_head": 2}),
    "MPT, ALiBi": ("Mpt", {"vocab_size": VOCAB, "d_model": 32, "n_layers": 2, "n_heads": 2, "initializer_range": 0.2}),
    "CodeGen, attention of its own": ("CodeGen", {**GPT, "rotary_dim": 4}),
    "RWKV, recurrent": ("Rwkv", {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "context_length": 64}),
    "Mamba, recurrent": ("Mamba", {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.2}),
    "Falcon-H1, both in every layer": ("FalconH1", {**LLAMA, **MAMBA, "mamba_d_ssm": 64, "lm_head_multiplier": 0.3}),
    "LFM2, convolutions": ("Lfm2", {**LLAMA, "layer_types": ["conv", "full_attention"]}),
    "Gemma 2, a window and a cap": ("Gemma2", GEMMA),
    "GPT-2, dropout in attention": ("GPT2", GPT),
}
COMPOSITE: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "Gemma 3, kept whole": ("gemma3", GEMMA, EYES),
    "Qwen 3.5, its text alone": (
        "qwen3_5",
        QWEN,
        {"depth": 1, "hidden_size": 16, "num_heads": 1, "intermediate_size": 16, "out_hidden_size": 32},
    ),
}


def made(name: str, folder: Path) -> str:
    """The folder of a tiny model of the architecture, with random weights."""
    torch.manual_seed(0)
    if name in COMPOSITE:
        kind, text, eyes = COMPOSITE[name]
        tokens = {"mm_tokens_per_image": 1, "image_token_index": 380, "boi_token_index": 381, "eoi_token_index": 382}
        config = transformers.AutoConfig.for_model(kind, text_config=text, vision_config=eyes, **(tokens if kind == "gemma3" else {}))
        AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    else:
        kind, values = {**SHARING, **ALONE}[name]
        AutoModelForCausalLM.from_config(getattr(transformers, f"{kind}Config")(**values)).save_pretrained(folder)
    return str(folder)


def found_and_expected(policy: Policy) -> tuple[Tensor, Tensor]:
    batch = collate(group_rows(group_samples(groups=2, size=3), policy.row_length(2048)), PAD)
    with torch.no_grad():
        expected = torch.cat([plain_logprobs(policy.model, sample, TEMPERATURE)[0] for sample in batch.samples])
        return forward(policy, batch)[0].double(), expected


@pytest.mark.parametrize("name", [*SHARING, *ALONE, *COMPOSITE])
def test_log_probabilities_are_the_models_own(tmp_path: Path, name: str) -> None:
    policy = load_policy(made(name, tmp_path), temperature=TEMPERATURE)
    torch.testing.assert_close(*found_and_expected(policy), rtol=1e-5, atol=1e-5)
    assert policy.row_length(2048) == (2048 if name in SHARING else 0)
    assert (policy.model.config._attn_implementation == NAME) is (name in SHARING)


@pytest.mark.parametrize("name", ["HyperCLOVA X, logits multiplied", "Falcon-H1, both in every layer"])
def test_in_bfloat16_the_same_way_is_found(tmp_path: Path, name: str) -> None:
    folder = made(name, tmp_path)
    plain = load_policy(folder, temperature=TEMPERATURE)
    for policy in (load_reference(folder, dtype="bfloat16", temperature=TEMPERATURE), lora_in_bfloat16(folder)):
        assert (policy.shape, policy.plain) == (plain.shape, plain.plain)
        assert policy._copy is None


def test_the_copy_that_computes_has_buffers_of_its_type(tmp_path: Path) -> None:
    """The decays of MiniMax's linear attention are multiplied with activations; rotations are not, and stay exact."""
    torch.manual_seed(0)
    kinds = {"layer_types": ["linear_attention", "full_attention"], "block_size": 8, "head_dim": 16, "num_local_experts": 4}
    AutoModelForCausalLM.from_config(transformers.MiniMaxConfig(**LLAMA, **kinds)).save_pretrained(tmp_path)
    policy = load_policy(str(tmp_path), temperature=TEMPERATURE)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = found_and_expected(policy)
    assert policy._copy is not None
    torch.testing.assert_close(found, expected, rtol=0.0, atol=0.15)
    types = {name.rpartition(".")[2]: value.dtype for name, value in policy._copy.model.named_buffers()}
    assert types["slope_rate"] == torch.bfloat16 and types["inv_freq"] == torch.float32


@pytest.mark.parametrize("spread", [0.02, 0.05, 0.2])
def test_rounding_does_not_hide_an_attention_that_looks_at_its_neighbours(tmp_path: Path, spread: float) -> None:
    """Nemotron's takes no segments. With weights this small that moves log-probabilities by less than bfloat16 does, relative to them."""
    torch.manual_seed(0)
    config = transformers.NemotronConfig(**{**LLAMA, "initializer_range": spread})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    for policy in (load_policy(str(tmp_path)), load_reference(str(tmp_path), dtype="bfloat16"), lora_in_bfloat16(str(tmp_path))):
        assert policy.row_length(2048) == 0


def test_rounding_does_not_hide_the_cap_that_a_configuration_has(tmp_path: Path) -> None:
    """Logits this small are hardly capped: with and without a cap they are as near to the model's own as bfloat16 lets them be."""
    for seed in range(6):
        torch.manual_seed(seed)
        config = transformers.Gemma2Config(**{**GEMMA, "initializer_range": 0.05, "final_logit_softcapping": 30.0})
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
        assert load_reference(str(tmp_path), dtype="bfloat16").shape.softcap == 30.0


def lora_in_bfloat16(folder: str) -> Policy:
    pytest.importorskip("peft")
    return load_policy(folder, temperature=TEMPERATURE, lora=LoraConfig(rank=2, targets="q_proj"), dtype="bfloat16")


def test_a_head_that_does_more_is_refused(tmp_path: Path) -> None:
    """Between BERT's last hidden state and its output layer there are two more layers."""
    values = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
    AutoModelForCausalLM.from_config(transformers.BertConfig(**values, is_decoder=True)).save_pretrained(tmp_path)
    with pytest.raises(R1Error, match="r1 cannot train `BertLMHeadModel`: its log-probabilities") as error:
        load_policy(str(tmp_path))
    assert error.value.code == 2


class Mixing(LlamaAttention):
    """Attention and something that mixes tokens beside it, which no configuration speaks of."""

    def forward(self, hidden_states: Tensor, **options: Any) -> tuple[Tensor, Any]:
        output, weights = super().forward(hidden_states=hidden_states, **options)
        return output + hidden_states.cumsum(1) / torch.arange(1, hidden_states.shape[1] + 1)[:, None], weights


@pytest.mark.parametrize("load", [load_policy, lambda folder: load_reward_model(folder, pad_id=PAD)], ids=["policy", "reward model"])
def test_what_no_configuration_says_is_found_by_asking(tiny: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[..., Policy]) -> None:
    assert load(str(tiny)).row_length(2048) == 2048
    monkeypatch.setattr(modeling_llama, "LlamaAttention", Mixing)
    policy = load(str(tiny))
    assert policy.row_length(2048) == 0 and policy.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("gpu", [True, False])
def test_a_model_whose_kernels_need_a_gpu_is_taken_as_it_says(tiny: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool) -> None:
    def kernel(*given: Any, **named: Any) -> None:
        raise ValueError("Pointer argument (at 0) cannot be accessed from Triton (cpu tensor?)")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(modeling_llama.LlamaForCausalLM, "forward", kernel)
    if gpu:
        assert load_policy(str(tiny)).model.config._attn_implementation == NAME
    else:
        with pytest.raises(ValueError, match="Triton"):
            load_policy(str(tiny))
