"""The reference policy follows the policy: a hard copy now and then, or a moving average."""

from typing import Any

import torch

from r1cli.train.checkpoints import named_weights
from r1cli.train.lora import LoraReference
from r1cli.train.strategy import is_sharded


@torch.no_grad()
def renew_reference(accelerator: Any, reference: Any, policy: Any, mix: float = 1.0) -> None:
    """reference = mix * policy + (1 - mix) * reference. mix 1 is a copy (R1-Zero does it every 400 steps); a small one after every step
    is an exponential moving average. Every process must call it."""
    if isinstance(reference, LoraReference):
        assert mix == 1.0
        reference.renew()
        return
    own = dict(reference.model.named_parameters())
    sharded = is_sharded(accelerator)  # cut alike: each process renews its part
    values = accelerator.unwrap_model(policy).model.named_parameters() if sharded else named_weights(accelerator, policy)
    for name, value in values:
        if name not in own:  # a tied head, under its second name
            continue
        if mix == 1.0:
            own[name].copy_(value)
        else:
            own[name].lerp_(value.to(own[name]), mix)


def share_of_policy(mix: float, every: int, before: int, after: int) -> float:
    """`mix` for all renewals that are due between two counts of steps done, at once: k of them leave (1 - mix)^k of the old reference."""
    return 1.0 - (1.0 - mix) ** (after // every - before // every)


def due(every: int, before: int, after: int) -> bool:
    """Whether something that happens every `every` steps (0: never) falls between two counts of steps done."""
    return every > 0 and after // every > before // every
