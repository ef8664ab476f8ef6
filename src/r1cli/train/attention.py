"""Attention of packed segments: no T x T mask, no padding between rows, a prefix computed once for all sequences behind it. This is how a
CPU computes it; a GPU does by `varlen.py`. Where segments are short, each is joined with its prefix instead and takes one pass, under a
mask of the bucket's own size (`Segments.joined`).

Shapes: _N packed tokens, _H query heads, _K key heads (H = K x R), _D head size, _E head size and what is appended to it; a bucket has
_S segments of _L tokens. The structure is described in `segments.py`.

The forward pass is torch's flash kernel, a call a bucket and a call a prefix; the two parts of a token's attention are joined by their
normalisers (FlashAttention-2, arXiv 2307.08691, section 2.3). torch's own backward kernel for CPUs runs at a tenth of the speed of matrix
products, so the backward pass is written as five products a block of queries. Each product is rounded to the computation type; to
keep that harmless, -normaliser (and -delta) ride along as further columns of the product, and what is rounded is log P itself, which is
close to 0 wherever P matters.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from r1cli.train import varlen
from r1cli.train.segments import Segments

NAME = "r1_segments"
BLOCK = 8_000_000  # scores held at a time; bounds memory at any length
EXTRA = 32  # columns appended; the matrix units take them in steps of 32


def segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    segments: Segments | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: [1, H, N, D] -> [1, N, H, D]. Without `segments` it is torch's, under the mask."""
    if segments is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    scale = options.get("scaling") or query.shape[-1] ** -0.5
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
    heads = [part[0].transpose(0, 1).to(dtype) for part in (query, key, value)]
    if kind == "cpu":
        return SegmentAttention.apply(*heads, segments, scale)[None], None
    return varlen.VarlenAttention.apply(*heads, segments.lengths(varlen.longest(heads[0], heads[1])), scale)[None], None


AttentionInterface.register(NAME, segment_attention)


def head_size(config: Any) -> int:
    text = config.get_text_config()
    return getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads


def computes(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Whether attention by segments is possible: on any CPU, and on a GPU that has the kernels. Else a mask says the same."""
    return device.type == "cpu" or varlen.usable(device, dtype, head_size)


class SegmentAttention(torch.autograd.Function):
    """(query [N, H, D], key [N, K, D], value [N, K, D], segments, scale) -> [N, H, D]."""

    @staticmethod
    def forward(ctx: Any, query_NHD: Tensor, key_NKD: Tensor, value_NKD: Tensor, segments: Segments, scale: float) -> Tensor:
        ctx.segments, ctx.scale = segments, scale
        if segments.joined:
            out_NHD, norm_NH = _joined_forward(query_NHD, key_NKD, value_NKD, segments, scale)
            ctx.save_for_backward(query_NHD, key_NKD, value_NKD, out_NHD, norm_NH)
            return out_NHD
        repeats = query_NHD.shape[1] // key_NKD.shape[1]
        key_NHD, value_NHD = _repeated(key_NKD, repeats), _repeated(value_NKD, repeats)
        out_NHD = torch.empty_like(query_NHD, memory_format=torch.contiguous_format)
        norm_NH = torch.empty(query_NHD.shape[:2], dtype=torch.float32, device=query_NHD.device)
        out_NHD[segments.used :], norm_NH[segments.used :] = 0, 0
        for index_SL in segments.buckets_SL:
            inside = index_SL.clamp(max=segments.count - 1)
            rows = [part[inside].transpose(1, 2) for part in (query_NHD, key_NHD, value_NHD)]
            out_SHLD, norm_SHL = _flash(*rows, causal=True, scale=scale)
            kept = index_SL < segments.count
            out_NHD[index_SL[kept]] = out_SHLD.transpose(1, 2)[kept]
            norm_NH[index_SL[kept]] = norm_SHL.transpose(1, 2)[kept]
        for part in segments.shared:
            behind, prefix = slice(part.middle, part.end), slice(part.start, part.middle)
            parts = [p.transpose(0, 1)[None] for p in (query_NHD[behind], key_NHD[prefix], value_NHD[prefix])]
            out_1HTD, norm_1HT = _flash(*parts, causal=False, scale=scale)
            _join(out_NHD[behind], norm_NH[behind], out_1HTD[0].transpose(0, 1), norm_1HT[0].transpose(0, 1))
        ctx.save_for_backward(query_NHD, key_NKD, value_NKD, out_NHD, norm_NH)
        return out_NHD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_NHD: Tensor) -> tuple[Tensor | None, ...]:
        query_NHD, key_NKD, value_NKD, out_NHD, norm_NH = ctx.saved_tensors
        tokens, heads, size = query_NHD.shape
        delta_NH = (d_out_NHD * out_NHD).sum(-1, dtype=torch.float32)
        query_NHE = _extended(query_NHD, -norm_NH / ctx.scale)
        d_out_NHE = _extended(d_out_NHD, -delta_NH)
        key_NKE, value_NKE = _extended(key_NKD, None), _extended(value_NKD, None)
        if ctx.segments.joined:
            parts = query_NHE, key_NKE, value_NKE, d_out_NHE
            return *_joined_gradients(*parts, ctx.segments, ctx.scale, key_NKD.dtype), None, None
        d_query_NHD = query_NHD.new_zeros(tokens + 1, heads, size)
        d_key_NKD = torch.zeros(tokens + 1, *key_NKD.shape[1:], dtype=torch.float32, device=key_NKD.device)
        d_value_NKD = torch.zeros_like(d_key_NKD)
        for index_SL in ctx.segments.buckets_SL:
            d_query, d_key, d_value = _block_gradients(
                query_NHE[index_SL], key_NKE[index_SL], value_NKE[index_SL], d_out_NHE[index_SL], ctx.scale, causal=True
            )
            d_query_NHD[index_SL], d_key_NKD[index_SL], d_value_NKD[index_SL] = d_query, d_key, d_value
        for part in ctx.segments.shared:
            behind, prefix = slice(part.middle, part.end), slice(part.start, part.middle)
            d_query, d_key, d_value = _block_gradients(
                query_NHE[None, behind], key_NKE[None, prefix], value_NKE[None, prefix], d_out_NHE[None, behind], ctx.scale, causal=False
            )
            d_query_NHD[behind] += d_query[0]
            d_key_NKD[prefix] += d_key[0]
            d_value_NKD[prefix] += d_value[0]
        return d_query_NHD[:-1], d_key_NKD[:-1].to(key_NKD.dtype), d_value_NKD[:-1].to(value_NKD.dtype), None, None


def _joined_forward(query_NHD: Tensor, key_NKD: Tensor, value_NKD: Tensor, segments: Segments, scale: float) -> tuple[Tensor, Tensor]:
    """(output [N, H, D], log of the softmax's divisor [N, H]) of segments joined with their prefixes."""
    tokens, heads, size = query_NHD.shape
    out = query_NHD.new_empty((tokens + 1) * heads, size)
    norm = torch.empty((tokens + 1) * heads, dtype=torch.float32, device=query_NHD.device)
    out[segments.used * heads :], norm[segments.used * heads :] = 0, 0
    for bucket in segments.joined:
        count, length = bucket.query_SL.shape
        rows = _head_rows(bucket.query_SL, heads, key_NKD.shape[1])
        inside, keys = rows.clamp(max=tokens * heads - 1), _head_rows(bucket.key_SM.clamp(max=tokens - 1), key_NKD.shape[1])
        query_SKQD = _gather(query_NHD, inside).view(count, key_NKD.shape[1], -1, size)
        key_SKMD, value_SKMD = (_gather(part, keys).view(count, key_NKD.shape[1], -1, size) for part in (key_NKD, value_NKD))
        bias_SLM = torch.zeros(bucket.hidden_SLM.shape, dtype=query_NHD.dtype).masked_fill_(bucket.hidden_SLM, float("-inf"))
        bias_S1QM = bias_SLM.repeat(1, query_SKQD.shape[2] // length, 1)[:, None]
        out_SKQD, norm_SKQ = _flash(query_SKQD, key_SKMD, value_SKMD, causal=False, scale=scale, bias=bias_S1QM)
        out.index_copy_(0, rows, out_SKQD.reshape(-1, size))
        norm[rows] = norm_SKQ.reshape(-1)
    return out.view(-1, heads, size)[:-1], norm.view(-1, heads)[:-1]


def _joined_gradients(
    query_NHE: Tensor, key_NKE: Tensor, value_NKE: Tensor, d_out_NHE: Tensor, segments: Segments, scale: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query [N, H, D], key and value [N, K, D] for segments joined with their prefixes; see `_block_gradients`."""
    rows, heads, extended = query_NHE.shape
    key_heads, size = key_NKE.shape[1], extended - EXTRA
    d_query = query_NHE.new_empty(rows * heads, size)
    d_query[segments.used * heads :] = 0
    d_key_NF, d_value_NF = (torch.zeros(rows, key_heads * size, dtype=torch.float32, device=query_NHE.device) for _ in range(2))
    for bucket in segments.joined:
        count, keys = bucket.key_SM.shape
        of_queries, of_keys = _head_rows(bucket.query_SL, heads, key_heads), _head_rows(bucket.key_SM, key_heads)
        query_XQE, d_out_XQE = (_gather(part, of_queries).view(count * key_heads, -1, extended) for part in (query_NHE, d_out_NHE))
        key_XME, value_XME = (_gather(part, of_keys).view(count * key_heads, keys, extended) for part in (key_NKE, value_NKE))
        probability_XQM = torch.bmm(query_XQE, key_XME.transpose(1, 2)).mul_(scale)
        hidden_S1QM = bucket.hidden_SLM.repeat(1, heads // key_heads, 1)[:, None]
        probability_XQM.view(count, key_heads, -1, keys).masked_fill_(hidden_S1QM, float("-inf"))
        probability_XQM.exp_()
        d_score_XQM = torch.bmm(d_out_XQE, value_XME.transpose(1, 2)).mul_(probability_XQM)
        d_query.index_copy_(0, of_queries, torch.bmm(d_score_XQM, key_XME[..., :size]).mul_(scale).view(-1, size))
        for d_part_NF, left_XQM, right_XQE in ((d_value_NF, probability_XQM, d_out_XQE), (d_key_NF, d_score_XQM, query_XQE)):
            d_part_XMD = torch.bmm(left_XQM.transpose(1, 2), right_XQE[..., :size])
            d_part_SMF = d_part_XMD.view(count, key_heads, keys, size).transpose(1, 2).float().reshape(count * keys, -1)
            d_part_NF.index_add_(0, bucket.key_SM.flatten(), d_part_SMF)  # a prefix is read by all sequences behind it
    d_key_NKD, d_value_NKD = (part[:-1].view(-1, key_heads, size).to(dtype) for part in (d_key_NF.mul_(scale), d_value_NF))
    return d_query.view(rows, heads, size)[:-1], d_key_NKD, d_value_NKD


def _head_rows(index_SL: Tensor, heads: int, key_heads: int | None = None) -> Tensor:
    """Rows of [N x heads, ...] in the order segment, key head, query head of it, token: what `_gather` takes."""
    groups = (heads, 1) if key_heads is None else (key_heads, heads // key_heads)
    head_KR1 = torch.arange(heads, device=index_SL.device).view(*groups, 1)
    return (index_SL[:, None, None, :] * heads + head_KR1).flatten()


def _gather(part_NHD: Tensor, rows: Tensor) -> Tensor:
    return part_NHD.reshape(-1, part_NHD.shape[-1]).index_select(0, rows)


def _flash(
    query_SHLD: Tensor, key_SHLD: Tensor, value_SHLD: Tensor, *, causal: bool, scale: float, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(output [S, H, L, D], log of the softmax's divisor [S, H, L])."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return flash(query_SHLD, key_SHLD, value_SHLD, 0.0, causal, attn_mask=bias, scale=scale)


def _repeated(part_NKD: Tensor, repeats: int) -> Tensor:
    return part_NKD if repeats == 1 else part_NKD.repeat_interleave(repeats, dim=1)


def _join(out_THD: Tensor, norm_TH: Tensor, other_THD: Tensor, other_norm_TH: Tensor) -> None:
    """Attention over two sets of keys from attention over each, into the first."""
    both_TH = torch.logaddexp(norm_TH, other_norm_TH)
    own_TH1, others_TH1 = (norm_TH - both_TH).exp_()[..., None], (other_norm_TH - both_TH).exp_()[..., None]
    out_THD.copy_(out_THD * own_TH1 + other_THD * others_TH1)
    norm_TH.copy_(both_TH)


def _extended(part_NHD: Tensor, column_NH: Tensor | None) -> Tensor:
    """[N + 1, H, E]: columns appended that add `column` to every product with a part whose columns are ones (`column` None).

    In bfloat16 the column is split into three that add up to it. Row N is all zero: it stands where a bucket has no token.
    """
    tokens, heads, size = part_NHD.shape
    extended = part_NHD.new_zeros(tokens + 1, heads, size + EXTRA)
    extended[:-1, :, :size] = part_NHD
    if column_NH is None:
        extended[:-1, :, size : size + 3] = 1
        return extended
    for place in range(3):
        rounded_NH = column_NH.to(part_NHD.dtype)
        extended[:-1, :, size + place] = rounded_NH
        column_NH = column_NH - rounded_NH.float()
    return extended


def _block_gradients(
    query_SLHE: Tensor, key_SMKE: Tensor, value_SMKE: Tensor, d_out_SLHE: Tensor, scale: float, *, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of attention from L queries to M keys: query [S, L, H, D], key and value [S, M, K, D]."""
    count, length, heads, extended = query_SLHE.shape
    keys, key_heads = key_SMKE.shape[1:3]
    size, repeats = extended - EXTRA, heads // key_heads
    key_XME, value_XME = (part.transpose(1, 2).reshape(count * key_heads, keys, extended) for part in (key_SMKE, value_SMKE))
    d_query_SLHD = query_SLHE.new_empty(count, length, heads, size)
    d_key_XMD = torch.zeros(count * key_heads, keys, size, dtype=torch.float32, device=query_SLHE.device)
    d_value_XMD = torch.zeros_like(d_key_XMD)
    for rows in _query_blocks(count * heads * keys, length):
        seen = rows.stop if causal else keys
        block = (count, rows.stop - rows.start, key_heads, repeats, extended)
        query_XQE, d_out_XQE = (
            part[:, rows].reshape(block).permute(0, 2, 3, 1, 4).reshape(count * key_heads, -1, extended)
            for part in (query_SLHE, d_out_SLHE)
        )
        probability_XQM = torch.bmm(query_XQE, key_XME[:, :seen].transpose(1, 2)).mul_(scale)
        if causal:
            _hide_later(probability_XQM, block[1], seen)
        probability_XQM.exp_()
        d_score_XQM = torch.bmm(d_out_XQE, value_XME[:, :seen].transpose(1, 2)).mul_(probability_XQM)
        d_value_XMD[:, :seen] += torch.bmm(probability_XQM.transpose(1, 2), d_out_XQE[..., :size])
        d_key_XMD[:, :seen] += torch.bmm(d_score_XQM.transpose(1, 2), query_XQE[..., :size])
        d_query_XQD = torch.bmm(d_score_XQM, key_XME[:, :seen, :size]).mul_(scale)
        d_query_SLHD[:, rows] = d_query_XQD.view(*block[:1], key_heads, repeats, block[1], size).permute(0, 3, 1, 2, 4).flatten(2, 3)
    d_key_SMKD, d_value_SMKD = (part.view(count, key_heads, keys, size).transpose(1, 2) for part in (d_key_XMD.mul_(scale), d_value_XMD))
    return d_query_SLHD, d_key_SMKD, d_value_SMKD


def _query_blocks(scores_a_query: int, length: int) -> Iterator[slice]:
    """Runs of queries whose scores stay within BLOCK."""
    step = max(1, BLOCK // scores_a_query)
    step = math.ceil(length / math.ceil(length / step))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def _hide_later(score_XQM: Tensor, queries: int, keys: int) -> None:
    """Set the scores of keys after their query to -inf; the last query sees the last key."""
    later_QM = torch.ones(queries, keys, dtype=torch.bool, device=score_XQM.device).triu(keys - queries + 1)
    score_XQM.view(-1, queries, keys).masked_fill_(later_QM, float("-inf"))
