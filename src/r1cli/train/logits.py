"""Blocks of logits, and what becomes of them: a log-probability and an entropy a token, and their gradient. On an NVIDIA GPU by kernels of
one pass each (`layers/kernels.py`); elsewhere by torch, in pieces that fit a processor's cache.

Shapes: _N tokens of a block, _n some of them, _H hidden size, _V vocabulary, _v the block's columns of it.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from r1cli.layers import gpu

CHUNK = 1024  # tokens; 1,024 x 152k bfloat16 logits are 0.3 GiB
CPU_BLOCK = 4096  # tokens of the vocabulary in a block of the backward pass; wider ones are slower per token (bfloat16, AMX)
GPU_STEP = 64  # tokens of the vocabulary; a GPU's fast products want rows that begin at multiples of 16 bytes
CACHED = 1_000_000  # float32 logits worked on at a time on a CPU

Bonus = tuple[Tensor, Tensor]  # (entropy of each token, the loss's gradient with respect to it)


@dataclass(frozen=True, slots=True)
class HeadShape:
    """How hidden states become the logits that are sampled from: scale * softcap(head(hidden)).

    scale: 1 / temperature, times what the model itself scales its logits by. softcap: c of c * tanh(x / c), as Gemma has; 0 is none.
    """

    scale: float = 1.0
    softcap: float = 0.0
    chunk: int = CHUNK


class Scratch:
    """Buffers that a pass over the head uses again and again: memory asked for anew costs more than the product that fills it.

    products(): [n, v] in the type of the matrix products; first, second: float32 pieces of it, small enough for a processor's cache.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, tokens: int, vocabulary: int) -> None:
        self._products = torch.empty(tokens * vocabulary, dtype=dtype, device=device)
        self._step = max(1, tokens if device.type == "cuda" else min(tokens, CACHED // vocabulary))
        self._vocabulary = vocabulary

    @cached_property
    def first(self) -> Tensor:
        return torch.empty(self._step, self._vocabulary, dtype=torch.float32, device=self._products.device)

    @cached_property
    def second(self) -> Tensor:
        return torch.empty_like(self.first)

    def products(self, hidden_nH: Tensor, weight_vH: Tensor, bias_v: Tensor | None) -> Tensor:
        """What a part of the head gives for some tokens, [n, v]; it is overwritten by the next call."""
        size = len(hidden_nH) * len(weight_vH)
        out_nv = self._products[:size].view(len(hidden_nH), len(weight_vH))
        if bias_v is None:
            return torch.mm(hidden_nH, weight_vH.T, out=out_nv)
        return torch.addmm(bias_v, hidden_nH, weight_vH.T, out=out_nv)

    def pieces(self, tokens: int) -> list[slice]:
        """Rows that fit `first`; a GPU takes them at once."""
        return cut(tokens, self._step)


def statistics(products_NV: Tensor, target_N: Tensor, shape: HeadShape, scratch: Scratch, out: tuple[Tensor, Tensor, Tensor]) -> None:
    """(log-probability of the target, entropy, log of the softmax's divisor), each [N] float32, of what the head gave, into `out`."""
    if _by_kernels(products_NV):
        from r1cli.layers.kernels import logits_statistics

        logits_statistics(products_NV, target_N, shape.scale, shape.softcap, out)
        return
    for rows in scratch.pieces(len(products_NV)):
        logprob_n, entropy_n, normaliser_n = (part[rows] for part in out)
        logits_nV = _logits(products_NV[rows], scratch.first, shape)
        chosen_n, most_n = logits_nV.gather(-1, target_N[rows, None]).squeeze(-1), logits_nV.amax(-1)
        logits_nV.sub_(most_n[:, None])
        chance_nV = torch.softmax(logits_nV, -1, out=scratch.second[: len(logits_nV)])
        total_n = chance_nV.amax(-1).log_().neg_()  # log of the sum of exp(logits - most): the likeliest token's share is 1 of it
        normaliser_n.copy_(most_n + total_n)
        logprob_n.copy_(chosen_n - normaliser_n)
        entropy_n.copy_(total_n - chance_nV.mul_(logits_nV).sum(-1))


def gradient_(
    products_Nv: Tensor, target_N: Tensor, normaliser_N: Tensor, gradient_N: Tensor, bonus: Bonus | None, shape: HeadShape, scratch: Scratch
) -> None:
    """What the head gave for a block of the vocabulary, overwritten by the gradient of sum(gradient * log p(target)) with respect to it.

    target_N: place in the block; outside of it (negative, or its width and more) where the target is in another one.
    """
    if _by_kernels(products_Nv):
        from r1cli.layers.kernels import logits_gradient_

        logits_gradient_(products_Nv, target_N, normaliser_N, gradient_N, bonus, shape.scale, shape.softcap)
        return
    for rows in scratch.pieces(len(products_Nv)):
        logits_nv = _logits(products_Nv[rows], scratch.first[:, : products_Nv.shape[1]], shape)
        of_rows = None if bonus is None else (bonus[0][rows], bonus[1][rows])
        products_Nv[rows] = _d_logits(logits_nv, normaliser_N[rows], target_N[rows], gradient_N[rows], of_rows, shape)


def add_product(total_AB: Tensor, left_NA: Tensor, right_NB: Tensor, *, adds: bool = True) -> None:
    """total += left^T right (`adds` False: total = left^T right), in the type of the total."""
    if _by_kernels(left_NA):
        gpu.add_product(total_AB, left_NA, right_NB, adds=adds)
        return
    product_AB = (left_NA.T @ right_NB).to(total_AB.dtype)  # before adding: two types are four times slower
    total_AB.copy_(product_AB.add_(total_AB) if adds else product_AB)


def in_type(weight_VH: Tensor, bias_V: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of the head in the type of the products."""
    return weight_VH.to(dtype), None if bias_V is None else bias_V.to(dtype)


def cut(count: int, size: int) -> list[slice]:
    """Places of at most `size` of `count` things."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def vocabulary_blocks(tokens: int, vocabulary: int, chunk: int, *, on_cpu: bool) -> list[slice]:
    """Parts of the vocabulary whose logits, for all tokens, take no more than those of a chunk of tokens over all of it."""
    size = max(1, min(vocabulary, chunk * vocabulary // max(tokens, 1)))
    aligned = size - size % GPU_STEP if size > GPU_STEP else size
    return cut(vocabulary, min(size, CPU_BLOCK) if on_cpu else aligned)


def _by_kernels(products_Nv: Tensor) -> bool:
    return products_Nv.is_cuda and gpu.usable()


def _logits(products_nV: Tensor, buffer: Tensor, shape: HeadShape) -> Tensor:
    """The logits that are sampled from, [n, V] float32, in the buffer."""
    logits_nV = buffer[: len(products_nV)].copy_(products_nV)
    if shape.softcap:
        logits_nV.div_(shape.softcap).tanh_().mul_(shape.softcap)
    return logits_nV if shape.scale == 1.0 else logits_nV.mul_(shape.scale)


def _d_logits(
    logits_nV: Tensor, normaliser_n: Tensor, target_n: Tensor, gradient_n: Tensor, bonus: tuple[Tensor, Tensor] | None, shape: HeadShape
) -> Tensor:
    """Gradient of sum(gradient * log p(target)) with respect to what the head gave, [n, V], written over `logits_nV`.

    target_n: place among these logits; outside of them (negative, or V and more) where the target is in another block.
    bonus: (entropy [n], its gradient [n]) when the loss asks for the entropy too.
    """
    slope_nV = 1 - (logits_nV / (shape.scale * shape.softcap)) ** 2 if shape.softcap else None  # of tanh
    gradient_n1 = (gradient_n * shape.scale)[:, None]
    logprobs_nV = logits_nV.sub_(normaliser_n[:, None])
    if bonus is None:
        d_logits_nV = logprobs_nV.exp_().mul_(-gradient_n1)
    else:
        entropy_n1, slope_n1 = bonus[0][:, None], (bonus[1] * shape.scale)[:, None]
        factor_nV = (logprobs_nV + entropy_n1).mul_(slope_n1).add_(gradient_n1).neg_()
        d_logits_nV = logprobs_nV.exp_().mul_(factor_nV)
    width = d_logits_nV.shape[1]
    here_n = (target_n >= 0) & (target_n < width)
    d_logits_nV.scatter_add_(1, target_n.clamp(0, width - 1)[:, None], gradient_n1 * here_n[:, None])
    return d_logits_nV if slope_nV is None else d_logits_nV.mul_(slope_nV)
