"""Log-probabilities of completion tokens, in chunks: the logits of all tokens never exist at once.

Shapes: _B rows of the batch, _T positions of a row, _N completion tokens (packed), _n a chunk of them, _H hidden size, _V vocabulary.

A vocabulary of 152k and 32k tokens make 9.3 GiB of bfloat16 logits for one sequence; here a chunk of `chunk` tokens is projected and
reduced to one log-probability and one entropy a token. The backward pass projects the chunk again and turns its logits into their gradient
in place: d log p(target) / d logits = [target] - p. That is one product with the head more than keeping all logits would take, and two
buffers of the size of a chunk at most. An entropy bonus adds d entropy / d logits = -p (log p + entropy), and one more buffer.
"""

from dataclasses import dataclass
from typing import Any

import torch
from accelerate.state import DistributedType, PartialState
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from r1cli.train.attention import NAME, supported
from r1cli.train.batches import dense_mask
from r1cli.train.compute_copy import ComputeCopy
from r1cli.train.segments import Segments

CHUNK = 1024  # tokens; 1,024 x 152k bfloat16 logits are 0.3 GiB
CACHED = 1_000_000  # float32 logits worked on at a time on a CPU


@dataclass(frozen=True, slots=True)
class HeadShape:
    """How hidden states become the logits that are sampled from: scale * softcap(head(hidden)).

    scale: 1 / temperature, times what the model's own configuration scales its logits by. softcap: c of c * tanh(x / c), as Gemma has;
    0 is none.
    """

    scale: float = 1.0
    softcap: float = 0.0
    chunk: int = CHUNK


class Policy(nn.Module):
    """A causal language model whose forward pass gives log-probabilities of chosen tokens, and nothing of vocabulary size.

    It is this module that accelerate wraps, so that gradient hooks of every strategy see one forward call a micro-batch.
    """

    def __init__(self, model: Any, *, temperature: float = 1.0, chunk: int = CHUNK) -> None:
        super().__init__()
        self.model = model
        self._no_split_modules = getattr(model, "_no_split_modules", None)  # the layers that FSDP shards one by one
        self._copy: ComputeCopy | None = None
        own_scale = (getattr(model.config, "logit_scale", None) or 1.0) / (getattr(model.config, "logits_scaling", None) or 1.0)
        softcap = getattr(model.config, "final_logit_softcapping", None) or 0.0
        self.shape = HeadShape(scale=own_scale / temperature, softcap=softcap, chunk=chunk)

    def row_length(self, wanted: int) -> int:
        """Positions of a row that several sequences may share: `wanted`, or 0 (a row for each) where that would change the result.

        A mask alone keeps the sequences of a row apart. Layers with a window of their own, convolutions and recurrent layers look past it.
        """
        return wanted if supported(self.model.config) else 0

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
        with torch.autocast(kind, enabled=model is self.model and torch.is_autocast_enabled(kind)):
            hidden_NH = self._hidden(model, input_ids_BT, position_ids_BT, marks_BT, source_N)
        head, own = model.get_output_embeddings(), self.model.get_output_embeddings()
        cast = None
        if model is not self.model:
            cast = head.weight.detach(), None if (bias := getattr(head, "bias", None)) is None else bias.detach()
        return TokenLogprobs.apply(hidden_NH, own.weight, getattr(own, "bias", None), target_N, self.shape, dtype, cast)

    def _computing(self, dtype: torch.dtype) -> Any:
        """The model whose forward pass is run: a copy in the computation type, where no strategy of accelerate makes one itself."""
        if dtype == next(self.model.parameters()).dtype or not _alone():
            return self.model
        if self._copy is None:
            self._copy = ComputeCopy(self.model, dtype)
        return self._copy.fresh()

    def _hidden(self, model: Any, input_ids_BT: Tensor, position_ids_BT: Tensor, marks_BT: Tensor, source_N: Tensor) -> Tensor:
        """The last hidden state at the positions `source_N`, [N, H]."""
        decoder = model.get_decoder()
        if not (input_ids_BT.device.type == "cpu" and model.config._attn_implementation == NAME):
            mask = dense_mask(marks_BT)
            hidden_BTH = decoder(input_ids=input_ids_BT, position_ids=position_ids_BT, attention_mask=mask, use_cache=False)
            return hidden_BTH.last_hidden_state.flatten(0, 1)[source_N]
        segments = Segments.of(marks_BT)
        packed = [part.flatten()[segments.keep_N][None] for part in (input_ids_BT, position_ids_BT)]
        hidden_1NH = decoder(input_ids=packed[0], position_ids=packed[1], segments=segments, use_cache=False).last_hidden_state
        return hidden_1NH[0][segments.packed_BT.flatten()[source_N]]


def _alone() -> bool:
    """Whether no strategy of accelerate wraps or shards the weights. torch.distributed says nothing: vLLM starts it for one process too."""
    return PartialState().distributed_type == DistributedType.NO


class TokenLogprobs(torch.autograd.Function):
    """(hidden [N, H], head weight [V, H], bias [V] or None, target [N]) -> (log-probability [N], entropy [N]), float32.

    dtype: of the two matrix products. Softmax, entropy and the sum over chunks are float32 in any case. cast: weight and bias in that type,
    where the caller has them; gradients go to the weight and bias themselves.
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
        for part in _chunks(len(target_N), shape.chunk):
            products_nV = linear(hidden_NH[part].to(dtype), *head)
            for rows in _rows(part, products_nV):
                logits_nV = _logits(products_nV[rows.start - part.start : rows.stop - part.start], shape)
                chosen_n = logits_nV.gather(-1, target_N[rows, None]).squeeze(-1)
                most_n = logits_nV.amax(-1)
                powers_nV = logits_nV.sub_(most_n[:, None]).exp()
                total_n = powers_nV.sum(-1)
                normalisers_N[rows] = most_n + total_n.log()
                logprobs_N[rows] = chosen_n - normalisers_N[rows]
                entropies_N[rows] = total_n.log() - powers_nV.mul_(logits_nV).sum(-1) / total_n
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, target_N, normalisers_N, entropies_N, *(cast or (None, None)))
        ctx.shape, ctx.dtype = shape, dtype
        ctx.set_materialize_grads(False)
        return logprobs_N, entropies_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_N: Tensor | None, entropy_gradient_N: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, bias_V, target_N, normalisers_N, entropies_N, *cast = ctx.saved_tensors
        gradient_N = torch.zeros_like(normalisers_N) if gradient_N is None else gradient_N
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        d_hidden_NH = torch.empty_like(hidden_NH) if wants_hidden else None
        d_weight_VH = torch.zeros_like(weight_VH) if wants_weight else None
        d_bias_V = torch.zeros_like(bias_V) if wants_bias else None
        head = cast if cast[0] is not None else _head(weight_VH, bias_V, ctx.dtype)
        for part in _chunks(len(target_N), ctx.shape.chunk):
            hidden_nH = hidden_NH[part].to(ctx.dtype)
            d_logits_nV = linear(hidden_nH, *head)
            for rows in _rows(part, d_logits_nV):
                place = slice(rows.start - part.start, rows.stop - part.start)
                logits_nV = _logits(d_logits_nV[place], ctx.shape)
                bonus = None if entropy_gradient_N is None else (entropies_N[rows], entropy_gradient_N[rows])
                d_logits_nV[place] = _d_logits(logits_nV, normalisers_N[rows], target_N[rows], gradient_N[rows], bonus, ctx.shape)
            if d_hidden_NH is not None:
                d_hidden_NH[part] = d_logits_nV @ head[0]
            if d_weight_VH is not None and d_weight_VH.dtype == ctx.dtype:
                d_weight_VH.addmm_(d_logits_nV.T, hidden_nH)
            elif d_weight_VH is not None:
                d_weight_VH += d_logits_nV.T @ hidden_nH
            if d_bias_V is not None:
                d_bias_V += d_logits_nV.sum(0, dtype=torch.float32)
        return d_hidden_NH, d_weight_VH, d_bias_V, None, None, None, None


def _head(weight_VH: Tensor, bias_V: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    return weight_VH.to(dtype), None if bias_V is None else bias_V.to(dtype)


def _chunks(count: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, count)) for start in range(0, count, chunk)]


def _rows(part: slice, products_nV: Tensor) -> list[slice]:
    """A chunk's rows in pieces whose logits stay in a processor's cache; a GPU takes them at once."""
    count, vocabulary = products_nV.shape
    step = count if products_nV.is_cuda else max(1, CACHED // vocabulary)
    return [slice(part.start + s.start, part.start + s.stop) for s in _chunks(count, step)]


def _logits(products_nV: Tensor, shape: HeadShape) -> Tensor:
    """The logits that are sampled from, [n, V] float32, in a buffer that the caller may overwrite."""
    logits_nV = products_nV.float()
    if shape.softcap:
        logits_nV.div_(shape.softcap).tanh_().mul_(shape.softcap)
    return logits_nV if shape.scale == 1.0 else logits_nV.mul_(shape.scale)


def _d_logits(
    logits_nV: Tensor, normaliser_n: Tensor, target_n: Tensor, gradient_n: Tensor, bonus: tuple[Tensor, Tensor] | None, shape: HeadShape
) -> Tensor:
    """Gradient of sum(gradient * log p(target)) with respect to what the head gave, [n, V], written over `logits_nV`.

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
    d_logits_nV.scatter_add_(1, target_n[:, None], gradient_n1)
    return d_logits_nV if slope_nV is None else d_logits_nV.mul_(slope_nV)
