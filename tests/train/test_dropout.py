"""Reinforcement learning updates the policy that sampled: without dropout, whatever the model's configuration says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, BloomConfig, FalconConfig, GPT2Config, OPTConfig
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from r1cli.row import Row
from r1cli.train.batches import Sample, collate, group_rows
from r1cli.train.logprobs import Policy
from r1cli.train.model import frozen, load_policy
from r1cli.train.on_policy import OnPolicyConfig, OnPolicyHooks, train_on_policy
from r1cli.train.optimiser import OptimiserConfig
from r1cli.train.sft import SftConfig, SftHooks, mean_loss, train_sft
from r1cli.train.update import forward
from tests.train.runs import grpo_run
from tests.train.toy import PAD, VOCAB, group_samples, plain_logprobs

TOKENS: dict[str, Any] = {"vocab_size": VOCAB, "pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": 2}
LAYERS: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
MODELS: dict[str, Any] = {
    "GPT-2, modules": GPT2Config(**TOKENS, n_embd=32, n_layer=2, n_head=2, n_positions=64),
    "OPT, functions in the layer": OPTConfig(
        **TOKENS, **LAYERS, ffn_dim=64, max_position_embeddings=64, word_embed_proj_dim=32, layerdrop=0.5
    ),
    "Bloom, functions below the layer": BloomConfig(**TOKENS, hidden_size=32, n_layer=2, n_head=2, hidden_dropout=0.2),
    "Falcon, read from the configuration": FalconConfig(**TOKENS, **LAYERS, hidden_dropout=0.3, new_decoder_architecture=True),
}


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], str]:
    def make(name: str) -> str:
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(MODELS[name]).save_pretrained(tmp_path)
        return str(tmp_path)

    return make


def counting(plain: Callable[..., Any], passes: list[int]) -> Callable[..., Any]:
    """The same function, which leaves an entry for each call."""

    def counted(*given: Any, **named: Any) -> Any:
        passes.append(1)
        return plain(*given, **named)

    return counted


def layer_passes_of(policy: Policy) -> list[int]:
    """Gets an entry whenever a decoder layer of the policy computes."""
    passes: list[int] = []
    layers = [layer for module in policy.model.modules() if isinstance(module, nn.ModuleList) for layer in module]
    for layer in layers:
        layer.forward = counting(layer.forward, passes)
    return passes


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_training_computes_what_evaluation_computes(made: Callable[[str], str], name: str, checkpointing: bool) -> None:
    policy = load_policy(made(name), gradient_checkpointing=checkpointing)
    samples = group_samples(groups=2, size=3)
    batch = collate(group_rows(samples, policy.row_length(2048)), PAD)
    with torch.no_grad():
        expected = forward(policy.eval(), batch)[0]
    if "OPT" not in name or not checkpointing:
        assert not torch.allclose(forward(policy.train(), batch)[0], expected, atol=1e-5)  # supervised fine-tuning keeps it
    policy.without_dropout()
    passes = layer_passes_of(policy)
    found = forward(policy.train(), batch)[0]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    found.sum().backward()
    assert len(passes) == 2 * (1 + checkpointing)
    assert all(weight.grad is not None for weight in policy.parameters())


def test_a_supervised_step_has_dropout_and_a_measurement_has_none(accelerator: Any, made: Callable[[str], str]) -> None:
    """What is trained on and what is held out are the same rows, and the weights stay as they are."""
    policy, samples, records = load_policy(made("GPT-2, modules")), group_samples(groups=2, size=3), list[dict[str, Any]]()
    config = SftConfig(epochs=2, batch_rows=6, microbatch_tokens=0, seed=0, pad_id=PAD, optimiser=OptimiserConfig(lr=0.0), pack_length=0)
    measured = [mean_loss(accelerator, policy.train(), samples, config) for _ in range(2)]
    rule, hooks = torch.optim.SGD(policy.parameters()), SftHooks(records.append, lambda step: None)
    train_sft(accelerator, policy, rule, config, rows=[[sample] for sample in samples], hooks=hooks, held_out=samples)
    assert measured[0] == measured[1] == records[1]["held_out_loss"]
    losses = [measured[0], *(record["loss"] for record in records)]
    assert all(abs(losses[i] - losses[i - 1]) > 1e-4 for i in range(3))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_copy_in_bfloat16_has_none_either(made: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, checkpointing: bool) -> None:
    passes: list[int] = []
    monkeypatch.setattr(GPT2Block, "forward", counting(GPT2Block.forward, passes))
    policy = load_policy(made("GPT-2, modules"), gradient_checkpointing=checkpointing)
    batch = collate(group_rows(group_samples(groups=2, size=3), policy.row_length(2048)), PAD)
    policy.without_dropout()
    with torch.autocast("cpu", torch.bfloat16):
        expected = forward(policy.eval(), batch)[0]
        passes.clear()
        found = forward(policy.train(), batch)[0]
    found.sum().backward()
    assert policy._copy is not None and len(passes) == 2 * (1 + checkpointing)
    assert torch.equal(found, expected)


def test_what_is_saved_keeps_its_rates(made: Callable[[str], str], tmp_path: Path) -> None:
    policy = load_policy(made("Falcon, read from the configuration"))
    policy.without_dropout()
    policy.model.save_pretrained(tmp_path / "saved")
    assert FalconConfig.from_pretrained(tmp_path / "saved").hidden_dropout == 0.3


def test_a_policy_that_is_its_reference_has_no_divergence_in_the_first_step(accelerator: Any, made: Callable[[str], str]) -> None:
    _, records = grpo_run(accelerator, made("GPT-2, modules"), pack_length=0)
    assert abs(records[0]["kl"]) < 1e-6


def test_a_student_is_the_one_that_sampled(accelerator: Any, made: Callable[[str], str]) -> None:
    folder = made("GPT-2, modules")
    student, teacher = load_policy(folder), frozen(load_policy(folder))
    records: list[dict[str, Any]] = []

    def sample(rows: list[Row], step: int) -> list[Sample]:
        drawn = group_samples(groups=2, size=2)
        for one in drawn:
            one.sampler_logprobs = plain_logprobs(teacher.model, one)[0].tolist()
        return drawn

    config = OnPolicyConfig(
        steps=1, prompts_per_step=2, microbatch_tokens=4096, seed=0, pad_id=PAD, optimiser=OptimiserConfig(lr=0.0), pack_length=0
    )
    hooks = OnPolicyHooks(sample, lambda: None, records.append, lambda step: None)
    rule = torch.optim.SGD(student.parameters())
    train_on_policy(accelerator, student, teacher, rule, config, prompts=[Row({"id": n, "prompt": ""}) for n in range(2)], hooks=hooks)
    assert records[0]["importance_weight"] == pytest.approx(1.0, abs=1e-5) and abs(records[0]["reverse_kl"]) < 1e-5
