"""Triton kernels for what a GPU would else do in a dozen passes over its memory.

Import it only beside an NVIDIA GPU (or under Triton's interpreter, as tests do): `gpu.usable` says whether that can be.

Shapes: _N tokens, _v some columns of the vocabulary. A row of logits is scale * softcap(what the head gave), softcap(x) = c tanh(x / c);
c = 0 is none.
"""

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

COLUMNS = 4096  # elements a program works on at a time
LANES = 1024


def logits_statistics(products_NV: Tensor, target_N: Tensor, scale: float, softcap: float, out: tuple[Tensor, Tensor, Tensor]) -> None:
    """(log-probability of the target, entropy, log of the softmax's divisor), each [N] float32, in one pass over what the head gave."""
    rows, columns = products_NV.shape
    logprob_N, entropy_N, normaliser_N = out
    if rows:
        _statistics[(rows,)](
            products_NV, target_N, logprob_N, entropy_N, normaliser_N, columns, scale, softcap, CAPPED=softcap != 0, COLUMNS=COLUMNS,
            num_warps=8,
        )  # fmt: skip


@triton.jit
def _bent(product, softcap, CAPPED: tl.constexpr):  # type: ignore[no-untyped-def]
    """tanh(product / softcap) under a soft cap, else the product."""
    if CAPPED:
        product = 2 / (1 + tl.exp(-2 * product / softcap)) - 1
    return product


@triton.jit
def _statistics(  # type: ignore[no-untyped-def]
    product_ptr, target_ptr, logprob_ptr, entropy_ptr, normaliser_ptr, columns, scale, softcap, CAPPED: tl.constexpr, COLUMNS: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    begin = product_ptr + row * columns
    size = scale * softcap if CAPPED else scale
    most = -float("inf")
    total, weighted = 0.0, 0.0  # sums of exp(logit - most), and of that times (logit - most)
    for start in range(0, columns, COLUMNS):
        place = start + tl.arange(0, COLUMNS)
        inside = place < columns
        logit = size * _bent(tl.load(begin + place, mask=inside, other=0.0).to(tl.float32), softcap, CAPPED)
        logit = tl.where(inside, logit, -float("inf"))
        higher = tl.maximum(most, tl.max(logit, 0))
        shrunk = tl.exp(most - higher)
        part = tl.exp(logit - higher)
        moved = tl.where(total > 0, total * (most - higher), 0.0)
        weighted = (weighted + moved) * shrunk + tl.sum(tl.where(inside, part * (logit - higher), 0.0), 0)
        total = total * shrunk + tl.sum(part, 0)
        most = higher
    chosen = size * _bent(tl.load(begin + tl.load(target_ptr + row)).to(tl.float32), softcap, CAPPED)
    sums = tl.log(total)
    tl.store(normaliser_ptr + row, most + sums)
    tl.store(logprob_ptr + row, chosen - most - sums)
    tl.store(entropy_ptr + row, sums - weighted / total)


def logits_gradient_(
    products_Nv: Tensor,
    target_N: Tensor,
    normaliser_N: Tensor,
    gradient_N: Tensor,
    bonus: tuple[Tensor, Tensor] | None,
    scale: float,
    softcap: float,
) -> None:
    """What the head gave, overwritten by the gradient of sum(gradient * log p(target)) with respect to it.

    target_N: place among these columns; outside of them where the target is elsewhere. bonus: (entropy [N], its gradient [N]).
    """
    rows, columns = products_Nv.shape
    gradient_N = gradient_N.contiguous()  # that of a sum is one number for all
    entropy_N, slope_N = (bonus[0], bonus[1].contiguous()) if bonus else (normaliser_N, gradient_N)
    if rows:
        _gradient[(rows, triton.cdiv(columns, COLUMNS))](
            products_Nv, target_N, normaliser_N, gradient_N, entropy_N, slope_N, columns, scale, softcap, BONUS=bonus is not None,
            CAPPED=softcap != 0, COLUMNS=COLUMNS, num_warps=8,
        )  # fmt: skip


@triton.jit
def _gradient(  # type: ignore[no-untyped-def]
    product_ptr, target_ptr, normaliser_ptr, gradient_ptr, entropy_ptr, slope_ptr, columns, scale, softcap,
    BONUS: tl.constexpr, CAPPED: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = place < columns
    at = product_ptr + row * columns + place
    size = scale * softcap if CAPPED else scale
    bent = _bent(tl.load(at, mask=inside, other=0.0).to(tl.float32), softcap, CAPPED)
    logprob = size * bent - tl.load(normaliser_ptr + row)
    gradient = tl.load(gradient_ptr + row)
    chance = tl.exp(logprob)
    found = gradient
    if BONUS:
        found += (logprob + tl.load(entropy_ptr + row)) * tl.load(slope_ptr + row)
    found = -chance * found
    found = tl.where(place == tl.load(target_ptr + row), found + gradient, found)
    if CAPPED:
        found = found * (1 - bent * bent)
    tl.store(at, (found * scale).to(product_ptr.dtype.element_ty), mask=inside)


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, contiguous tensors of one shape."""
    out = torch.empty_like(gate)
    if out.numel():
        _gated[(triton.cdiv(out.numel(), LANES),)](gate, up, out, out.numel(), LANES=LANES)
    return out


@triton.jit
def _gated(gate_ptr, up_ptr, out_ptr, count, LANES: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    inside = place < count
    gate = tl.load(gate_ptr + place, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + place, (gate * tl.sigmoid(gate) * up).to(out_ptr.dtype.element_ty), mask=inside)


def gated_gradients(d_inner: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(gradient of gate, gradient of up, silu(gate) * up once more), from the gradient of silu(gate) * up."""
    d_gate, d_up, inner = torch.empty_like(gate), torch.empty_like(up), torch.empty_like(gate)
    if inner.numel():
        _gated_gradients[(triton.cdiv(inner.numel(), LANES),)](d_inner, gate, up, d_gate, d_up, inner, inner.numel(), LANES=LANES)
    return d_gate, d_up, inner


@triton.jit
def _gated_gradients(  # type: ignore[no-untyped-def]
    d_inner_ptr, gate_ptr, up_ptr, d_gate_ptr, d_up_ptr, inner_ptr, count, LANES: tl.constexpr
):
    place = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    inside = place < count
    d_inner = tl.load(d_inner_ptr + place, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(gate_ptr + place, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + place, mask=inside, other=0.0).to(tl.float32)
    share = tl.sigmoid(gate)
    swish = gate * share
    kind = inner_ptr.dtype.element_ty
    tl.store(d_gate_ptr + place, (d_inner * up * (share + swish * (1 - share))).to(kind), mask=inside)
    tl.store(d_up_ptr + place, (d_inner * swish).to(kind), mask=inside)
    tl.store(inner_ptr + place, (swish * up).to(kind), mask=inside)


def rotated(part_BHTD: Tensor, cos_BTD: Tensor, sin_BTD: Tensor, *, back: bool = False) -> Tensor:
    """part * cos + (its halves swapped, the new first one negated) * sin; `back`: the gradient of that with respect to the part.

    The result lies in memory as [B, T, H, D], as the products around attention want it, whatever the part does.
    """
    batch, heads, tokens, size = part_BHTD.shape
    part_BHTD = part_BHTD if part_BHTD.stride(3) == 1 else part_BHTD.contiguous()
    cos_BTD, sin_BTD = (table.expand(batch, tokens, size).contiguous() for table in (cos_BTD, sin_BTD))
    out_BTHD = torch.empty(batch, tokens, heads, size, dtype=part_BHTD.dtype, device=part_BHTD.device)
    if out_BTHD.numel():
        _rotated[(batch * tokens,)](
            part_BHTD, cos_BTD, sin_BTD, out_BTHD, tokens, *part_BHTD.stride()[:3], HEADS=heads, HALF=size // 2,
            ROWS=triton.next_power_of_2(heads), LANES=triton.next_power_of_2(size // 2), BACK=back,
        )  # fmt: skip
    return out_BTHD.transpose(1, 2)


@triton.jit
def _rotated(  # type: ignore[no-untyped-def]
    part_ptr, cos_ptr, sin_ptr, out_ptr, tokens, of_batch, of_head, of_token,
    HEADS: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head, lane = tl.arange(0, ROWS)[:, None], tl.arange(0, LANES)[None, :]
    inside, half = (head < HEADS) & (lane < HALF), lane < HALF
    at = part_ptr + row // tokens * of_batch + row % tokens * of_token + head * of_head + lane
    first = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(at + HALF, mask=inside, other=0.0).to(tl.float32)
    table = row * 2 * HALF + lane
    cos_first = tl.load(cos_ptr + table, mask=half, other=0.0).to(tl.float32)
    cos_second = tl.load(cos_ptr + table + HALF, mask=half, other=0.0).to(tl.float32)
    sin_first = tl.load(sin_ptr + table, mask=half, other=0.0).to(tl.float32)
    sin_second = tl.load(sin_ptr + table + HALF, mask=half, other=0.0).to(tl.float32)
    if BACK:
        new_first = first * cos_first + second * sin_second
        new_second = second * cos_second - first * sin_first
    else:
        new_first = first * cos_first - second * sin_first
        new_second = second * cos_second + first * sin_second
    to = out_ptr + row * HEADS * 2 * HALF + head * 2 * HALF + lane
    tl.store(to, new_first.to(out_ptr.dtype.element_ty), mask=inside)
    tl.store(to + HALF, new_second.to(out_ptr.dtype.element_ty), mask=inside)
