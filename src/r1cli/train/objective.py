"""The GRPO objective of one update: what it divides by, and the loss of a micro-batch. Shapes as in `losses.py`."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from r1cli.train.batches import MicroBatch, Sample
from r1cli.train.grpo_config import GrpoConfig
from r1cli.train.importance import importance_weights, mismatch_figures
from r1cli.train.losses import StepCounts, clipped_loss, kl_estimate, log_ratio, token_weights

TOKEN_FIGURES = ("entropy", "clip_fraction", "importance_weight", "sampler_mismatch", "kl")


def gives_gradient(sample: Sample, config: GrpoConfig) -> bool:
    """False when nothing of the sample can move the weights."""
    if config.mask_truncated and sample.truncated:
        return False
    return sample.advantage != 0.0 or config.beta > 0 or config.entropy_coef != 0


def count(accelerator: Any, chosen: Sequence[Sample], config: GrpoConfig, limit: int) -> StepCounts | None:
    """The divisors of one update over all processes; None when no process has anything to train on. limit: max_completion_length."""
    masked = [config.mask_truncated and s.truncated for s in chosen]
    tokens = sum(len(s.completion_ids) for s, out in zip(chosen, masked, strict=True) if not out)
    useful = sum(gives_gradient(s, config) for s in chosen)
    totals = accelerator.reduce(torch.tensor([len(chosen), tokens, useful], dtype=torch.long, device=accelerator.device), "sum").tolist()
    return StepCounts(totals[0], totals[1], limit) if totals[2] else None


class Objective:
    """The GRPO objective of a micro-batch: (batch, log-probabilities, entropies) -> (its part of the loss, figures to sum).

    old, reference: {sample index: log-probabilities of its tokens}; empty when the policy itself is the old one, or there is no KL.
    idle: this process has nothing to train on and only takes part in collectives. microbatches: of all processes, for "bnpo".
    """

    def __init__(
        self,
        config: GrpoConfig,
        counts: StepCounts,
        old: dict[int, Tensor],
        reference: dict[int, Tensor],
        *,
        idle: bool,
        microbatches: int,
    ) -> None:
        self.config, self.counts, self.old, self.reference = config, counts, old, reference
        self.idle, self.microbatches = idle, microbatches

    def __call__(self, batch: MicroBatch, policy_logprobs_N: Tensor, entropies_N: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        config, device = self.config, policy_logprobs_N.device
        samples, sequence_N = batch.samples, batch.sequence_N
        mask_N = torch.full_like(policy_logprobs_N, 0.0 if self.idle else 1.0)
        share_N = mask_N / max(self.counts.tokens, 1)
        lengths_S = torch.tensor([len(s.completion_ids) for s in samples], device=device)
        advantages_N = torch.tensor([s.advantage for s in samples], device=device)[sequence_N]
        old_logprobs_N = _packed(self.old, samples, device) if self.old else policy_logprobs_N.detach()
        sampler_logprobs_N = torch.tensor([p for s in samples for p in s.sampler_logprobs or ()], device=device)

        ratio_N = log_ratio(config.loss, policy_logprobs_N, old_logprobs_N, sequence_N, mask_N, len(samples))
        loss_N, silenced_N = clipped_loss(
            config.loss,
            ratio_N,
            policy_logprobs_N,
            advantages_N,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            clip_cap=config.clip_cap,
        )
        correction_N = importance_weights(
            old_logprobs_N,
            sampler_logprobs_N,
            sequence_N,
            len(samples),
            level=config.importance,
            rule=config.importance_rule,
            floor=config.importance_floor,
            cap=config.importance_cap,
        )
        loss_N = loss_N * correction_N
        figures = {
            "entropy": (entropies_N.detach() * share_N).sum(),
            "clip_fraction": (silenced_N * share_N).sum(),
            **mismatch_figures(old_logprobs_N, sampler_logprobs_N, correction_N, share_N, lengths_S, sequence_N),
            "trained_share": share_N.sum(),
        }
        if self.reference:
            kl_N = kl_estimate(policy_logprobs_N, _packed(self.reference, samples, device), config.kl)
            figures["kl"] = (kl_N.detach() * share_N).sum()
            if config.kl_correction:  # of each token, also where the objective's ratio is a sequence's: the divergence is a sum over tokens
                kl_N = kl_N * (policy_logprobs_N - old_logprobs_N).exp()
            if config.rollout_lag:  # the tokens are of weights one update older, and not only of other kernels
                kl_N = kl_N * correction_N
            loss_N = loss_N + config.beta * kl_N
        weight_N = token_weights(config.loss, self.counts, lengths_S, sequence_N, mask_N, microbatches=self.microbatches)
        loss = (loss_N * weight_N).sum()
        if config.entropy_coef:
            loss = loss - config.entropy_coef * (entropies_N * share_N).sum()
        return loss, figures


def _packed(logprobs: dict[int, Tensor], samples: Sequence[Sample], device: torch.device) -> Tensor:
    return torch.cat([logprobs[s.index] for s in samples]).to(device)
