"""Memory of the device for what is at work: optimizer states and the reference lie in the machine's memory between their uses.

A step of GRPO samples, scores, measures the reference, and updates; on one GPU the engine, the reference (2 bytes a weight) and AdamW's
states (8 bytes a weight) need not be there together. Moving them costs a copy over the bus each way, once an update or a rollout.
"""

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

OPTIMIZER, REFERENCE = "optimizer", "reference"
PARTS = (OPTIMIZER, REFERENCE)
PORTABLE = 1  # cudaHostRegisterPortable: page-locked for every CUDA context
_LOCKED: list[Tensor] = []  # what CUDA has locked must not be freed

Rooms = Callable[[Sequence[Tensor]], list[Tensor]]


def page_locked(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Room in the machine's memory for tensors of a GPU: of the same shapes and types, and copied at the speed of the bus.

    The memory is torch's ordinary one, locked afterwards: its own pinned memory comes in powers of two, nearly twice what a 7B model's
    states need (pytorch/pytorch#150517). It is kept to the end of the process.
    """
    types = dict.fromkeys(each.dtype for each in tensors)
    whole = {dtype: torch.empty(sum(each.numel() for each in tensors if each.dtype == dtype), dtype=dtype) for dtype in types}
    for memory in whole.values():
        _lock(memory)
    found, used = [], dict.fromkeys(whole, 0)
    for each in tensors:
        begin = used[each.dtype]
        used[each.dtype] = end = begin + each.numel()
        found.append(whole[each.dtype][begin:end].view(each.shape))
    return found


def _lock(memory: Tensor) -> None:
    if not memory.nbytes:  # CUDA refuses it, and the error would come up in its next call
        return
    error = int(torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), memory.nbytes, PORTABLE))
    if error:
        size = f"{memory.nbytes / 2**30:.1f} GiB"
        logging.getLogger("r1cli").warning("%s of --offload cannot be page-locked (CUDA error %d): copies are slower", size, error)
        return
    _LOCKED.append(memory)


class Home:
    """Where tensors of a device are between their uses: each has its own room, asked for when it first goes there. rooms: makes them."""

    def __init__(self, rooms: Rooms) -> None:
        self._make, self._rooms = rooms, dict[Hashable, Tensor]()

    def take_in(self, tensors: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
        """What is in the rooms of these tensors, by the same names, after they were copied there."""
        new = {name: tensor for name, tensor in tensors.items() if name not in self._rooms}
        if new:
            self._rooms.update(zip(new, self._make(list(new.values())), strict=True))
        return {name: self._rooms[name].copy_(tensor) for name, tensor in tensors.items()}


class OffloadedStates:
    """Keeps the states of an optimizer in the machine's memory but for its own steps.

    optimizer: torch's own, which `accelerate` may have wrapped.
    """

    def __init__(self, optimizer: Optimizer, rooms: Rooms = page_locked) -> None:
        self._optimizer, self._home = optimizer, Home(rooms)
        optimizer.register_step_pre_hook(lambda *_: self._fetch())
        optimizer.register_step_post_hook(lambda *_: self.rest())

    def rest(self) -> None:
        """Send them home: after a step, and after states were loaded."""
        states = {(weight, name): state for weight, name, state in self._states()}
        for (weight, name), room in self._home.take_in(states).items():
            self._optimizer.state[weight][name] = room
        give_back_device_memory()

    def _fetch(self) -> None:
        for weight, name, room in list(self._states()):
            self._optimizer.state[weight][name] = room.to(weight.device, copy=True)

    def _states(self) -> Iterator[tuple[Tensor, str, Tensor]]:
        for weight, states in self._optimizer.state.items():
            for name, state in states.items():
                if isinstance(state, Tensor) and state.ndim:  # the count of steps stays
                    yield weight, name, state


class OffloadedReference:
    """A reference policy that is on the device only `with visiting(reference)`."""

    def __init__(self, policy: Any, device: torch.device, rooms: Rooms = page_locked) -> None:
        self.policy, self._device, self._home = policy, device, Home(rooms)
        self.leave()

    @property
    def model(self) -> Any:
        return self.policy.model

    def arrive(self) -> None:
        for part in self._parts():
            part.data = part.data.to(self._device, copy=True)

    def leave(self) -> None:
        self.policy.forget_copy()
        for part, room in self._home.take_in({part: part.data for part in self._parts()}).items():
            part.data = room
        give_back_device_memory()

    def _parts(self) -> list[Tensor]:
        return [*self.policy.parameters(), *self.policy.buffers()]

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
