"""Correction for what the sampler is not: weights pi_old / pi_sampler, and how far the two are apart, by length of the completion.

The sampler computes with other kernels and in lower precision than the trainer, and with `--rollout-lag` it holds older weights; its
completions are then drawn from a slightly different policy than the one that is updated. Shapes as in `losses.py`.

Sources: truncated importance sampling, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training" (Yao et al., 2025); the
masked form, "Every Step Evolves" (arXiv 2510.18855, IcePop); Ionides, "Truncated Importance Sampling" (2008).
"""

import torch
from torch import Tensor

from r1cli.train.losses import kl_estimate, sequence_mean

LEVELS = ("token", "geometric", "sequence")
RULES = ("truncate", "mask")
LENGTHS = (256, 1024, 4096, 16384)  # tokens; a bucket holds the completions up to this, the last one those beyond


def importance_weights(
    old_logprobs_N: Tensor,
    sampler_logprobs_N: Tensor,
    sequence_N: Tensor,
    sequences: int,
    *,
    level: str = "token",
    rule: str = "truncate",
    floor: float = 0.0,
    cap: float = 0.0,
) -> Tensor:
    """Weight of each token, shape [N], no gradient.

    level:      token      pi_old / pi_sampler of the token
                geometric  its geometric mean over the sequence, at each token
                sequence   its product over the sequence: unbiased, but it starves long completions
    rule:       truncate   held inside [floor, cap]
                mask       0 outside of [floor, cap]
    floor, cap: 0 is no bound; without any bound the correction is off (all ones).
    """
    if level not in LEVELS:
        raise ValueError(f"unknown level {level!r}; known: {', '.join(LEVELS)}")
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}; known: {', '.join(RULES)}")
    if not cap and not floor:
        return torch.ones_like(old_logprobs_N)
    log_weight_N = (old_logprobs_N - sampler_logprobs_N).detach()
    if level != "token":
        ones_N = torch.ones_like(log_weight_N)
        mean_S = sequence_mean(log_weight_N, sequence_N, ones_N, sequences)
        lengths_S = torch.zeros_like(mean_S).index_add(0, sequence_N, ones_N)
        log_weight_N = (mean_S * lengths_S if level == "sequence" else mean_S)[sequence_N]
    weight_N = log_weight_N.exp()
    highest = cap or torch.inf
    if rule == "truncate":
        return weight_N.clamp(floor, highest)
    return torch.where((weight_N >= floor) & (weight_N <= highest), weight_N, torch.zeros_like(weight_N))


def mismatch_figures(
    old_logprobs_N: Tensor, sampler_logprobs_N: Tensor, weight_N: Tensor, share_N: Tensor, lengths_S: Tensor, sequence_N: Tensor
) -> dict[str, Tensor]:
    """Sums that make the figures of `mismatch_record`: of everything, and of each bucket of lengths.

    share_N: the part of each token in the step's mean. The divergence is KL(sampler || trainer) by k3: the tokens come from the sampler.
    """
    divergence_N = kl_estimate(sampler_logprobs_N, old_logprobs_N.detach(), "k3")
    bucket_N = torch.bucketize(lengths_S, torch.tensor(LENGTHS, device=lengths_S.device))[sequence_N]
    figures = {"sampler_mismatch": (divergence_N * share_N).sum(), "importance_weight": (weight_N * share_N).sum()}
    for number, name in enumerate(bucket_names()):
        part_N = share_N * (bucket_N == number)
        figures[f"share/{name}"] = part_N.sum()
        figures[f"sampler_mismatch/{name}"] = (divergence_N * part_N).sum()
        figures[f"importance_weight/{name}"] = (weight_N * part_N).sum()
    return figures


def mismatch_record(figures: dict[str, float]) -> dict[str, float]:
    """The figures of a step with each bucket's sums turned into means; a bucket without tokens says nothing."""
    record = {name: value for name, value in figures.items() if name.partition("/")[2] not in bucket_names()}
    for name in bucket_names():
        share = figures.get(f"share/{name}", 0.0)
        if share > 0:
            record |= {f"{kind}/{name}": figures[f"{kind}/{name}"] / share for kind in ("sampler_mismatch", "importance_weight")}
    return record


def bucket_names() -> list[str]:
    """`up to 256 tokens` ... `over 16384 tokens`, as the metrics spell them."""
    return [*(f"le_{length}" for length in LENGTHS), f"gt_{LENGTHS[-1]}"]
