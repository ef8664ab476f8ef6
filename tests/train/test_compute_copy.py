"""The bfloat16 copy of a model, its attention and its layers, against torch's own operations in double precision."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from r1cli.train import attention, logprobs
from r1cli.train import segments as segments_module
from r1cli.train.attention import SegmentAttention
from r1cli.train.batches import collate, dense_mask, group_rows
from r1cli.train.compute_copy import ComputeCopy
from r1cli.train.optimiser import OptimiserConfig, build_optimiser
from r1cli.train.segments import PADDING, PREFIX, Segments
from r1cli.train.update import forward
from tests.train.toy import PAD, group_samples, largest_difference, layer_passes, weights

ROUGH = {torch.float32: 2e-6, torch.bfloat16: 1e-2}

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def distance(found: Tensor, expected: Tensor) -> float:
    """Relative, in the 2-norm."""
    return float((found.detach().double() - expected.detach().double()).norm() / expected.detach().double().norm())


def random_marks(seed: int) -> Tensor:
    """Rows with and without a shared prefix, of uneven length."""
    rng = random.Random(seed)
    rows = []
    for shared in (True, False, True, False):
        row = [PREFIX] * (rng.randint(1, 20) if shared else 0)
        for number in range(1, rng.randint(2, 6)):
            row += [number] * rng.randint(1, 30)
        rows.append(row)
    width = max(map(len, rows))
    return torch.tensor([row + [PADDING] * (width - len(row)) for row in rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("step", [1, 64])
@pytest.mark.parametrize(("joined", "block"), [(0, 200), (0, 8_000_000), (1_000_000, 8_000_000)])
def test_attention_by_segments_is_attention_under_the_mask(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, joined: int, block: int, step: int
) -> None:
    """With a step of 64 there are tokens that only fill up: nothing comes out of them and nothing goes back into them."""
    monkeypatch.setattr(attention, "BLOCK", block)
    monkeypatch.setattr(segments_module, "JOINED", joined)
    marks_BT = random_marks(block)
    segments = Segments.of(marks_BT, step)
    used = slice(0, segments.used)
    assert segments.used == (marks_BT != PADDING).sum()
    assert segments.count % step == 0
    assert bool(segments.joined) == bool(joined)
    torch.manual_seed(1)
    heads = [torch.randn(segments.count, count, 32).to(dtype).requires_grad_() for count in (6, 2, 2)]
    slope_NHD = torch.randn(segments.count, 6, 32).to(dtype)
    out_NHD = SegmentAttention.apply(*heads, segments, 0.2)
    found = torch.autograd.grad(out_NHD, heads, slope_NHD)
    assert not any(part[segments.used :].any() for part in (out_NHD, *found))

    plain = [part.detach().double()[used].requires_grad_() for part in heads]
    rows = [torch.zeros(marks_BT.numel(), *p.shape[1:], dtype=torch.float64).index_add(0, segments.keep_N[used], p) for p in plain]
    batched = [part.view(*marks_BT.shape, *part.shape[1:]).transpose(1, 2) for part in rows]
    query, key, value = batched
    out = scaled_dot_product_attention(query, key, value, attn_mask=dense_mask(marks_BT), scale=0.2, enable_gqa=True)
    out = out.transpose(1, 2).flatten(0, 1)[segments.keep_N[used]]
    expected = torch.autograd.grad(out, plain, slope_NHD[used].double())
    assert distance(out_NHD[used], out) < ROUGH[dtype]
    assert all(distance(one[used], other) < ROUGH[dtype] for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    "kind", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
)
def test_gradients_add_up_in_float32_and_are_no_rougher_than_torch_s_own(new_policy: Callable[..., Any], kind: str) -> None:
    """The yardstick is the distance of the plain bfloat16 model, torch's attention and autograd, from the float32 one."""
    policy, exact, plain = (new_policy().to(kind) for _ in range(3))
    plain.model.to(torch.bfloat16).set_attn_implementation("sdpa")
    batch = collate(group_rows(group_samples(groups=2, size=3)), PAD).to(torch.device(kind))
    for _ in range(2):
        with torch.autocast(kind, torch.bfloat16):
            rough_N = forward(policy, batch)[0]
        exact_N, plain_N = forward(exact, batch)[0], forward(plain, batch)[0]
        for logprobs_N in (rough_N, exact_N, plain_N):
            logprobs_N.sum().backward()
    replaced = {type(module).__name__ for module in policy.computing()[-1].modules() if "forward" in module.__dict__}
    assert replaced >= {"Linear", "Embedding", "LlamaRMSNorm", "LlamaMLP"} and ("LlamaAttention" in replaced) == (kind == "cuda")
    assert distance(rough_N, exact_N) < 1.5 * distance(plain_N, exact_N)
    for (name, one), other, usual in zip(policy.named_parameters(), exact.parameters(), plain.parameters(), strict=True):
        assert one.grad.dtype == torch.float32 and distance(one.grad, other.grad) < 1.5 * distance(usual.grad, other.grad), name
    assert all("copy" not in name for name in policy.state_dict())


@pytest.mark.parametrize("mover", ["fused AdamW", "SGD", "in place", "loaded"])
def test_the_copy_follows_the_weights(new_policy: Callable[..., Any], mover: str) -> None:
    policy = new_policy()
    copied = ComputeCopy(policy.model, torch.bfloat16)
    before = weights(copied.fresh())
    if mover == "in place":
        with torch.no_grad():
            policy.model.get_output_embeddings().weight.mul_(2)
    elif mover == "loaded":
        policy.load_state_dict({name: value * 3 for name, value in policy.state_dict().items()})
    else:
        rule = build_optimiser(policy.parameters(), OptimiserConfig(lr=0.5)) if "Adam" in mover else torch.optim.SGD(policy.parameters())
        for weight in policy.parameters():
            weight.grad = torch.full_like(weight, 9.0)
        rule.step()
    after = weights(copied.fresh())
    assert largest_difference(before, after) > 1e-3
    assert all(torch.equal(after[name], weight.bfloat16()) for name, weight in policy.model.named_parameters())


def test_gradient_checkpointing_recomputes_with_the_copy(new_policy: Callable[..., Any]) -> None:
    batch = collate(group_rows(group_samples(groups=2, size=2)), PAD)
    found = []
    for checkpointing in (False, True):
        policy = new_policy(gradient_checkpointing=checkpointing).train()
        with layer_passes() as passes:
            with torch.autocast("cpu", torch.bfloat16):
                logprobs, _ = forward(policy, batch)
            logprobs.sum().backward()
        assert len(passes) == 2 * (1 + checkpointing)
        found.append([p.grad for p in policy.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_sharded_weights_compute_under_autocast(new_policy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """FSDP's hooks are on the float32 weights: these must take part in the backward pass themselves."""
    batch = collate(group_rows(group_samples(groups=2, size=3)), PAD)
    exact, policy = new_policy(), new_policy()
    forward(exact, batch)[0].sum().backward()
    monkeypatch.setattr(logprobs, "WHOLE", ())
    touched: list[Tensor] = []
    for weight in policy.parameters():
        weight.register_post_accumulate_grad_hook(touched.append)
    with torch.autocast("cpu", torch.bfloat16):
        logprobs_N, _ = forward(policy, batch)
    logprobs_N.sum().backward()
    assert len(touched) == len(list(policy.parameters()))
    together = [torch.cat([p.grad.flatten() for p in each.parameters()]) for each in (policy, exact)]
    assert distance(*together) < 0.1


def test_the_optimizer_of_another_model_does_not_reach_the_copy(new_policy: Callable[..., Any]) -> None:
    policy, other = new_policy(), new_policy()
    copied = ComputeCopy(policy.model, torch.bfloat16)
    for parameter in other.parameters():
        parameter.grad = torch.ones_like(parameter)
    build_optimiser(other.parameters(), OptimiserConfig(lr=0.1)).step()
    assert not copied.stale


def test_a_process_group_of_one_changes_nothing(new_policy: Callable[..., Any], tmp_path: Path) -> None:
    """vLLM in the process of a trainer starts torch.distributed; the trainer is alone all the same."""
    policy = new_policy()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        assert policy._computing(torch.bfloat16) is not policy.model
    finally:
        torch.distributed.destroy_process_group()
