"""The policy objectives, as pure functions over packed tokens.

Shapes: _N completion tokens of a micro-batch, packed; _S sequences (completions) of the micro-batch. `sequence_N` holds, for each token,
the index of its sequence in _S.

Every objective is the sum over tokens of `token_loss_N * weight_N`. The weights carry the divisor, and the divisor is counted over the
whole optimizer step (all micro-batches, all processes) before the first backward pass; so the gradient does not depend on how the step is
cut into micro-batches (`token_weights`; "bnpo" is the exception by definition).

Sources: GRPO: DeepSeek-R1 (arXiv 2501.12948) equations 1-3. Dr. GRPO: arXiv 2503.20783. DAPO: arXiv 2503.14476 equation 8.
GSPO: arXiv 2507.18071. CISPO: MiniMax-M1, arXiv 2506.13585. KL estimators k1-k3: Schulman, "Approximating KL Divergence" (2020).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LOSSES = ("grpo", "dr_grpo", "dapo", "bnpo", "gspo", "cispo")


@dataclass(frozen=True)
class StepCounts:
    """What the divisors are counted over: one optimizer step, all processes, completions that give no gradient included.

    sequences: completions, truncated ones included. tokens: of those that are not masked. max_completion_length: the limit in force.
    """

    sequences: int
    tokens: int
    max_completion_length: int


def token_weights(kind: str, counts: StepCounts, lengths_S: Tensor, sequence_N: Tensor, mask_N: Tensor, *, microbatches: int = 1) -> Tensor:
    """Weight of each token in the sum that is the loss, shape [N], float32.

    lengths_S: unmasked tokens of each sequence. mask_N: 1 for tokens that count. microbatches: only for "bnpo", which averages over each
    micro-batch on its own and so changes with the way a step is cut.
    """
    mask_N = mask_N.float()
    if kind in ("grpo", "gspo"):  # mean over sequences of the mean over tokens
        return mask_N / (lengths_S.clamp(min=1).float()[sequence_N] * counts.sequences)
    if kind == "dr_grpo":  # a constant divisor: no bias towards short right or long wrong completions
        return mask_N / (counts.sequences * counts.max_completion_length)
    if kind in ("dapo", "cispo"):  # mean over all tokens of the step
        return mask_N / max(counts.tokens, 1)
    if kind == "bnpo":
        return mask_N / (mask_N.sum().clamp(min=1) * microbatches)
    raise ValueError(f"unknown loss {kind!r}; known: {', '.join(LOSSES)}")


def kl_estimate(policy_logprobs_N: Tensor, reference_logprobs_N: Tensor, kind: str = "k3") -> Tensor:
    """Per-token estimate of KL(policy || reference), shape [N]. With d = policy - reference: k1 = d, k2 = d^2/2, k3 = exp(-d) - 1 + d.

    k3 is the one of the GRPO objective: pi_ref/pi_theta - log(pi_ref/pi_theta) - 1, never negative. At d = 0.1: 0.004837.
    """
    d_N = policy_logprobs_N - reference_logprobs_N
    if kind == "k1":
        return d_N
    if kind == "k2":
        return d_N**2 / 2
    if kind == "k3":
        return torch.expm1(-d_N) + d_N
    raise ValueError(f"unknown KL estimate {kind!r}; known: k1, k2, k3")


def sequence_mean(values_N: Tensor, sequence_N: Tensor, mask_N: Tensor, sequences: int) -> Tensor:
    """Mean of the unmasked tokens of each sequence, shape [S]; 0 where a sequence has none."""
    zeros = torch.zeros(sequences, dtype=values_N.dtype, device=values_N.device)
    total_S = zeros.index_add(0, sequence_N, values_N * mask_N)
    count_S = zeros.index_add(0, sequence_N, mask_N.to(values_N.dtype))
    return total_S / count_S.clamp(min=1)


def log_ratio(kind: str, policy_logprobs_N: Tensor, old_logprobs_N: Tensor, sequence_N: Tensor, mask_N: Tensor, sequences: int) -> Tensor:
    """log(pi_theta / pi_old) of each token, shape [N]. For "gspo" the mean over the sequence stands at each of its tokens; its gradient
    reaches every token of the sequence (GSPO, equation 7)."""
    ratio_N = policy_logprobs_N - old_logprobs_N
    if kind == "gspo":
        return sequence_mean(ratio_N, sequence_N, mask_N, sequences)[sequence_N]
    return ratio_N


def clipped_loss(
    kind: str,
    log_ratio_N: Tensor,
    policy_logprobs_N: Tensor,
    advantages_N: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    clip_cap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The policy-gradient part, per token, and which tokens the clip silenced: ([N], [N] bool).

    -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A). With clip_low above 1 the lower bound is negative and never binds: at the paper's
    eps = 10 only the cap 11 does, and only for positive advantages. "cispo" keeps every token's gradient and caps its weight instead:
    -stopgrad(min(rho, 1 + clip_high)) A log pi.

    clip_cap: the ratio is held below this for negative advantages too, where the clip alone lets it grow without bound (dual clip,
    arXiv 1912.09729 equation 5, where it is c). "cispo" caps its weight in any case and takes none.
    """
    ratio_N = log_ratio_N.exp()
    if kind == "cispo":
        weight_N = ratio_N.detach().clamp(max=1 + clip_high)
        return -weight_N * advantages_N * policy_logprobs_N, ratio_N.detach() > 1 + clip_high
    bounded_N = ratio_N.clamp(1 - clip_low, 1 + clip_high)
    capped_N = ratio_N if clip_cap is None else ratio_N.clamp(max=clip_cap)
    loss_N = -torch.minimum(capped_N * advantages_N, bounded_N * advantages_N)
    with torch.no_grad():
        silenced_N = ((ratio_N < 1 - clip_low) & (advantages_N < 0)) | ((ratio_N > 1 + clip_high) & (advantages_N > 0))
        if clip_cap is not None:
            silenced_N |= (ratio_N > clip_cap) & (advantages_N < 0)
    return loss_N, silenced_N
