"""Attention of packed segments on a GPU: the FlashAttention kernels that torch brings, for sequences of any length laid end to end.

No mask and no padding: a micro-batch costs what its tokens cost, and memory grows with them and not with their square. What a token behind
a shared prefix sees is two sets of keys, its own segment and the prefix: a kernel call for each, joined by their normalisers. The backward
kernels are given the joint output and normaliser, from which each finds its part of the probabilities
(FlashAttention-2, arXiv 2307.08691, sections 2.3 and 3.1).

Shapes: _N packed tokens, _H query heads, _K key heads, _D head size, _Q tokens behind a prefix, _P tokens of those prefixes.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from r1cli.train.segments import Ends, Lengths

LARGEST_HEAD = 256  # elements; the kernels know no larger head


def usable(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Whether the kernels compute this: half precision on an NVIDIA GPU from Ampere on, heads in steps of 8 up to LARGEST_HEAD."""
    return (
        device.type == "cuda"
        and torch.version.cuda is not None
        and torch.backends.cuda.is_flash_attention_available()
        and dtype in (torch.float16, torch.bfloat16)
        and head_size % 8 == 0
        and head_size <= LARGEST_HEAD
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


class VarlenAttention(torch.autograd.Function):
    """(query [N, H, D], key [N, K, D], value [N, K, D], lengths, scale) -> [N, H, D]."""

    @staticmethod
    def forward(ctx: Any, query_NHD: Tensor, key_NKD: Tensor, value_NKD: Tensor, lengths: Lengths, scale: float) -> Tensor:
        out_NHD, norm_HN = forward_kernel(query_NHD, key_NKD, value_NKD, lengths.own, lengths.own, causal=True, scale=scale)
        if lengths.behind is not None:
            after_Q, before_P, *ends = lengths.behind
            parts = query_NHD[after_Q], key_NKD[before_P], value_NKD[before_P]
            other_QHD, other_HQ = forward_kernel(*parts, *ends, causal=False, scale=scale)
            own_HQ = norm_HN[:, after_Q]
            both_HQ = torch.logaddexp(own_HQ, other_HQ)
            shares = [(part - both_HQ).exp().T[..., None] for part in (own_HQ, other_HQ)]
            out_NHD[after_Q] = (out_NHD[after_Q] * shares[0] + other_QHD * shares[1]).to(out_NHD.dtype)
            norm_HN[:, after_Q] = both_HQ
        ctx.save_for_backward(query_NHD, key_NKD, value_NKD, out_NHD, norm_HN)
        ctx.lengths, ctx.scale = lengths, scale
        return out_NHD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_NHD: Tensor) -> tuple[Tensor | None, ...]:
        query_NHD, key_NKD, value_NKD, out_NHD, norm_HN = ctx.saved_tensors
        own, scale = ctx.lengths.own, ctx.scale
        d_out_NHD = d_out_NHD.contiguous()
        d_query, d_key, d_value = backward_kernel(
            d_out_NHD, query_NHD, key_NKD, value_NKD, out_NHD, norm_HN, own, own, causal=True, scale=scale
        )
        if ctx.lengths.behind is not None:
            after_Q, before_P, *ends = ctx.lengths.behind
            parts = d_out_NHD[after_Q], query_NHD[after_Q], key_NKD[before_P], value_NKD[before_P], out_NHD[after_Q]
            found = backward_kernel(*parts, norm_HN[:, after_Q].contiguous(), *ends, causal=False, scale=scale)
            for whole, rows, part in zip((d_query, d_key, d_value), (after_Q, before_P, before_P), found, strict=True):
                whole.index_add_(0, rows, part)
        return d_query, d_key, d_value, None, None


def forward_kernel(query: Tensor, key: Tensor, value: Tensor, of_queries: Ends, of_keys: Ends, **how: Any) -> tuple[Tensor, Tensor]:
    """(output [N, H, D], log of the softmax's divisor [H, N]) of sequences end to end; queries and keys may have other lengths."""
    ends = of_queries.offsets, of_keys.offsets, of_queries.longest, of_keys.longest
    out, norm, *_ = torch.ops.aten._flash_attention_forward(query, key, value, *ends, 0.0, how["causal"], False, scale=how["scale"])
    return out, norm


def backward_kernel(
    d_out: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, norm: Tensor, of_queries: Ends, of_keys: Ends, **how: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value. Without dropout the random state is not looked at."""
    ends = of_queries.offsets, of_keys.offsets, of_queries.longest, of_keys.longest
    random_state, unused = torch.zeros(2, dtype=torch.uint64, device=query.device), torch.empty(0, device=query.device)
    given = d_out, query, key, value, out, norm, *ends, 0.0, how["causal"], random_state, unused
    return torch.ops.aten._flash_attention_backward(*given, scale=how["scale"])
