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
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

CHUNK = 1024  # tokens; 1,024 x 152k float32 logits are 0.6 GiB


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
        own_scale = (getattr(model.config, "logit_scale", None) or 1.0) / (getattr(model.config, "logits_scaling", None) or 1.0)
        softcap = getattr(model.config, "final_logit_softcapping", None) or 0.0
        self.shape = HeadShape(scale=own_scale / temperature, softcap=softcap, chunk=chunk)

    def forward(
        self, input_ids_BT: Tensor, position_ids_BT: Tensor, attention_mask: Tensor | None, source_N: Tensor, target_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(log-probability [N], entropy in nats [N]), float32, both with gradient, at the sampling temperature.

        source_N: index into the flattened B x T positions of the position that predicts each token. target_N: the token's id.
        attention_mask: None for plain causal rows, or [B, 1, T, T] bool (True may be attended).
        """
        hidden_BTH = self.model.get_decoder()(
            input_ids=input_ids_BT, position_ids=position_ids_BT, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        hidden_NH = hidden_BTH.flatten(0, 1)[source_N]
        head = self.model.get_output_embeddings()
        kind = hidden_NH.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else head.weight.dtype
        logprobs_N, entropies_N = TokenLogprobs.apply(hidden_NH, head.weight, getattr(head, "bias", None), target_N, self.shape, dtype)
        return logprobs_N, entropies_N


class TokenLogprobs(torch.autograd.Function):
    """(hidden [N, H], head weight [V, H], bias [V] or None, target [N]) -> (log-probability [N], entropy [N]), float32.

    dtype: of the two matrix products. Softmax, entropy and the sum over chunks are float32 in any case.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, target_N: Tensor, shape: HeadShape, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        logprobs_N = torch.empty(len(target_N), dtype=torch.float32, device=hidden_NH.device)
        entropies_N, normalisers_N = torch.empty_like(logprobs_N), torch.empty_like(logprobs_N)
        head = weight_VH.to(dtype), None if bias_V is None else bias_V.to(dtype)
        for part in _chunks(len(target_N), shape.chunk):
            logits_nV = _logits(hidden_NH[part].to(dtype), head, shape)
            chosen_n = logits_nV.gather(-1, target_N[part, None]).squeeze(-1)
            all_logprobs_nV = logits_nV.log_softmax(-1)
            logprobs_N[part] = all_logprobs_nV.gather(-1, target_N[part, None]).squeeze(-1)
            normalisers_N[part] = chosen_n - logprobs_N[part]
            entropies_N[part] = -torch.exp(all_logprobs_nV, out=logits_nV).mul_(all_logprobs_nV).sum(-1)
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, target_N, normalisers_N, entropies_N)
        ctx.shape, ctx.dtype = shape, dtype
        ctx.set_materialize_grads(False)
        return logprobs_N, entropies_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_N: Tensor | None, entropy_gradient_N: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, bias_V, target_N, normalisers_N, entropies_N = ctx.saved_tensors
        gradient_N = torch.zeros_like(normalisers_N) if gradient_N is None else gradient_N
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        d_hidden_NH = torch.empty_like(hidden_NH) if wants_hidden else None
        d_weight_VH = torch.zeros_like(weight_VH) if wants_weight else None
        d_bias_V = torch.zeros_like(bias_V) if wants_bias else None
        head = weight_VH.to(ctx.dtype), None if bias_V is None else bias_V.to(ctx.dtype)
        for part in _chunks(len(target_N), ctx.shape.chunk):
            hidden_nH = hidden_NH[part].to(ctx.dtype)
            bonus = None if entropy_gradient_N is None else (entropies_N[part], entropy_gradient_N[part])
            logits_nV = _logits(hidden_nH, head, ctx.shape)
            d_logits_nV = _d_logits(logits_nV, normalisers_N[part], target_N[part], gradient_N[part], bonus, ctx.shape)
            d_logits_nV = d_logits_nV.to(ctx.dtype)
            if d_hidden_NH is not None:
                d_hidden_NH[part] = d_logits_nV @ head[0]
            if d_weight_VH is not None and d_weight_VH.dtype == ctx.dtype:
                d_weight_VH.addmm_(d_logits_nV.T, hidden_nH)
            elif d_weight_VH is not None:
                d_weight_VH += d_logits_nV.T @ hidden_nH
            if d_bias_V is not None:
                d_bias_V += d_logits_nV.sum(0)
        return d_hidden_NH, d_weight_VH, d_bias_V, None, None, None


def _chunks(count: int, chunk: int) -> list[slice]:
    return [slice(start, start + chunk) for start in range(0, count, chunk)]


def _logits(hidden_nH: Tensor, head: tuple[Tensor, Tensor | None], shape: HeadShape) -> Tensor:
    """The logits that are sampled from, [n, V] float32, in a buffer that the caller may overwrite."""
    logits_nV = linear(hidden_nH, *head).float()
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
