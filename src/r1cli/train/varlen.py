"""Attention of packed segments on a GPU: the FlashAttention kernels that torch brings, for sequences of any length laid end to end.

No mask and no padding: a micro-batch costs what its tokens cost, and memory grows with them and not with their square. Long segments are
taken one by one by cuDNN's kernels instead, where those are faster (`longest`). What a token behind a shared prefix sees is two sets of
keys, its own segment and the prefix: a kernel call for each, joined by their normalisers. The backward kernels are given the joint output
and normaliser, from which each finds its part of the probabilities (FlashAttention-2, arXiv 2307.08691, sections 2.3 and 3.1).

Shapes: _N packed tokens, _H query heads, _K key heads, _D head size, _Q tokens behind a prefix, _P tokens of those prefixes.
"""

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from r1cli.train.segments import Ends, Lengths

LARGEST_HEAD = 256  # elements; the kernels know no larger head
CUDNN_HEAD = 128
LONG = 2048  # tokens; a shorter segment by itself does not fill a GPU
STEP = 1024  # tokens; cuDNN makes a plan (half a second) for each new length, so segments are filled up to multiples of this or more


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


def longest(query: Tensor, key: Tensor) -> int | None:
    """Tokens of a segment from which on cuDNN's kernels compute it: on Hopper and later GPUs they are twice as fast as FlashAttention-2.

    query [N, H, D], key [N, K, D]
    """
    (_, heads, size), key_heads = query.shape, key.shape[1]
    if not query.is_cuda or size > CUDNN_HEAD or torch.cuda.get_device_capability(query.device) < (9, 0):
        return None
    return LONG if _cudnn_agrees(heads, key_heads, size, query.dtype, query.device) else None


@cache
@torch.no_grad()
def _cudnn_agrees(heads: int, key_heads: int, size: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether cuDNN's kernels take such heads, and say what FlashAttention's say of a sequence that is filled up. Asked once."""
    draws = torch.Generator(device).manual_seed(0)
    shapes = [(STEP - 24, count, size) for count in (heads, heads, key_heads, key_heads)]
    d_out, query, key, value = (torch.randn(shape, generator=draws, dtype=dtype, device=device) for shape in shapes)
    ends, scale = Ends.of([STEP - 24], device), size**-0.5
    out, norm = forward_kernel(query, key, value, ends, ends, causal=True, scale=scale)
    expected = [out, norm, *backward_kernel(d_out, query, key, value, out, norm, ends, ends, causal=True, scale=scale)]
    try:
        found = [*long_forward(query, key, value, scale), *long_backward(d_out, query, key, value, out, norm, scale)]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # no plan for it, or a torch without cuDNN
        found, why = [], str(error).partition("\n")[0]
    else:
        why = "other results than FlashAttention's"
    pairs = [(one.float(), other.float()) for one, other in zip(found, expected, strict=False)]
    if pairs and all(torch.dist(one, other) < 0.02 * torch.linalg.vector_norm(other) for one, other in pairs):
        return True
    logging.getLogger("r1cli").warning("long sequences take FlashAttention-2 and not cuDNN's attention: %s", why)
    return False


class VarlenAttention(torch.autograd.Function):
    """(query [N, H, D], key [N, K, D], value [N, K, D], lengths, scale) -> [N, H, D]."""

    @staticmethod
    def forward(ctx: Any, query_NHD: Tensor, key_NKD: Tensor, value_NKD: Tensor, lengths: Lengths, scale: float) -> Tensor:
        out_NHD, norm_HN = _own_forward(query_NHD, key_NKD, value_NKD, lengths, scale)
        if lengths.behind is not None:
            after_Q, before_P, *both = lengths.behind
            parts = query_NHD[after_Q], key_NKD[before_P], value_NKD[before_P]
            other_QHD, other_HQ = forward_kernel(*parts, *both, causal=False, scale=scale)
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
        lengths, scale = ctx.lengths, ctx.scale
        parts = d_out_NHD.contiguous(), query_NHD, key_NKD, value_NKD, out_NHD
        found = _own_backward(*parts, norm_HN, lengths, scale)
        if lengths.behind is not None:
            after_Q, before_P, *both = lengths.behind
            d_out, query, key, value, out = parts
            some = backward_kernel(
                d_out[after_Q], query[after_Q], key[before_P], value[before_P], out[after_Q], norm_HN[:, after_Q].contiguous(), *both,
                causal=False, scale=scale,
            )  # fmt: skip
            for whole, rows, part in zip(found, (after_Q, before_P, before_P), some, strict=True):
                whole.index_add_(0, rows, part)
        return *found, None, None


def _own_forward(query: Tensor, key: Tensor, value: Tensor, lengths: Lengths, scale: float) -> tuple[Tensor, Tensor]:
    """(output [N, H, D], log of the softmax's divisor [H, N]) of every segment by itself."""
    if lengths.long == [slice(0, len(query))]:
        return long_forward(query, key, value, scale)
    out_NHD = torch.empty_like(query, memory_format=torch.contiguous_format)
    norm_HN = query.new_empty(query.shape[1::-1], dtype=torch.promote_types(query.dtype, torch.float32))
    if lengths.short is not None:
        rows, ends = lengths.short
        out_NHD[rows], norm_HN[:, rows] = forward_kernel(query[rows], key[rows], value[rows], ends, ends, causal=True, scale=scale)
    for place in lengths.long:
        out_NHD[place], norm_HN[:, place] = long_forward(query[place], key[place], value[place], scale)
    return out_NHD, norm_HN


def _own_backward(
    d_out: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, norm_HN: Tensor, lengths: Lengths, scale: float
) -> tuple[Tensor, ...]:
    """Gradients of query, key and value of every segment by itself."""
    if lengths.long == [slice(0, len(query))]:
        return long_backward(d_out, query, key, value, out, norm_HN, scale)
    found = tuple(torch.empty_like(part, memory_format=torch.contiguous_format) for part in (query, key, value))

    def fill(rows: Tensor | slice, some: tuple[Tensor, ...]) -> None:
        for whole, part in zip(found, some, strict=True):
            whole[rows] = part

    if lengths.short is not None:
        rows, ends = lengths.short
        some = d_out[rows], query[rows], key[rows], value[rows], out[rows], norm_HN[:, rows].contiguous()
        fill(rows, backward_kernel(*some, ends, ends, causal=True, scale=scale))
    for place in lengths.long:
        fill(place, long_backward(d_out[place], query[place], key[place], value[place], out[place], norm_HN[:, place], scale))
    return found


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


def long_forward(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """(output [N, H, D], log of the softmax's divisor [H, N]) of one sequence, causal. Keys that fill it up are seen by no query of it."""
    query_1HLD, key_1KLD, value_1KLD = (_filled_up(part, whole_steps(len(query))) for part in (query, key, value))
    out_1HLD, norm_1HL1 = cudnn_forward_kernel(query_1HLD, key_1KLD, value_1KLD, scale)
    return out_1HLD[0].transpose(0, 1)[: len(query)], norm_1HL1[0, :, : len(query), 0]


def long_backward(
    d_out: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, norm_HN: Tensor, scale: float
) -> tuple[Tensor, ...]:
    """Gradients of query, key and value. Queries that fill the sequence up add nothing: the gradient of their output is zero."""
    length = whole_steps(len(query))
    d_out_1HLD, query_1HLD, key_1KLD, value_1KLD, out_1HLD = (_filled_up(part, length) for part in (d_out, query, key, value, out))
    norm_1HL1 = pad(norm_HN, (0, length - len(query)))[None, ..., None].contiguous()
    found = cudnn_backward_kernel(d_out_1HLD, query_1HLD, key_1KLD, value_1KLD, out_1HLD, norm_1HL1, scale)
    return tuple(part[0].transpose(0, 1)[: len(query)] for part in found)


def cudnn_forward_kernel(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """(output [1, H, L, D], log of the softmax's divisor [1, H, L, 1]) of causal attention: query [1, H, L, D], key, value [1, K, L, D]."""
    out, norm, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(query, key, value, None, True, 0.0, True, False, scale=scale)
    return out, norm


def cudnn_backward_kernel(
    d_out: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, norm: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value. The random state is that of a dropout that there is not."""
    state, length = torch.zeros((), dtype=torch.int64, device=query.device), query.shape[2]
    given = d_out, query, key, value, out, norm, state, state, None, None, None, length, length, 0.0, True
    return torch.ops.aten._scaled_dot_product_cudnn_attention_backward(*given, scale=scale)


def whole_steps(length: int) -> int:
    """The length, filled up to one of eight between a power of two and the next, and to a multiple of STEP."""
    step = max(STEP, 1 << max(0, length.bit_length() - 4))
    return -(-length // step) * step


def _filled_up(part_NHD: Tensor, length: int) -> Tensor:
    """[1, H, length, D]"""
    filled = part_NHD if len(part_NHD) == length else pad(part_NHD, (0, 0, 0, 0, 0, length - len(part_NHD)))
    return filled.transpose(0, 1)[None]
