"""Log-probabilities of completion tokens, in chunks: the logits of all tokens never exist at once.

Shapes: _B rows of the batch, _T positions of a row, _N completion tokens (packed), _n some of them, _H hidden size, _V vocabulary,
_v a block of it.

A vocabulary of 152k and 32k tokens make 9.3 GiB of bfloat16 logits for one sequence; here a chunk of `chunk` tokens is projected and
reduced to one log-probability and one entropy a token. The backward pass knows the normalisers, so it takes all tokens and a block of the
vocabulary at a time: it projects again and turns the logits into their gradient in place, d log p(target) / d logits = [target] - p.
That is one product with the head more than keeping all logits would take, and two buffers of the size of a chunk at most. An entropy
bonus adds d entropy / d logits = -p (log p + entropy), and one more buffer.
"""

from dataclasses import dataclass
from inspect import signature
from typing import Any, Self

import torch
from accelerate.state import PartialState
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from r1cli.train.attention import NAME, computes, head_size, supported
from r1cli.train.batches import dense_mask
from r1cli.train.compute_copy import ComputeCopy, all_in
from r1cli.train.dropout import remove_dropout, train_without_dropout
from r1cli.train.lora import Lora
from r1cli.train.probe import own_shapes
from r1cli.train.segments import Segments, filled_up, step_on
from r1cli.train.strategy import WHOLE

CHUNK = 1024  # tokens; 1,024 x 152k bfloat16 logits are 0.3 GiB
CPU_BLOCK = 4096  # tokens of the vocabulary in a block of the backward pass; wider ones are slower per token (bfloat16, AMX)
GPU_STEP = 64  # tokens of the vocabulary; a GPU's fast products want rows that begin at multiples of 16 bytes
CACHED = 1_000_000  # float32 logits worked on at a time on a CPU


@dataclass(frozen=True, slots=True)
class HeadShape:
    """How hidden states become the logits that are sampled from: scale * softcap(head(hidden)).

    scale: 1 / temperature, times what the model itself scales its logits by. softcap: c of c * tanh(x / c), as Gemma has; 0 is none.
    """

    scale: float = 1.0
    softcap: float = 0.0
    chunk: int = CHUNK


class Policy(nn.Module):
    """A causal language model whose forward pass gives log-probabilities of chosen tokens, and nothing of vocabulary size.

    It is this module that accelerate wraps, so that gradient hooks of every strategy see one forward call a micro-batch.

    plain: whether all of the model's layers are attention over all earlier tokens, so that sequences may share a row.
    """

    def __init__(self, model: Any, *, temperature: float = 1.0, chunk: int = CHUNK, lora: Lora | None = None) -> None:
        super().__init__()
        self.model = model
        self.lora = lora
        self._no_split_modules = getattr(model, "_no_split_modules", None)  # the layers that FSDP shards one by one
        self._copy: ComputeCopy | None = None
        self.plain = supported(model)
        self.dropout = True
        scale, softcap = own_shapes(model.config)[0]
        self.shape = HeadShape(scale=scale / temperature, softcap=softcap, chunk=chunk)

    def row_length(self, wanted: int) -> int:
        """Positions of a row that several sequences may share: `wanted`, or 0 (a row for each) where that would change the result.

        A mask alone keeps the sequences of a row apart. Layers with a window of their own, convolutions and recurrent layers look past it,
        and architectures with an attention of their own do not take it (`attention.supported`, `probe.py`).
        """
        return wanted if self.plain else 0

    def without_dropout(self) -> None:
        """Train without dropout from now on, whatever the model's configuration says. Call it before the first pass."""
        remove_dropout(self.model)
        self.dropout, self._copy = False, None

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if mode and not self.dropout:
            train_without_dropout(self.model)
        return self

    def forget_gradients(self) -> None:
        """Drop what a pass that failed has left in the copy: it would be handed over with the next one's."""
        if self._copy is not None:
            self._copy.model.zero_grad(set_to_none=True)

    def forget_copy(self) -> None:
        """Let go of the copy; the next pass that needs one makes it anew."""
        self._copy = None

    def forward(
        self, input_ids_BT: Tensor, position_ids_BT: Tensor, marks_BT: Tensor, source_N: Tensor, target_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(log-probability [N], entropy in nats [N]), float32, both with gradient, at the sampling temperature.

        marks_BT: segment number of each position (`batches.MicroBatch`). source_N: index into the flattened B x T positions of the position
        that predicts each token. target_N: the token's id.
        """
        kind = input_ids_BT.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.model.get_output_embeddings().weight.dtype
        model = self._computing(dtype)
        wanted = len(target_N)
        source_N, target_N = (filled_up(part, step_on(part.device)) for part in (source_N, target_N))
        with torch.autocast(kind, enabled=torch.is_autocast_enabled(kind) and not all_in(model, dtype)):
            hidden_NH = self._hidden(model, dtype, input_ids_BT, position_ids_BT, marks_BT, source_N)
        head, own = model.get_output_embeddings(), self.model.get_output_embeddings()
        cast = None
        if model is not self.model:
            cast = head.weight.detach(), None if (bias := getattr(head, "bias", None)) is None else bias.detach()
        given = TokenLogprobs.apply(hidden_NH, own.weight, getattr(own, "bias", None), target_N, self.shape, dtype, cast)
        return given[0][:wanted], given[1][:wanted]

    def computing(self) -> list[Any]:
        """The model, and its copy in the computation type if there is one."""
        return [self.model] if self._copy is None else [self.model, self._copy.model]

    def _computing(self, dtype: torch.dtype) -> Any:
        """The model whose forward pass is run: a copy in the computation type, where the weights are not sharded."""
        if all_in(self.model, dtype) or PartialState().distributed_type not in WHOLE:
            return self.model
        if self._copy is None:
            self._copy = ComputeCopy(self.model, dtype)
        return self._copy.fresh()

    def _hidden(
        self, model: Any, dtype: torch.dtype, input_ids_BT: Tensor, position_ids_BT: Tensor, marks_BT: Tensor, source_N: Tensor
    ) -> Tensor:
        """The last hidden state at the positions `source_N`, [N, H]."""
        decoder = model.get_decoder()
        named = self.plain and decoder.config._attn_implementation == NAME
        if not (named and computes(input_ids_BT.device, dtype, head_size(decoder.config))):
            counts = self.plain or "position_ids" in signature(decoder.forward).parameters  # else it counts them itself, from 0
            places = {"position_ids": position_ids_BT} if counts else {}
            hidden_BTH = decoder(input_ids=input_ids_BT, attention_mask=dense_mask(marks_BT), use_cache=False, **places).last_hidden_state
            return hidden_BTH.flatten(0, 1)[source_N]
        segments = Segments.of(marks_BT, step_on(marks_BT.device))
        packed = [part.flatten()[segments.keep_N][None] for part in (input_ids_BT, position_ids_BT)]
        hidden_1NH = decoder(input_ids=packed[0], position_ids=packed[1], segments=segments, use_cache=False).last_hidden_state
        return hidden_1NH[0][segments.packed_BT.flatten()[source_N]]


class TokenLogprobs(torch.autograd.Function):
    """(hidden [N, H], head weight [V, H], bias [V] or None, target [N]) -> (log-probability [N], entropy [N]), float32.

    dtype: of the matrix products. Softmax, entropy and sums over blocks are float32 in any case. cast: weight and bias in that type, where
    the caller has them; gradients go to the weight and bias themselves, that of the weight straight into its `grad`, which a second
    micro-batch then need not make another time only to add it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        target_N: Tensor,
        shape: HeadShape,
        dtype: torch.dtype,
        cast: tuple[Tensor, Tensor | None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        logprobs_N = torch.empty(len(target_N), dtype=torch.float32, device=hidden_NH.device)
        entropies_N, normalisers_N = torch.empty_like(logprobs_N), torch.empty_like(logprobs_N)
        head = cast if cast is not None else _head(weight_VH, bias_V, dtype)
        chunks = _cut(len(target_N), shape.chunk)
        scratch = Scratch(hidden_NH.device, dtype, min(shape.chunk, len(target_N)), len(weight_VH))
        for part in chunks:
            products_nV = scratch.products(hidden_NH[part].to(dtype), *head)
            for rows in scratch.pieces(len(products_nV)):
                logits_nV = _logits(products_nV[rows], scratch.first, shape)
                place = slice(part.start + rows.start, part.start + rows.stop)
                chosen_n, most_n = logits_nV.gather(-1, target_N[place, None]).squeeze(-1), logits_nV.amax(-1)
                logits_nV.sub_(most_n[:, None])
                chance_nV = torch.softmax(logits_nV, -1, out=scratch.second[: len(logits_nV)])
                total_n = chance_nV.amax(-1).log_().neg_()  # log of the sum of exp(logits - most): the likeliest token's share is 1 of it
                normalisers_N[place] = most_n + total_n
                logprobs_N[place] = chosen_n - normalisers_N[place]
                entropies_N[place] = total_n - chance_nV.mul_(logits_nV).sum(-1)
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, target_N, normalisers_N, entropies_N, *(cast or (None, None)))
        ctx.shape, ctx.dtype, ctx.own = shape, dtype, None if cast is None else weight_VH
        ctx.set_materialize_grads(False)
        return logprobs_N, entropies_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_N: Tensor | None, entropy_gradient_N: Tensor | None) -> tuple[Tensor | None, ...]:
        """A block of the vocabulary at a time (_v), for all tokens: the gradient of a weight is one product, nothing is added up twice."""
        hidden_NH, weight_VH, bias_V, target_N, normalisers_N, entropies_N, *cast = ctx.saved_tensors
        gradient_N = torch.zeros_like(normalisers_N) if gradient_N is None else gradient_N
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        d_hidden_NH = torch.zeros(hidden_NH.shape, dtype=torch.float32, device=hidden_NH.device) if wants_hidden else None
        d_weight_VH: Tensor | None = None if ctx.own is None else ctx.own.grad
        adds = d_weight_VH is not None
        if wants_weight and not adds:
            d_weight_VH = torch.empty_like(weight_VH, memory_format=torch.contiguous_format)
        d_bias_V = torch.empty_like(bias_V) if bias_V is not None and wants_bias else None
        weight, bias = cast if cast[0] is not None else _head(weight_VH, bias_V, ctx.dtype)
        cast_NH = hidden_NH.to(ctx.dtype)
        blocks = _vocabulary_blocks(len(target_N), len(weight_VH), ctx.shape.chunk, on_cpu=hidden_NH.device.type == "cpu")
        scratch = Scratch(hidden_NH.device, ctx.dtype, len(target_N), blocks[0].stop)
        for block in blocks:
            block_vH = weight[block]
            d_logits_Nv = scratch.products(cast_NH, block_vH, None if bias is None else bias[block])
            for rows in scratch.pieces(len(d_logits_Nv)):
                logits_nv = _logits(d_logits_Nv[rows], scratch.first[:, : len(block_vH)], ctx.shape)
                bonus = None if entropy_gradient_N is None else (entropies_N[rows], entropy_gradient_N[rows])
                chosen_n = target_N[rows] - block.start
                d_logits_Nv[rows] = _d_logits(logits_nv, normalisers_N[rows], chosen_n, gradient_N[rows], bonus, ctx.shape)
            if d_hidden_NH is not None:
                d_hidden_NH += (d_logits_Nv @ block_vH).float()
            if d_weight_VH is not None:
                d_block_vH = (d_logits_Nv.T @ cast_NH).to(d_weight_VH.dtype)  # before adding: two types are four times slower
                d_weight_VH[block] = d_block_vH.add_(d_weight_VH[block]) if adds else d_block_vH
            if d_bias_V is not None:
                d_bias_V[block] = d_logits_Nv.sum(0, dtype=torch.float32)
        if ctx.own is not None:
            ctx.own.grad, d_weight_VH = d_weight_VH, None
        return None if d_hidden_NH is None else d_hidden_NH.to(hidden_NH.dtype), d_weight_VH, d_bias_V, None, None, None, None


class Scratch:
    """Buffers that a pass over the head uses again and again: memory asked for anew costs more than the product that fills it.

    products(): [n, v] in the type of the matrix products; first, second: float32 pieces of it, small enough for a processor's cache.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, tokens: int, vocabulary: int) -> None:
        self._products = torch.empty(tokens * vocabulary, dtype=dtype, device=device)
        self._step = max(1, tokens if device.type == "cuda" else min(tokens, CACHED // vocabulary))
        self.first = torch.empty(self._step, vocabulary, dtype=torch.float32, device=device)
        self._second: Tensor | None = None

    @property
    def second(self) -> Tensor:
        if self._second is None:
            self._second = torch.empty_like(self.first)
        return self._second

    def products(self, hidden_nH: Tensor, weight_vH: Tensor, bias_v: Tensor | None) -> Tensor:
        """What a part of the head gives for some tokens, [n, v]; it is overwritten by the next call."""
        size = len(hidden_nH) * len(weight_vH)
        out_nv = self._products[:size].view(len(hidden_nH), len(weight_vH))
        if bias_v is None:
            return torch.mm(hidden_nH, weight_vH.T, out=out_nv)
        return torch.addmm(bias_v, hidden_nH, weight_vH.T, out=out_nv)

    def pieces(self, tokens: int) -> list[slice]:
        """Rows that fit `first`; a GPU takes them at once."""
        return _cut(tokens, self._step)


def _head(weight_VH: Tensor, bias_V: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    return weight_VH.to(dtype), None if bias_V is None else bias_V.to(dtype)


def _cut(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _vocabulary_blocks(tokens: int, vocabulary: int, chunk: int, *, on_cpu: bool) -> list[slice]:
    """Parts of the vocabulary whose logits, for all tokens, take no more than those of a chunk of tokens over all of it."""
    size = max(1, min(vocabulary, chunk * vocabulary // max(tokens, 1)))
    aligned = size - size % GPU_STEP if size > GPU_STEP else size
    return _cut(vocabulary, min(size, CPU_BLOCK) if on_cpu else aligned)


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
