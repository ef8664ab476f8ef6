"""Log-probabilities of completion tokens, in chunks: the logits of all tokens never exist at once.

Shapes: _B rows of the batch, _T positions of a row, _N completion tokens (packed), _H hidden size, _V vocabulary.

A vocabulary of 152k and 32k tokens make 9.3 GiB of bfloat16 logits for one sequence; here a chunk of `chunk` tokens is projected,
reduced to one log-probability and one entropy a token, and computed again in the backward pass.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHUNK = 1024  # tokens; 1,024 x 152k float32 logits are 0.6 GiB


class Policy(nn.Module):
    """A causal language model whose forward pass gives log-probabilities of chosen tokens, and nothing of vocabulary size.

    It is this module that accelerate wraps, so that gradient hooks of every strategy see one forward call a micro-batch.
    """

    def __init__(self, model: Any, *, temperature: float = 1.0, chunk: int = CHUNK) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.chunk = chunk
        self.softcap = getattr(model.config, "final_logit_softcapping", None)

    def forward(
        self, input_ids_BT: Tensor, position_ids_BT: Tensor, attention_mask: Tensor | None, source_N: Tensor, target_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(log-probability [N] with gradient, entropy in nats [N] without), float32, at the sampling temperature.

        source_N: index into the flattened B x T positions of the position that predicts each token. target_N: the token's id.
        attention_mask: None for plain causal rows, or [B, 1, T, T] bool (True may be attended).
        """
        hidden_BTH = self.model.get_decoder()(
            input_ids=input_ids_BT, position_ids=position_ids_BT, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        hidden_NH = hidden_BTH.flatten(0, 1)[source_N]
        head = self.model.get_output_embeddings()
        logprobs, entropies = [], []
        for start in range(0, len(target_N), self.chunk):
            part = slice(start, start + self.chunk)
            logprob_n, entropy_n = checkpoint(self._chunk, head, hidden_NH[part], target_N[part], use_reentrant=False)
            logprobs.append(logprob_n)
            entropies.append(entropy_n)
        return torch.cat(logprobs), torch.cat(entropies)

    def _chunk(self, head: nn.Module, hidden_NH: Tensor, target_N: Tensor) -> tuple[Tensor, Tensor]:
        logits_NV = head(hidden_NH).float()
        if self.softcap:
            logits_NV = self.softcap * torch.tanh(logits_NV / self.softcap)
        if self.temperature != 1.0:
            logits_NV = logits_NV / self.temperature
        normaliser_N = logits_NV.logsumexp(-1)
        logprobs_N = logits_NV.gather(-1, target_N[:, None]).squeeze(-1) - normaliser_N
        with torch.no_grad():
            probabilities_NV = (logits_NV - normaliser_N[:, None]).exp_()
            entropy_N = normaliser_N - (probabilities_NV * logits_NV).sum(-1)
        return logprobs_N, entropy_N
