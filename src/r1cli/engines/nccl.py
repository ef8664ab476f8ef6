"""New weights for `vllm serve` over NCCL, from the trainer's GPU to the servers' without a folder between: vLLM's weight transfer.

    VLLM_SERVER_DEV_MODE=1 vllm serve FOLDER --logprobs-mode processed_logprobs --weight-transfer-config '{"backend": "nccl"}'

The trainer is rank 0 of a group of its own, beside every worker of every server. It needs vLLM installed (for the transfer; it loads no
model), a GPU that is not the servers', and an address the servers reach. Written against the source of vLLM 0.32; the calls to the servers
and to vLLM are tested, the transfer itself has not run: there was no GPU.
"""

import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx

from r1cli.engines.fleet import Fleet, Server
from r1cli.engines.reload import INFO_SECONDS, RELOAD_SECONDS, order
from r1cli.engines.watchdog import Watchdog
from r1cli.errors import Exit, R1Error

if TYPE_CHECKING:
    import torch

START = 'VLLM_SERVER_DEV_MODE=1 vllm serve FOLDER --logprobs-mode processed_logprobs --weight-transfer-config \'{"backend": "nccl"}\''


class ServersAsOne:
    """What vLLM's trainer side calls a client, over all servers at the same time: each call returns when the last server has answered.

    workers: processes (tensor x pipeline x data parallel) of each server; they get ranks one after the other behind the trainer's 0.
    """

    def __init__(self, fleet: Fleet, workers: list[int]) -> None:
        self._fleet = fleet
        self._offsets = [1 + sum(workers[:number]) for number in range(len(workers))]
        self.world_size = 1 + sum(workers)

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        bodies = [{"init_info": {**init_info, "rank_offset": offset}} for offset in self._offsets]
        self._all("/init_weight_transfer_engine", bodies, "open the NCCL group")

    def shutdown_weight_transfer_engine(self) -> None:
        self._all("/shutdown_weight_transfer_engine", None, "close the NCCL group")

    def start_weight_update(self) -> None:
        self._all("/start_weight_update", None, "begin to take weights")

    def update_weights(self, update_info: Any) -> None:
        self._all("/update_weights", [{"update_info": update_info}] * len(self._offsets), "receive the new weights")

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._all("/finish_weight_update", None, "finish with the new weights")

    def _all(self, path: str, bodies: list[dict[str, Any]] | None, what: str) -> None:
        servers = self._fleet.servers
        calls: list[tuple[Server, Any]] = [(server, bodies[number] if bodies else None) for number, server in enumerate(servers)]
        with ThreadPoolExecutor(len(servers)) as pool:  # all join one group: none answers before the last was asked
            list(pool.map(lambda call: order(self._fleet, call[0], path, call[1], what), calls))


class Tensors:
    """vLLM's weight source over named tensors that are whole and on the trainer's GPU."""

    def __init__(self) -> None:
        self.pairs: list[tuple[str, torch.Tensor]] = []

    def metadata(self) -> list[Any]:
        from vllm.distributed.weight_transfer import ParamMeta

        return [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self.pairs]

    def __iter__(self) -> Iterator[tuple[str, "torch.Tensor"]]:
        return iter(self.pairs)

    def held_names(self) -> None:
        return None


class NcclTransfer:
    """`push` hands weights over; the group is opened with the first. connect: opens vLLM's trainer side, for tests."""

    def __init__(self, fleet: Fleet, connect: Callable[[ServersAsOne, Tensors, str, int], Any] | None = None) -> None:
        self._fleet, self._connect = fleet, connect or _open
        self._tensors = Tensors()
        self._group: Any = None
        self._watchdog = Watchdog()

    def push(self, weights: Iterable[tuple[str, "torch.Tensor"]]) -> None:
        """Send every tensor to every server, and have them forget what the old weights computed. Raises `R1Error` (exit 3)."""
        self._tensors.pairs = list(weights)
        _until_computed(tensor for _, tensor in self._tensors.pairs)
        try:
            if self._group is None:
                client = ServersAsOne(self._fleet, [_workers(self._fleet, server) for server in self._fleet.servers])
                host = _own_address(self._fleet.servers[0].url)
                with self._watchdog.waiting(f"{client.world_size - 1} server workers to join an NCCL group at {host}", RELOAD_SECONDS):
                    self._group = self._connect(client, self._tensors, host, _free_port(host))
            with self._watchdog.waiting(f"{len(self._tensors.pairs)} tensors to reach the servers by NCCL", RELOAD_SECONDS):
                self._group.send_weights()
        finally:
            self._tensors.pairs = []
        for server in self._fleet.servers:
            forgot = order(self._fleet, server, "/reset_prefix_cache", None, "drop its cached prefixes")
            if not forgot.get("success", True):
                raise R1Error(
                    f"{server.url} kept prefixes that the old weights computed",
                    code=Exit.ENVIRONMENT,
                    hint="something else draws from this server: use one that only this run has",
                )

    def close(self) -> None:
        self._watchdog.close()


def _until_computed(tensors: Iterable["torch.Tensor"]) -> None:
    """Wait for what is still being computed of them (an adapter's sum): vLLM packs them on streams that do not wait for this one."""
    if any(getattr(tensor, "is_cuda", False) for tensor in tensors):
        import torch

        torch.cuda.current_stream().synchronize()


def _open(client: ServersAsOne, tensors: Tensors, host: str, port: int) -> Any:
    """vLLM's trainer side as rank 0."""
    import torch

    if not torch.cuda.is_available():
        raise R1Error("weights by NCCL need a GPU here", hint="--server-weights folder", code=Exit.ENVIRONMENT)
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo, NCCLTrainerWeightTransferEngine

    info = NCCLTrainerInitInfo(rank=0, master_address=host, master_port=port, world_size=client.world_size)
    return NCCLTrainerWeightTransferEngine.trainer_init(info, client=client, source=tensors)


def _workers(fleet: Fleet, server: Server) -> int:
    """Worker processes of a server; refused when it was not started for NCCL."""
    try:
        answer = fleet.ask(server, "GET", "/get_world_size", seconds=INFO_SECONDS)
    except httpx.HTTPError as error:
        raise R1Error(f"{server.url} does not answer: {error}", hint="start it again, then --resume", code=Exit.ENVIRONMENT) from None
    if answer.status_code != 200:
        raise R1Error(
            f"{server.url} takes no weights by NCCL: it has no development endpoints", hint=f"start it as: {START}", code=Exit.ENVIRONMENT
        )
    return int(answer.json()["world_size"])


def _own_address(url: str) -> str:
    """The address of this machine on the way to a server."""
    parts = httpx.URL(url)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # connecting a datagram socket sends nothing
        probe.connect((parts.host, parts.port or 80))
        return str(probe.getsockname()[0])


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
