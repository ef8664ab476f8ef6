"""Choosing the next token: temperature, top-k, top-p, and one random stream a request.

Each request draws from a generator of its own, seeded by the request alone, so that what it draws depends on its logits and its seed and
not on which sequences run beside it.
"""

import torch

from r1cli.engines.protocol import SamplingParams

# Legend: B sequences, V vocabulary.


def sampling_logprobs(logits_BV: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Log-probabilities (B, V), float32, of the distribution tokens are drawn from: log_softmax(logits / temperature), what top_k and
    top_p exclude at -inf and the rest renormalised. Greedy: log_softmax(logits).
    """
    logits_BV = logits_BV.float()
    if params.temperature > 0:
        logits_BV = logits_BV / params.temperature
        if params.top_k > 0:
            kept = min(params.top_k, logits_BV.shape[-1])
            least_B1 = logits_BV.topk(kept).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
        if params.top_p < 1:
            logits_BV = _nucleus(logits_BV, params.top_p)
    return logits_BV.log_softmax(-1)


def _nucleus(logits_BV: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the smallest set of most likely tokens whose probability reaches `top_p` (always at least the first)."""
    sorted_BV, order_BV = logits_BV.sort(descending=True)
    probs_BV = sorted_BV.softmax(-1)
    before_BV = probs_BV.cumsum(-1) - probs_BV  # probability of all more likely tokens
    excluded_BV = (before_BV >= top_p).scatter(1, order_BV, before_BV >= top_p)
    return logits_BV.masked_fill(excluded_BV, -torch.inf)


def choose(logprobs_BV: torch.Tensor, generators: list[torch.Generator], params: SamplingParams) -> torch.Tensor:
    """The next token of each sequence (B,): the most likely one when greedy, else a draw by one uniform number of its own generator.

    Inverse transform sampling: one number a token, whatever the size of the vocabulary. The generators live on the CPU, so that a seed
    means the same on every device.
    """
    if params.temperature == 0:
        return logprobs_BV.argmax(-1)
    uniform_B = torch.stack([torch.rand((), generator=generator, dtype=torch.float64) for generator in generators])
    cumulative_BV = logprobs_BV.double().exp().cumsum(-1)
    target_B1 = uniform_B.to(logprobs_BV.device).unsqueeze(1) * cumulative_BV[:, -1:]
    drawn_B = torch.searchsorted(cumulative_BV, target_B1, right=True).squeeze(1)
    return drawn_B.clamp(max=logprobs_BV.shape[-1] - 1)
