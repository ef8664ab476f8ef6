"""Triton kernel for the attention of one new token a sequence to all that came before it.

torch's kernel under a mask gives all of a sequence's columns to one program, which waits for memory most of the time; here PART columns are
a program's, and what lies behind the newest column is not read. Parts are joined by their maxima and sums (FlashAttention-2,
arXiv 2307.08691, section 2.3). Import it only beside an NVIDIA GPU or under Triton's interpreter.

Shapes: _B sequences, _T columns, _H query heads, _K key heads (H = K x R), _D head size, _P parts.
"""

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

PART = 256  # columns of a program
BLOCK = 64  # columns it reads at a time


def attend(query_BHD: Tensor, key_BKTD: Tensor, value_BKTD: Tensor, mask_BT: Tensor, newest_1: Tensor, scale: float) -> Tensor:
    """[B, H, D] of softmax(scale * query key' + mask) value over the columns up to the newest, whose number is `newest_1`.

    mask_BT: 0 or the lowest number of the type. All contiguous; the newest column is not masked.
    """
    rows, heads, size = query_BHD.shape
    key_heads, columns = key_BKTD.shape[1:3]
    shared, parts = heads // key_heads, triton.cdiv(columns, PART)
    lanes, padded = max(16, triton.next_power_of_2(shared)), triton.next_power_of_2(size)
    sums = torch.empty(rows * key_heads, parts, shared, size, dtype=torch.float32, device=query_BHD.device)
    figures = torch.empty(2, rows * key_heads, parts, shared, dtype=torch.float32, device=query_BHD.device)
    out_BHD = torch.empty_like(query_BHD)
    _part[(rows * key_heads, parts)](
        query_BHD, key_BKTD, value_BKTD, mask_BT, newest_1, sums, figures[0], figures[1], columns, scale,
        HEADS=key_heads, SHARED=shared, SIZE=size, LANES=lanes, PADDED=max(16, padded), PART=PART, BLOCK=BLOCK, num_warps=4, num_stages=3,
    )  # fmt: skip
    _joined[(rows * key_heads, shared)](sums, figures[0], figures[1], out_BHD, parts, SHARED=shared, SIZE=size, PADDED=padded, num_warps=2)
    return out_BHD


@triton.jit
def _part(  # type: ignore[no-untyped-def]
    query_ptr, key_ptr, value_ptr, mask_ptr, newest_ptr, sums_ptr, most_ptr, total_ptr, columns, scale,
    HEADS: tl.constexpr, SHARED: tl.constexpr, SIZE: tl.constexpr, LANES: tl.constexpr, PADDED: tl.constexpr,
    PART: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    head, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    place = head * tl.num_programs(1) + part
    lane, inner = tl.arange(0, LANES)[:, None], tl.arange(0, PADDED)[None, :]
    held = (lane < SHARED) & (inner < SIZE)
    query = tl.load(query_ptr + (head * SHARED + lane) * SIZE + inner, mask=held, other=0.0)
    most = tl.full([LANES], -1e38, tl.float32)  # below any score; a masked one is lower still, and counts exp(-inf) = 0
    total = tl.zeros([LANES], tl.float32)
    sums = tl.zeros([LANES, PADDED], tl.float32)
    used = tl.load(newest_ptr).to(tl.int32) + 1
    for start in range(part * PART, tl.minimum(part * PART + PART, used), BLOCK):
        column = start + tl.arange(0, BLOCK)
        there = (column < used)[:, None] & (inner < SIZE)
        key = tl.load(key_ptr + (head * columns + column[:, None]) * SIZE + inner, mask=there, other=0.0)
        shown = tl.load(mask_ptr + (head // HEADS) * columns + column, mask=column < used, other=-float("inf")).to(tl.float32)
        score = tl.dot(query, tl.trans(key), input_precision="ieee") * scale + shown[None, :]
        higher = tl.maximum(most, tl.max(score, 1))
        shrunk = tl.exp(most - higher)
        weight = tl.exp(score - higher[:, None])
        value = tl.load(value_ptr + (head * columns + column[:, None]) * SIZE + inner, mask=there, other=0.0)
        sums = sums * shrunk[:, None] + tl.dot(weight.to(value.dtype), value, input_precision="ieee")
        total = total * shrunk + tl.sum(weight, 1)
        most = higher
    tl.store(sums_ptr + (place * SHARED + lane) * SIZE + inner, sums, mask=held)
    lanes = tl.arange(0, LANES)
    tl.store(most_ptr + place * SHARED + lanes, most, mask=lanes < SHARED)
    tl.store(total_ptr + place * SHARED + lanes, total, mask=lanes < SHARED)


@triton.jit
def _joined(  # type: ignore[no-untyped-def]
    sums_ptr, most_ptr, total_ptr, out_ptr, parts, SHARED: tl.constexpr, SIZE: tl.constexpr, PADDED: tl.constexpr
):
    head, lane = tl.program_id(0).to(tl.int64), tl.program_id(1)
    inner = tl.arange(0, PADDED)
    most, total = -1e38, 0.0
    sums = tl.zeros([PADDED], tl.float32)
    for part in range(parts):
        place = (head * parts + part) * SHARED + lane
        own = tl.load(most_ptr + place)
        higher = tl.maximum(most, own)
        before, now = tl.exp(most - higher), tl.exp(own - higher)
        sums = sums * before + tl.load(sums_ptr + place * SIZE + inner, mask=inner < SIZE, other=0.0) * now
        total = total * before + tl.load(total_ptr + place) * now
        most = higher
    tl.store(out_ptr + (head * SHARED + lane) * SIZE + inner, (sums / total).to(out_ptr.dtype.element_ty), mask=inner < SIZE)
