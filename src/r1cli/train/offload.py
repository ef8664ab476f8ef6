"""Memory of the device for what is at work: optimizer states and the reference lie in the machine's memory between their uses.

A step of GRPO samples, scores, measures the reference, and updates; on one GPU the engine, the reference (2 bytes a weight) and AdamW's
states (8 bytes a weight) need not be there together. Moving them costs a copy over the bus each way, once an update or a rollout.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

OPTIMIZER, REFERENCE = "optimizer", "reference"
PARTS = (OPTIMIZER, REFERENCE)
HOST = torch.device("cpu")

Move = Callable[[Tensor, torch.device], Tensor]


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device; in pinned memory when it leaves a GPU, from where it comes back at the speed of the bus."""
    if device.type == "cpu" and tensor.is_cuda:
        return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor)
    return tensor.to(device)


class OffloadedStates:
    """Keeps the states of an optimizer in the machine's memory but for its own steps.

    optimizer: torch's own, which `accelerate` may have wrapped. move: how a tensor goes to a device (a test has no second one).
    """

    def __init__(self, optimizer: Optimizer, move: Move = moved) -> None:
        self._optimizer, self._move = optimizer, move
        optimizer.register_step_pre_hook(lambda *_: self._fetch())
        optimizer.register_step_post_hook(lambda *_: self.rest())

    def rest(self) -> None:
        """Send them home: after a step, and after states were loaded."""
        self._each(lambda weight, state: self._move(state, HOST))
        give_back_device_memory()

    def _fetch(self) -> None:
        self._each(lambda weight, state: self._move(state, weight.device))

    def _each(self, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        for weight, states in self._optimizer.state.items():
            for name, state in states.items():
                if isinstance(state, Tensor) and state.ndim:  # the count of steps stays
                    states[name] = change(weight, state)


class OffloadedReference:
    """A reference policy that is on the device only `with visiting(reference)`."""

    def __init__(self, policy: Any, device: torch.device, move: Move = moved) -> None:
        self.policy, self._device, self._move = policy, device, move
        self.leave()

    @property
    def model(self) -> Any:
        return self.policy.model

    def arrive(self) -> None:
        self._all_to(self._device)

    def leave(self) -> None:
        self._all_to(HOST)
        give_back_device_memory()

    def _all_to(self, device: torch.device) -> None:
        for part in (*self.policy.parameters(), *self.policy.buffers()):
            part.data = self._move(part.data, device)

    def eval(self) -> "OffloadedReference":
        self.policy.eval()
        return self

    def __call__(self, *batch: Tensor) -> Any:
        return self.policy(*batch)

    def state_dict(self) -> dict[str, Tensor]:
        return self.policy.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take weights by name. A tied one has two names in some states (`Module.state_dict`) and one in others (sharded runs)."""
        for name, weight in self.policy.named_parameters():
            weight.data.copy_(state[name])


@contextmanager
def visiting(reference: Any) -> Iterator[None]:
    """Have the reference on the device meanwhile, if it is elsewhere between its uses."""
    away = isinstance(reference, OffloadedReference)
    if away:
        reference.arrive()
    try:
        yield
    finally:
        if away:
            reference.leave()


def give_back_device_memory() -> None:
    """What torch has kept of freed blocks is the engine's room."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
