"""LoRA against peft's own forward pass and merge, and against models that were never adapted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

from r1cli.errors import R1Error
from r1cli.model_folder import load_tokenizer
from r1cli.train.batches import collate, group_rows, micro_batches
from r1cli.train.checkpoints import named_weights, save_model
from r1cli.train.lora import ADAPTER, CLASSIFICATION, LoraConfig, LoraReference, add_lora, without_adapter
from r1cli.train.model import load_policy
from r1cli.train.optimiser import OptimiserConfig, build_optimiser
from r1cli.train.reference import renew_reference
from r1cli.train.update import forward, measure
from tests.train.test_checkpoint_names import MOE, folder_of
from tests.train.toy import PAD, group_samples, largest_difference, layer_passes, plain_logprobs, weights

peft = pytest.importorskip("peft")
CONFIG = LoraConfig(rank=4, alpha=8.0)


def lora_policy(folder: Path, config: LoraConfig, **options: Any) -> Any:
    return load_policy(str(folder), lora=config, **options)


@pytest.fixture
def adapted(tiny: Path) -> Callable[..., Any]:
    """A policy whose adapter has moved away from zero."""

    def make(config: LoraConfig = CONFIG, **options: Any) -> Any:
        policy = lora_policy(tiny, config, **options)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for weight in policy.lora.weights().values():
                weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
        return policy

    return make


BATCH = collate(group_rows(group_samples(groups=2, size=3)), PAD)


def logprobs_of(policy: Any, autocast: bool = False) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return forward(policy, BATCH)[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_new_adapter_changes_nothing_and_only_it_is_trained(tiny: Path, dtype: str) -> None:
    plain, policy = AutoModelForCausalLM.from_pretrained(tiny, dtype=dtype), lora_policy(tiny, CONFIG, dtype=dtype)
    trained = {name for name, weight in policy.named_parameters() if weight.requires_grad}
    assert trained and all(".lora_" in name for name in trained)
    assert len(trained) == 2 * 7 * 2  # A and B of seven linear layers in two blocks
    assert {weight.dtype for weight in policy.lora.weights().values()} == {torch.float32}
    assert {w.dtype for n, w in policy.named_parameters() if n not in trained} == {getattr(torch, dtype)}
    expected = torch.cat([plain_logprobs(plain, sample)[0] for sample in BATCH.samples])
    assert torch.allclose(logprobs_of(policy).double(), expected, atol=1e-5 if dtype == "float32" else 0.2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_weights_are_those_of_peft(accelerator: Any, adapted: Callable[..., Any], tiny: Path, tmp_path: Path, dtype: str) -> None:
    policy = adapted(dtype=dtype)
    found = dict(named_weights(accelerator, policy))
    save_model(accelerator, policy, load_tokenizer(str(tiny)), tmp_path / "merged")
    save_model(accelerator, policy, load_tokenizer(str(tiny)), tmp_path / "adapter", merged=False)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=dtype)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload()
    expected = dict(theirs.named_parameters())
    assert found.keys() == expected.keys() == dict(saved.named_parameters()).keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(torch.equal(weight, expected[name]) for name, weight in saved.named_parameters())
    assert not (tmp_path / "adapter" / "config.json").exists() and not (tmp_path / "merged" / ADAPTER).exists()
    unmoved = dict(AutoModelForCausalLM.from_pretrained(tiny, dtype=dtype).named_parameters())
    assert sum(not torch.equal(found[name], unmoved[name]) for name in found) == 14


def test_what_computes_is_what_is_merged(accelerator: Any, adapted: Callable[..., Any], tiny: Path, tmp_path: Path) -> None:
    policy = adapted()
    save_model(accelerator, policy, load_tokenizer(str(tiny)), tmp_path)
    merged = load_policy(str(tmp_path))
    assert torch.allclose(logprobs_of(policy), logprobs_of(merged), atol=2e-5)
    assert (logprobs_of(policy) - logprobs_of(load_policy(str(tiny)))).abs().max() > 0.05


def test_a_checkpoint_gives_back_the_adapter_to_the_last_bit(
    accelerator: Any, adapted: Callable[..., Any], tiny: Path, tmp_path: Path
) -> None:
    policy = adapted(dtype="bfloat16")
    save_model(accelerator, policy, load_tokenizer(str(tiny)), tmp_path, resumable=True)
    other = lora_policy(tiny, CONFIG, dtype="bfloat16")
    assert largest_difference(weights(other), weights(policy)) > 0.01
    other.lora.load(tmp_path)
    assert largest_difference(weights(other), weights(policy)) == 0.0
    with pytest.raises(R1Error, match="is not of this shape") as raised:
        lora_policy(tiny, LoraConfig(rank=2)).lora.load(tmp_path)
    assert "--lora" in (raised.value.hint or "")
    with pytest.raises(R1Error, match="is not of this shape"):
        lora_policy(tiny, LoraConfig(rank=4, targets="q_proj")).lora.load(tmp_path)
    with pytest.raises(R1Error, match="has no adapter to go on from"):
        other.lora.load(tiny)


@pytest.mark.parametrize("autocast", [False, True])
def test_the_copy_in_bfloat16_shares_what_is_frozen_and_trains_the_adapter(adapted: Callable[..., Any], autocast: bool) -> None:
    policy, exact = adapted(dtype="bfloat16" if autocast else "float32"), adapted()
    logprobs_N = logprobs_of(policy, autocast)
    logprobs_N.sum().backward()
    logprobs_of(exact).sum().backward()
    assert (policy._copy is not None) is autocast
    if autocast:
        own = {weight.data_ptr() for weight in policy.model.parameters() if not weight.requires_grad}
        copied = {weight.data_ptr() for weight in policy._copy.model.parameters() if not weight.requires_grad}
        assert own == copied and {weight.dtype for weight in policy._copy.model.parameters()} == {torch.bfloat16}
    for (name, one), other in zip(policy.lora.weights().items(), exact.lora.weights().values(), strict=True):
        assert one.grad.dtype == torch.float32
        assert (one.grad - other.grad).norm() <= (0.2 if autocast else 0.0) * other.grad.norm(), name
    assert all(weight.grad is None for name, weight in policy.named_parameters() if ".lora_" not in name)
    before = logprobs_of(policy, autocast).detach()
    build_optimiser(policy.parameters(), OptimiserConfig(lr=0.05)).step()
    assert (logprobs_of(policy, autocast) - before).abs().max() > 0.05


def test_gradient_checkpointing_changes_nothing(adapted: Callable[..., Any]) -> None:
    found = []
    for checkpointing in (False, True):
        policy = adapted(gradient_checkpointing=checkpointing).train()
        with layer_passes() as passes:
            logprobs_of(policy).sum().backward()
        assert len(passes) == 2 * (1 + checkpointing)
        found.append([weight.grad for weight in policy.lora.weights().values()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_reference_is_the_base_and_no_second_model(accelerator: Any, adapted: Callable[..., Any], tiny: Path, dtype: str) -> None:
    """Measured first, as a run does it: the copy in bfloat16 is made while the adapter is switched off, and must still train it."""
    policy = adapted(dtype=dtype)
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=dtype)
    batches = micro_batches(group_rows(group_samples(groups=2, size=3)), 4096, PAD)
    reference = LoraReference(policy)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        found, own = measure(accelerator, reference, batches), measure(accelerator, policy, batches)
        again = measure(accelerator, reference, batches)
    for sample in batches[0].samples:
        expected = plain_logprobs(base, sample)[0].float()
        assert torch.allclose(found[sample.index], expected, atol=1e-5 if dtype == "float32" else 0.2)
        assert torch.equal(found[sample.index], again[sample.index])
    assert max(float((found[index] - own[index]).abs().max()) for index in found) > 0.05
    logprobs_of(policy, dtype == "bfloat16").sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in policy.lora.weights().values())


def test_an_unadapted_policy_in_the_same_type_gives_the_very_same_reference(adapted: Callable[..., Any], tiny: Path) -> None:
    policy, untouched = adapted(), load_policy(str(tiny))
    with torch.no_grad(), without_adapter(policy):
        found = logprobs_of(policy)
    assert torch.equal(found, logprobs_of(untouched))


def test_a_renewed_reference_stays_where_the_policy_was(accelerator: Any, adapted: Callable[..., Any], tmp_path: Path) -> None:
    policy = adapted()
    reference = LoraReference(policy)
    batches = micro_batches(group_rows(group_samples(groups=1, size=3)), 4096, PAD)
    start = measure(accelerator, policy, batches)
    renew_reference(accelerator, reference, policy)
    with torch.no_grad():
        for weight in policy.lora.weights().values():
            weight.mul_(1.5)
    moved = weights(policy)
    found = measure(accelerator, reference, batches)
    assert all(torch.equal(found[index], start[index]) for index in start)
    assert largest_difference(moved, weights(policy)) == 0.0
    torch.save(reference.state_dict(), tmp_path / "state")
    other = LoraReference(policy)
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert torch.equal(measure(accelerator, other, batches)[0], start[0])


def test_a_classifier_keeps_a_head_of_its_own(tiny: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 32}
    LlamaForSequenceClassification(LlamaConfig(vocab_size=384, num_labels=1, pad_token_id=0, **sizes)).save_pretrained(tmp_path / "base")
    model, plain = (AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", dtype=torch.float32) for _ in range(2))
    lora = add_lora(model, CONFIG, task=CLASSIFICATION)
    assert {name.split(".")[0] for name in lora.weights()} == {"model", "score"}
    ids = torch.arange(4, 24)[None]
    rule = torch.optim.SGD(model.parameters(), lr=0.5)
    model(input_ids=ids).logits.sum().backward()
    rule.step()
    rule.zero_grad()
    model(input_ids=ids).logits.sum().backward()  # A gets a gradient once B is not zero
    rule.step()
    merged = dict(lora.merged(dict(model.named_parameters())))
    assert merged.keys() == dict(plain.named_parameters()).keys()
    plain.load_state_dict(merged)
    assert torch.allclose(plain(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-5)
    lora.save(tmp_path / "adapter", model.state_dict())
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", dtype=torch.float32)
    other = add_lora(again, CONFIG, task=CLASSIFICATION)
    other.load(tmp_path / "adapter")
    assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_tied_head_is_written_once_from_another_device_too(
    accelerator: Any, adapted: Callable[..., Any], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There each tensor that goes to the CPU is one of its own, tied or not."""
    monkeypatch.setattr(Tensor, "cpu", Tensor.clone)
    save_model(accelerator, adapted(), load_tokenizer(str(tiny)), tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == load_file(tiny / "model.safetensors").keys()


def test_the_same_seed_is_the_same_adapter(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no GPU's generator is seeded: each process draws a dropout of its own there."""
    on_gpus: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", on_gpus.append)
    first, same, other = (lora_policy(tiny, LoraConfig(rank=4, seed=seed)) for seed in (1, 1, 2))
    assert largest_difference(weights(first), weights(same)) == 0.0 < largest_difference(weights(first), weights(other))
    assert not on_gpus


@pytest.mark.parametrize(
    ("targets", "message", "hint"),
    [
        ("query", "cannot be adapted", "q_proj"),
        ("q_proj,v_porj", "no layer is called `v_porj`", "v_proj"),
        ("layers.0.q_proj", "no layer is called", "q_proj"),
        ("embed_tokens", "share their weights", "all-linear"),
        ("lm_head,q_proj", "share", "all-linear"),
    ],
)
def test_targets_that_cannot_be_adapted_are_refused(tiny: Path, targets: str, message: str, hint: str) -> None:
    with pytest.raises(R1Error, match=message) as raised:
        lora_policy(tiny, LoraConfig(rank=4, targets=targets))
    assert hint in (raised.value.hint or "")


def moved(folder: str, config: LoraConfig, dtype: str = "float32") -> Any:
    """A policy with experts whose adapter has moved away from zero."""
    policy = lora_policy(Path(folder), config, dtype=dtype)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in policy.lora.weights().values():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return policy


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("targets", ["all-linear", "q_proj,k_proj,v_proj,o_proj"])
@pytest.mark.parametrize("name", MOE)
def test_fused_experts_are_merged_as_by_peft(accelerator: Any, tiny: Path, tmp_path: Path, name: str, targets: str, dtype: str) -> None:
    folder = folder_of(name, tmp_path / "base")
    policy = moved(folder, LoraConfig(rank=2, targets=targets), dtype)
    assert any(".mlp.experts.lora_A" in part for part in policy.lora.weights()) is (targets == "all-linear")
    found = dict(named_weights(accelerator, policy))
    save_model(accelerator, policy, load_tokenizer(str(tiny)), tmp_path / "merged", resumable=True)
    assert load_file(tmp_path / "merged" / "model.safetensors").keys() == load_file(Path(folder) / "model.safetensors").keys()
    saved, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto", output_loading_info=True)
    assert not any(loading.values())
    theirs = policy.lora.wrapper.merge_and_unload()
    expected = {name: value for name, value in theirs.state_dict().items() if name in found}
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).state_dict()
    assert found.keys() == expected.keys() == plain.keys() == saved.state_dict().keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert all(torch.equal(value, expected[key]) for key, value in saved.state_dict().items())
    changed = {key for key in found if not torch.equal(found[key], plain[key])}
    assert ("model.layers.1.mlp.experts.gate_up_proj" in changed) is (targets == "all-linear")


def test_what_computes_with_experts_is_what_is_merged(accelerator: Any, tiny: Path, tmp_path: Path) -> None:
    folder = folder_of("Qwen3-MoE", tmp_path / "base")
    policy = moved(folder, CONFIG)
    save_model(accelerator, policy, load_tokenizer(str(tiny)), tmp_path / "saved", resumable=True)
    assert torch.allclose(logprobs_of(policy), logprobs_of(load_policy(str(tmp_path / "saved"))), atol=2e-5)
    assert (logprobs_of(policy) - logprobs_of(load_policy(folder))).abs().max() > 0.01
    with torch.no_grad(), without_adapter(policy):
        assert torch.allclose(logprobs_of(policy), logprobs_of(load_policy(folder)), atol=2e-5)
    other = lora_policy(Path(folder), CONFIG)
    other.lora.load(tmp_path / "saved")
    assert largest_difference(weights(other), weights(policy)) == 0.0


def test_what_cannot_be_merged_is_refused_when_it_is_added(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again before anything is written: such a `final/` would be loaded with layers of random values."""
    policy = lora_policy(tiny, CONFIG)
    state = {name: value for name, value in policy.model.named_parameters() if "layers.1.mlp.up_proj.base" not in name}
    with pytest.raises(R1Error, match=r"cannot be merged into this model: 1 tensors, first `model.layers.1.mlp.up_proj.weight`"):
        next(policy.lora.merged(state))
    monkeypatch.setattr("r1cli.train.lora._plain_name", lambda name: name)
    with pytest.raises(R1Error, match="cannot be merged into this model") as raised:
        lora_policy(tiny, CONFIG)
    assert raised.value.code == 2 and "--lora-targets q_proj,k_proj,v_proj,o_proj" in (raised.value.hint or "")
