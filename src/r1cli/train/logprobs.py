"""Log-probabilities of completion tokens, in chunks: the logits of all tokens never exist at once.

Shapes: _B rows of the batch, _T positions of a row, _N completion tokens (packed), _n some of them, _H hidden size, _V vocabulary,
_v a block of it.

A vocabulary of 152k and 32k tokens make 9.3 GiB of bfloat16 logits for one sequence; here a chunk of `chunk` tokens is projected and
reduced to one log-probability and one entropy a token. The backward pass knows the normalisers, so it takes all tokens and a block of the
vocabulary at a time: it projects again and turns the logits into their gradient in place, d log p(target) / d logits = [target] - p.
That is one product with the head more than keeping all logits would take, and two buffers of the size of a chunk at most. An entropy
bonus adds d entropy / d logits = -p (log p + entropy), and one more buffer.
"""

from inspect import signature
from typing import Any, Self

import torch
from accelerate.state import PartialState
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from r1cli.layers.plain import plain_attention
from r1cli.layers.rope import forget_longest, same_up_to
from r1cli.train.attention import NAME, computes, head_size
from r1cli.train.batches import dense_mask
from r1cli.train.compute_copy import ComputeCopy, all_in
from r1cli.train.dropout import remove_dropout, train_without_dropout
from r1cli.train.logits import CHUNK, HeadShape, Scratch, add_product, cut, gradient_, in_type, statistics, vocabulary_blocks
from r1cli.train.lora import Lora
from r1cli.train.probe import own_shapes
from r1cli.train.segments import Segments, filled_up, step_on
from r1cli.train.strategy import WHOLE


class Policy(nn.Module):
    """A causal language model whose forward pass gives log-probabilities of chosen tokens, and nothing of vocabulary size.

    It is this module that accelerate wraps, so that gradient hooks of every strategy see one forward call a micro-batch.

    plain: whether all of the model's layers are attention over all earlier tokens, so that sequences may share a row. alone_beyond: a
    sequence longer than this has a micro-batch for itself, because it would change what is computed for others (None: none would).
    """

    def __init__(self, model: Any, *, temperature: float = 1.0, chunk: int = CHUNK, lora: Lora | None = None) -> None:
        super().__init__()
        self.model = model
        self.lora = lora
        self._no_split_modules = getattr(model, "_no_split_modules", None)  # the layers that FSDP shards one by one
        self._copy: ComputeCopy | None = None
        self.plain = plain_attention(model)
        self.alone_beyond = same_up_to(model)
        self.dropout = True
        scale, softcap = own_shapes(model.config)[0]
        self.shape = HeadShape(scale=scale / temperature, softcap=softcap, chunk=chunk)

    def row_length(self, wanted: int) -> int:
        """Positions of a row that several sequences may share: `wanted` at most, or 0 (a row for each) where that would change the result.

        A mask alone keeps the sequences of a row apart. Layers with a window of their own, convolutions and recurrent layers look past it,
        and architectures with an attention of their own do not take it (`layers.plain`, `probe.py`).
        """
        longest = wanted if self.alone_beyond is None else min(wanted, self.alone_beyond)
        return longest if self.plain else 0

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

        marks_BT: segment number of each position (`batches.MicroBatch`); on the CPU, a GPU is not waited for. source_N: index into the
        flattened B x T positions of the position that predicts each token. target_N: the token's id.
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
        if self.alone_beyond is not None:
            forget_longest(decoder)
        named = self.plain and decoder.config._attn_implementation == NAME
        if not (named and computes(input_ids_BT.device, dtype, head_size(decoder.config))):
            counts = self.plain or "position_ids" in signature(decoder.forward).parameters  # else it counts them itself, from 0
            places = {"position_ids": position_ids_BT} if counts else {}
            mask = dense_mask(marks_BT.to(input_ids_BT.device))
            hidden_BTH = decoder(input_ids=input_ids_BT, attention_mask=mask, use_cache=False, **places).last_hidden_state
            return hidden_BTH.flatten(0, 1)[source_N]
        device = input_ids_BT.device
        segments = Segments.of(marks_BT, step_on(device), device)
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
        figures = [torch.empty(len(target_N), dtype=torch.float32, device=hidden_NH.device) for _ in range(3)]
        head = cast if cast is not None else in_type(weight_VH, bias_V, dtype)
        scratch = Scratch(hidden_NH.device, dtype, min(shape.chunk, len(target_N)), len(weight_VH))
        for part in cut(len(target_N), shape.chunk):
            products_nV = scratch.products(hidden_NH[part].to(dtype), *head)
            statistics(products_nV, target_N[part], shape, scratch, out=(figures[0][part], figures[1][part], figures[2][part]))
        logprobs_N, entropies_N, normalisers_N = figures
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
        weight, bias = cast if cast[0] is not None else in_type(weight_VH, bias_V, ctx.dtype)
        cast_NH = hidden_NH.to(ctx.dtype)
        blocks = vocabulary_blocks(len(target_N), len(weight_VH), ctx.shape.chunk, on_cpu=hidden_NH.device.type == "cpu")
        scratch = Scratch(hidden_NH.device, ctx.dtype, len(target_N), blocks[0].stop)
        for block in blocks:
            block_vH = weight[block]
            d_logits_Nv = scratch.products(cast_NH, block_vH, None if bias is None else bias[block])
            bonus = None if entropy_gradient_N is None else (entropies_N, entropy_gradient_N)
            gradient_(d_logits_Nv, target_N - block.start, normalisers_N, gradient_N, bonus, ctx.shape, scratch)
            if d_hidden_NH is not None:
                d_hidden_NH += (d_logits_Nv @ block_vH).float()
            if d_weight_VH is not None:
                add_product(d_weight_VH[block], d_logits_Nv, cast_NH, adds=adds)
            if d_bias_V is not None:
                d_bias_V[block] = d_logits_Nv.sum(0, dtype=torch.float32)
        if ctx.own is not None:
            ctx.own.grad, d_weight_VH = d_weight_VH, None
        return None if d_hidden_NH is None else d_hidden_NH.to(hidden_NH.dtype), d_weight_VH, d_bias_V, None, None, None, None
