"""Log-probabilities and entropies of packed rows against one sequence at a time with all its logits."""

import dataclasses
import random
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, LlamaConfig

from r1cli.train import logprobs
from r1cli.train.batches import Sample, collate, dense_mask, group_rows, micro_batches, packed_rows
from r1cli.train.logits import Scratch, vocabulary_blocks
from r1cli.train.logprobs import Policy, TokenLogprobs
from r1cli.train.model import load_policy
from r1cli.train.update import forward, measure
from tests.train.toy import PAD, VOCAB, group_samples, layer_passes, plain_logprobs, tokens


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("chunk", [1, 7, 1024])
def test_they_equal_the_plain_computation(new_policy: Callable[..., Any], temperature: float, chunk: int) -> None:
    policy = new_policy(temperature=temperature)
    policy.shape = dataclasses.replace(policy.shape, chunk=chunk)
    samples = group_samples(groups=2, size=3)
    batch = collate(group_rows(samples), PAD)
    logprobs, entropies = forward(policy, batch)
    expected = [plain_logprobs(policy.model, sample, temperature) for sample in batch.samples]
    assert torch.allclose(logprobs.double(), torch.cat([e[0] for e in expected]), atol=1e-5)
    assert torch.allclose(entropies.double(), torch.cat([e[1] for e in expected]), atol=1e-5)
    assert logprobs.requires_grad and entropies.requires_grad


@pytest.mark.parametrize("shared", [True, False])
def test_under_a_mask_they_are_the_same(new_policy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    """What a GPU does that lacks the kernels for segments, or computes in float32."""
    policy, samples = new_policy(), group_samples(groups=2, size=3)
    batch = collate(group_rows(samples) if shared else group_rows(samples, 0), PAD)
    assert (dense_mask(batch.marks_BT) is None) is not shared
    expected = forward(policy, batch)
    monkeypatch.setattr(logprobs, "computes", lambda *_: False)
    for one, other in zip(forward(policy, batch), expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("chunk", [5, 1024])
@pytest.mark.parametrize("softcap", [0.0, 4.0])
def test_the_gradient_equals_the_plain_computation(new_policy: Callable[..., Any], temperature: float, chunk: int, softcap: float) -> None:
    samples = group_samples(groups=1, size=3)
    batch = collate(group_rows(samples), PAD)
    weight_N = torch.linspace(-1.0, 1.0, len(batch.target_N))

    policy = new_policy(temperature=temperature)
    policy.shape = dataclasses.replace(policy.shape, chunk=chunk, softcap=softcap)
    (forward(policy, batch)[0] * weight_N).sum().backward()

    plain = new_policy()
    logits_NV = plain.model(
        input_ids=batch.input_ids_BT, position_ids=batch.position_ids_BT, attention_mask=batch.attention_mask
    ).logits.flatten(0, 1)[batch.source_N]
    if softcap:
        logits_NV = softcap * torch.tanh(logits_NV / softcap)
    logprobs_N = torch.log_softmax(logits_NV / temperature, -1).gather(-1, batch.target_N[:, None]).squeeze(-1)
    (logprobs_N * weight_N).sum().backward()
    for (name, one), (_, other) in zip(policy.named_parameters(), plain.named_parameters(), strict=True):
        size = other.grad.abs().max().clamp(min=1.0).item()  # rounding of float32 grows with what is added up
        assert torch.allclose(one.grad, other.grad, atol=1e-5 * size, rtol=1e-4), name


def test_a_frozen_head_and_a_frozen_body_each_train_the_other(new_policy: Callable[..., Any]) -> None:
    batch = collate(group_rows(group_samples(groups=1, size=2)), PAD)
    policy = new_policy()
    policy.model.get_output_embeddings().weight.requires_grad_(False)
    forward(policy, batch)[0].sum().backward()
    assert policy.model.get_output_embeddings().weight.grad is None
    assert all(p.grad is not None for p in policy.parameters() if p.requires_grad)
    policy = new_policy()
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_("embed_tokens" in name)
    forward(policy, batch)[0].sum().backward()
    assert policy.model.get_output_embeddings().weight.grad.abs().max() > 0


@pytest.mark.parametrize("pack_length", [1, 25, 10_000])
def test_every_packing_measures_the_same(accelerator: Any, new_policy: Callable[..., Any], pack_length: int) -> None:
    policy = new_policy()
    samples = group_samples(groups=3, size=4)
    for rows in (group_rows(samples, pack_length), packed_rows(samples, pack_length)):
        found = measure(accelerator, policy, micro_batches(rows, 64, PAD))
        assert sorted(found) == list(range(len(samples)))
        for sample in samples:
            assert torch.allclose(found[sample.index].double(), plain_logprobs(policy.model, sample)[0], atol=1e-5)


def test_batches_of_all_sizes_are_products_of_a_few_sizes(new_policy: Callable[..., Any]) -> None:
    """The matrix library of a CPU makes a kernel for every size it meets, and keeps it."""
    policy, seen = new_policy(), set()
    policy.model.get_decoder().layers[0].mlp.register_forward_hook(lambda module, given, out: seen.add(out.shape[1]))
    for length in range(3, 60):
        logprobs, _ = forward(policy, collate(group_rows([Sample(0, [11, 12], tokens(random.Random(length), length, length))]), PAD))
        assert len(logprobs) == length
    assert seen == {64}


def test_a_completion_without_tokens_is_no_obstacle(new_policy: Callable[..., Any]) -> None:
    batch = collate(group_rows([Sample(0, [11, 12], [])]), PAD)
    logprobs, entropies = forward(new_policy(), batch)
    assert logprobs.shape == entropies.shape == (0,)
    logprobs.sum().backward()


def test_gradient_checkpointing_changes_nothing(new_policy: Callable[..., Any]) -> None:
    batch = collate(group_rows(group_samples(groups=2, size=2)), PAD)
    found = []
    for checkpointing in (False, True):
        policy = new_policy(gradient_checkpointing=checkpointing).train()
        with layer_passes() as passes:
            forward(policy, batch)[0].sum().backward()
        assert len(passes) == 2 * (1 + checkpointing)
        found.append([p.grad for p in policy.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_head_with_a_bias_and_a_scale_of_its_own(new_policy: Callable[..., Any]) -> None:
    model = new_policy().model
    hidden_NH = torch.randn(9, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    head = nn.Linear(64, 384)
    target_N = torch.arange(9) * 40
    model.config.logit_scale = 0.25
    shape = Policy(model, temperature=0.5).shape
    assert shape.scale == 0.5
    for dtype in (torch.float32, torch.bfloat16):
        found = TokenLogprobs.apply(hidden_NH, head.weight, head.bias, target_N, dataclasses.replace(shape, chunk=4), dtype)[0]
        expected = torch.log_softmax(head(hidden_NH) * 0.5, -1).gather(-1, target_N[:, None]).squeeze(-1)
        wanted = (hidden_NH, head.weight, head.bias)
        close = {"atol": 1e-5} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.05}
        assert torch.allclose(found, expected, **close)
        pairs = zip(torch.autograd.grad(found.sum(), wanted), torch.autograd.grad(expected.sum(), wanted), strict=True)
        assert all(one.dtype == torch.float32 and torch.allclose(one, other, **close) for one, other in pairs)


def test_autocast_computes_in_bfloat16_and_gives_float32(new_policy: Callable[..., Any]) -> None:
    policy = new_policy()
    batch = collate(group_rows(group_samples(groups=2, size=2)), PAD)
    exact = forward(policy, batch)[0]
    with torch.autocast("cpu", torch.bfloat16):
        rounded, entropies = forward(policy, batch)
    assert rounded.dtype == entropies.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.3
    rounded.sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in policy.parameters())


def most_held(work: Callable[[], Any]) -> int:
    """Most bytes that torch held at a time of what it asked for during the work, by its allocator's own account."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("chunk", "completions"), [(32, 10), (600, 10), (None, 70)])
def test_the_logits_of_all_tokens_never_exist(tmp_path: Path, dtype: torch.dtype, chunk: int | None, completions: int) -> None:
    """Of the model's forward pass and of the head, forwards and backwards; with a chunk of all tokens they do, and it is seen. Without a
    chunk being given, 4,200 tokens are more than one."""
    vocabulary = 6000
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=True, **sizes)).save_pretrained(tmp_path)
    policy = load_policy(str(tmp_path))
    if chunk is not None:
        policy.shape = dataclasses.replace(policy.shape, chunk=chunk)
    rng = random.Random(0)
    samples = [Sample(n, tokens(rng, 5, 5), tokens(rng, 60, 60)) for n in range(completions)]
    batch = collate(group_rows(samples, 2048), PAD)
    logits = batch.input_ids_BT.numel() * vocabulary * dtype.itemsize

    def work() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            logprobs_N, entropies_N = forward(policy, batch)
        (logprobs_N.sum() + entropies_N.sum()).backward()

    work()  # the copy in bfloat16, and gradients, are there before
    assert (most_held(work) < logits / 2) is (chunk != 600)


def test_the_head_projects_what_predicts_completion_tokens_and_nothing_twice(
    new_policy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts are most of a row; of a vocabulary of 152k, their logits would be most of the work."""
    policy, plain, logits = new_policy(), Scratch.products, [0]  # loading it probes it

    def counting(scratch: Scratch, hidden_nH: torch.Tensor, weight_vH: torch.Tensor, bias_v: Any) -> torch.Tensor:
        logits[0] += len(hidden_nH) * len(weight_vH)
        return plain(scratch, hidden_nH, weight_vH, bias_v)

    monkeypatch.setattr(Scratch, "products", counting)
    rng = random.Random(0)
    batch = collate(group_rows([Sample(n, tokens(rng, 100, 100), tokens(rng, 30, 30)) for n in range(3)]), PAD)
    assert len(batch.target_N) == 90 and batch.input_ids_BT.numel() > 3 * 128
    logprobs_N, _ = forward(policy, batch)
    assert logits == [128 * VOCAB]  # the products of a CPU come in sixty-fours
    logprobs_N.sum().backward()
    assert logits == [2 * 128 * VOCAB], "and once more for the gradient"


@pytest.mark.parametrize("count", [1, 700, 32_768, 65_536, 1_000_000])
def test_blocks_of_the_vocabulary_begin_where_a_gpu_is_fast(count: int) -> None:
    """Rows of a bfloat16 product that do not begin at multiples of 16 bytes go to slower kernels."""
    blocks = vocabulary_blocks(count, 151_936, 1024, on_cpu=False)
    assert blocks[0].start == 0 and blocks[-1].stop == 151_936
    assert all(one.stop == other.start and one.stop % 8 == 0 for one, other in pairwise(blocks))
    assert max(block.stop - block.start for block in blocks) * count <= 1024 * 151_936
