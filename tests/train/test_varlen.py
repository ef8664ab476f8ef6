"""Attention by FlashAttention's kernels for uneven lengths. Without a GPU the kernels are stood in for by the same mathematics, written
out; that torch's own take what they are given is asked of its shape inference, and a GPU compares the kernels themselves."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from r1cli.train import varlen
from r1cli.train.attention import computes, segment_attention
from r1cli.train.batches import dense_mask
from r1cli.train.segments import PADDING, PREFIX, Ends, Segments
from r1cli.train.varlen import VarlenAttention
from tests.train.test_compute_copy import distance, random_marks

SCALE = 0.2


def sequences(of_queries: Ends, of_keys: Ends) -> Iterator[tuple[slice, slice]]:
    queries, keys = of_queries.offsets.tolist(), of_keys.offsets.tolist()
    for place in range(len(queries) - 1):
        yield slice(queries[place], queries[place + 1]), slice(keys[place], keys[place + 1])


def scores(query_LHD: Tensor, key_MKD: Tensor, *, causal: bool, scale: float) -> Tensor:
    """[H, L, M]"""
    key_MHD = key_MKD.repeat_interleave(query_LHD.shape[1] // key_MKD.shape[1], 1)
    found = torch.einsum("lhd,mhd->hlm", query_LHD, key_MHD) * scale
    return found.masked_fill(torch.ones(found.shape[1:], dtype=torch.bool).triu(1), float("-inf")) if causal else found


def forward_kernel(query: Tensor, key: Tensor, value: Tensor, of_queries: Ends, of_keys: Ends, **how: Any) -> tuple[Tensor, Tensor]:
    out, norm = torch.empty_like(query), query.new_empty(query.shape[1], len(query))
    for rows, seen in sequences(of_queries, of_keys):
        found = scores(query[rows], key[seen], **how)
        norm[:, rows] = found.logsumexp(-1)
        out[rows] = torch.einsum("hlm,mhd->lhd", found.softmax(-1), value[seen].repeat_interleave(query.shape[1] // value.shape[1], 1))
    return out, norm


def backward_kernel(
    d_out: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, norm: Tensor, of_queries: Ends, of_keys: Ends, **how: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """FlashAttention-2, algorithm 2: probabilities from the normaliser given, not from the scores of this call."""
    d_query, d_key, d_value = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
    repeats = query.shape[1] // key.shape[1]
    for rows, seen in sequences(of_queries, of_keys):
        chance = (scores(query[rows], key[seen], **how) - norm[:, rows, None]).exp()
        d_chance = torch.einsum("lhd,mhd->hlm", d_out[rows], value[seen].repeat_interleave(repeats, 1))
        d_score = chance * (d_chance - (d_out[rows] * out[rows]).sum(-1).T[..., None]) * how["scale"]
        d_query[rows] = torch.einsum("hlm,mhd->lhd", d_score, key[seen].repeat_interleave(repeats, 1))
        for whole, left, right in ((d_key, d_score, query[rows]), (d_value, chance, d_out[rows])):
            whole[seen] = torch.einsum("hlm,lhd->mhd", left, right).unflatten(1, (-1, repeats)).sum(2)
    return d_query, d_key, d_value


def cudnn_forward_kernel(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    ends = Ends.of([query.shape[2]], query.device)
    rows = [part[0].transpose(0, 1) for part in (query, key, value)]
    out, norm = forward_kernel(rows[0], rows[1], rows[2], ends, ends, causal=True, scale=scale)
    return out.transpose(0, 1)[None], norm[None, ..., None]


def cudnn_backward_kernel(
    d_out: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, norm: Tensor, scale: float
) -> tuple[Tensor, ...]:
    ends = Ends.of([query.shape[2]], query.device)
    rows = [part[0].transpose(0, 1) for part in (d_out, query, key, value, out)]
    found = backward_kernel(rows[0], rows[1], rows[2], rows[3], rows[4], norm[0, ..., 0], ends, ends, causal=True, scale=scale)
    return tuple(part.transpose(0, 1)[None] for part in found)


def under_the_mask(heads: list[Tensor], segments: Segments, marks_BT: Tensor) -> Tensor:
    rows = [torch.zeros(marks_BT.numel(), *p.shape[1:], dtype=p.dtype, device=p.device).index_add(0, segments.keep_N, p) for p in heads]
    query, key, value = (part.view(*marks_BT.shape, *part.shape[1:]).transpose(1, 2) for part in rows)
    mask = dense_mask(marks_BT)
    out = scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, scale=SCALE, enable_gqa=True)
    return out.transpose(1, 2).flatten(0, 1)[segments.keep_N]


ROWS = {
    "shared prefixes": random_marks(5),
    "none": torch.tensor([[1, 1, 1, PADDING], [1, 1, 1, 1]]),
    "a prefix alone": torch.tensor([[PREFIX] * 3]),
}


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("longest", [None, 4, 1])
def test_calls_joined_are_attention_under_the_mask(monkeypatch: pytest.MonkeyPatch, rows: str, longest: int | None) -> None:
    for stand_in in (forward_kernel, backward_kernel, cudnn_forward_kernel, cudnn_backward_kernel):
        monkeypatch.setattr(varlen, stand_in.__name__, stand_in)
    monkeypatch.setattr(varlen, "STEP", 3)
    segments = Segments.of(ROWS[rows])
    torch.manual_seed(1)
    heads = [torch.randn(segments.count, count, 16, dtype=torch.float64).requires_grad_() for count in (6, 2, 2)]
    slope_NHD = torch.randn(segments.count, 6, 16, dtype=torch.float64)
    out_NHD = VarlenAttention.apply(*heads, segments.lengths(longest), SCALE)
    expected = under_the_mask(heads, segments, ROWS[rows])
    assert distance(out_NHD, expected) < 1e-12
    for one, other in zip(torch.autograd.grad(out_NHD, heads, slope_NHD), torch.autograd.grad(expected, heads, slope_NHD), strict=True):
        assert distance(one, other) < 1e-12


def test_torch_s_kernels_take_what_they_are_given() -> None:
    """Its shape inference: the normaliser is [H, N], keys may have fewer heads than queries, and be of other sequences."""
    segments = Segments.of(random_marks(5))
    after, before, *ends = segments.lengths(None).behind or pytest.fail("no shared prefix")
    query, key = torch.empty(len(after), 6, 32, device="meta"), torch.empty(len(before), 2, 32, device="meta")
    query, key = query.bfloat16(), key.bfloat16()
    ends = [Ends(end.offsets.to("meta"), end.longest) for end in ends]
    out, norm = varlen.forward_kernel(query, key, key, *ends, causal=False, scale=SCALE)
    assert out.shape == query.shape and norm.shape == (6, len(after)) and norm.dtype == torch.float32
    found = varlen.backward_kernel(out, query, key, key, out, norm, *ends, causal=False, scale=SCALE)
    assert [part.shape for part in found] == [query.shape, key.shape, key.shape]


def test_cudnn_s_kernels_take_what_they_are_given() -> None:
    query, key = torch.empty(1, 6, 2048, 128, device="meta"), torch.empty(1, 2, 2048, 128, device="meta")
    out, norm = varlen.cudnn_forward_kernel(query, key, key, SCALE)
    assert out.shape == query.shape and norm.shape == (1, 6, 2048, 1)
    assert [part.shape for part in varlen.cudnn_backward_kernel(out, query, key, key, out, norm, SCALE)] == [
        query.shape,
        key.shape,
        key.shape,
    ]


@pytest.mark.parametrize(("length", "filled"), [(1, 1024), (1024, 1024), (2049, 3072), (8193, 9216), (17000, 18432), (32769, 36864)])
def test_long_segments_come_in_few_lengths(length: int, filled: int) -> None:
    assert varlen.whole_steps(length) == filled


@pytest.mark.parametrize("kind", ["agrees", "no plan", "another sum"])
def test_cudnn_is_asked_before_it_is_trusted(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    def wrong(*given: Any) -> Any:
        if kind == "no plan":
            raise RuntimeError("No valid execution plans built\nand more")
        return tuple(1.1 * part for part in cudnn_backward_kernel(*given))

    for stand_in in (forward_kernel, backward_kernel, cudnn_forward_kernel):
        monkeypatch.setattr(varlen, stand_in.__name__, stand_in)
    monkeypatch.setattr(varlen, "cudnn_backward_kernel", cudnn_backward_kernel if kind == "agrees" else wrong)
    monkeypatch.setattr(varlen, "STEP", 40)
    asked = varlen._cudnn_agrees.__wrapped__
    assert asked(6, 2, 16, torch.float32, torch.device("cpu")) == (kind == "agrees")
    said = {"agrees": "", "no plan": "No valid execution plans built", "another sum": "other results than FlashAttention's"}[kind]
    assert said in caplog.text and len(caplog.records) == (kind != "agrees")


def test_other_devices_and_types_keep_the_mask() -> None:
    assert computes(torch.device("cpu"), torch.float32, 7)
    assert not computes(torch.device("cuda"), torch.float32, 64)
    assert not computes(torch.device("cuda"), torch.bfloat16, 20) and not computes(torch.device("cuda"), torch.bfloat16, 320)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("longest", [None, 4, 1])
def test_the_kernels_of_a_gpu(monkeypatch: pytest.MonkeyPatch, rows: str, longest: int | None) -> None:
    """longest: cuDNN's kernels, which are Hopper's and later ones', from so many tokens on."""
    if longest is not None and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("needs a Hopper GPU")
    monkeypatch.setattr(varlen, "longest", lambda *_: longest)
    marks_BT = ROWS[rows].to("cuda")
    segments = Segments.of(marks_BT)
    torch.manual_seed(1)
    heads = [torch.randn(1, count, segments.count, 64, dtype=torch.bfloat16, device="cuda").requires_grad_() for count in (6, 2, 2)]
    query, key, value = heads
    out, _ = segment_attention(torch.nn.Module(), query, key, value, None, segments, scaling=SCALE)
    slope = torch.randn_like(out)
    plain = [part.detach().double().requires_grad_() for part in heads]
    expected = under_the_mask([part[0].transpose(0, 1) for part in plain], segments, marks_BT)[None]
    assert distance(out, expected) < 1e-2
    for one, other in zip(torch.autograd.grad(out, heads, slope), torch.autograd.grad(expected, plain, slope.double()), strict=True):
        assert distance(one, other) < 2e-2
