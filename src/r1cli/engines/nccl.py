"""New weights for `vllm serve` over NCCL, from the trainer's GPU to the servers' without a folder between: vLLM's weight transfer.

    VLLM_SERVER_DEV_MODE=1 vllm serve FOLDER --logprobs-mode processed_logprobs --weight-transfer-config '{"backend": "nccl"}'

The trainer is rank 0 of a group of its own, beside every worker of every server. It needs vLLM installed (for the transfer; it loads no
model; the servers' version is the one to have), a GPU that is not the servers', and an address the servers reach. Written against the
source of vLLM 0.32; ran with 0.26, trainer and server on one GPU (tests/engines/test_vllm_gpu.py).
"""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import httpx

from r1cli.engines.fleet import Fleet, Server
from r1cli.engines.reload import INFO_SECONDS, RELOAD_SECONDS, configuration, order
from r1cli.engines.watchdog import Watchdog, end_with
from r1cli.errors import Exit, R1Error

if TYPE_CHECKING:
    import torch

START = 'VLLM_SERVER_DEV_MODE=1 vllm serve FOLDER --logprobs-mode processed_logprobs --weight-transfer-config \'{"backend": "nccl"}\''
LEFT_ALONE_SECONDS = 10.0  # that NCCL may wait on after a server has said no


class ServersAsOne:
    """What vLLM's trainer side calls a client, over all servers at the same time: each call returns when the last server has answered.

    workers: processes (tensor x pipeline x data parallel) of each server; they get ranks one after the other behind the trainer's 0.
    refused: hears at once of a server that says no, while the trainer may still wait for it inside NCCL, which nothing interrupts.
    """

    def __init__(self, fleet: Fleet, workers: list[int], refused: Callable[[R1Error], None]) -> None:
        self._fleet, self._refused = fleet, refused
        self._offsets = [1 + sum(workers[:number]) for number in range(len(workers))]
        self.world_size = 1 + sum(workers)

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        bodies = [{"init_info": {**init_info, "rank_offset": offset}} for offset in self._offsets]
        self._all("/init_weight_transfer_engine", bodies, "open the NCCL group")

    def shutdown_weight_transfer_engine(self) -> None:
        self._all("/shutdown_weight_transfer_engine", None, "close the NCCL group", LEFT_ALONE_SECONDS)

    def start_weight_update(self) -> None:
        self._all("/start_weight_update", None, "begin to take weights")

    def update_weights(self, update_info: Any) -> None:
        self._all("/update_weights", [{"update_info": update_info}] * len(self._offsets), "receive the new weights")

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._all("/finish_weight_update", None, "finish with the new weights")

    def _all(self, path: str, bodies: list[dict[str, Any]] | None, what: str, seconds: float = RELOAD_SECONDS) -> None:
        servers = self._fleet.servers
        calls: list[tuple[Server, Any]] = [(server, bodies[number] if bodies else None) for number, server in enumerate(servers)]
        begun(
            [partial(self._order, server, path, body, what, seconds) for server, body in calls]
        )()  # none answers before the last is asked

    def _order(self, server: Server, path: str, body: Any, what: str, seconds: float) -> None:
        try:
            order(self._fleet, server, path, body, what, seconds)
        except R1Error as error:
            self._refused(error)
            raise


def begun(calls: Sequence[Callable[[], None]]) -> Callable[[], None]:
    """Begin all of these, each on a thread of its own; what comes back waits for them and raises what one of them raised.

    Where nobody waits, because NCCL failed meanwhile, the end of the process does not either: a server may answer minutes later.
    """
    failed: list[BaseException] = []

    def run(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:  # raised again where it is waited for
            failed.append(error)

    threads = [threading.Thread(target=run, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()

    def wait() -> None:
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]

    return wait


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
        self._client: ServersAsOne | None = None
        self._group: Any = None
        self._watchdog = Watchdog()
        self._inside: object | None = None  # the call of vLLM's that the trainer is in

    def push(self, weights: Iterable[tuple[str, "torch.Tensor"]]) -> None:
        """Send every tensor to every server, and have them forget what the old weights computed. Raises `R1Error` (exit 3)."""
        self._tensors.pairs = list(weights)
        _until_computed(tensor for _, tensor in self._tensors.pairs)
        try:
            if self._group is None:
                workers = [_workers(self._fleet, server) for server in self._fleet.servers]
                self._client = ServersAsOne(self._fleet, workers, self._end_soon)
                host = _own_address([server.url for server in self._fleet.servers])
                with self._waiting(f"{self._client.world_size - 1} server workers to join an NCCL group at {host}"):
                    self._group = self._connect(self._client, self._tensors, host, _free_port(host))
            with self._waiting(f"{len(self._tensors.pairs)} tensors to reach the servers by NCCL"):
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

    @contextmanager
    def _waiting(self, what: str) -> Iterator[None]:
        self._inside = object()
        try:
            with self._watchdog.waiting(what, RELOAD_SECONDS):
                yield
        finally:
            self._inside = None

    def _end_soon(self, error: R1Error) -> None:
        """Ends the process with a server's refusal if the trainer is still in the same call a little later: NCCL waits for five minutes."""
        inside = self._inside

        def end() -> None:
            if inside is not None and self._inside is inside:
                end_with(error)

        timer = threading.Timer(LEFT_ALONE_SECONDS, end)
        timer.daemon = True
        timer.start()

    def close(self) -> None:
        """Leave the group, so that the servers can be in the next run's."""
        if self._group is not None and self._client is not None:
            with suppress(R1Error):  # servers before this endpoint let go of a group when they join another
                self._client.shutdown_weight_transfer_engine()
            with suppress(RuntimeError, OSError):  # what was to be sent has been sent
                self._group.shutdown()
            self._group = None
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
    try:
        from vllm.distributed.weight_transfer import nccl_engine
    except ImportError as error:
        raise R1Error(
            f"weights by NCCL need vLLM here, 0.26 or newer ({error})", hint="pip install 'r1cli[vllm]'", code=Exit.ENVIRONMENT
        ) from None
    if not hasattr(nccl_engine, "NCCLTrainerWeightTransferEngine"):
        return EarlierTrainer(client, tensors, host, port)
    info = nccl_engine.NCCLTrainerInitInfo(rank=0, master_address=host, master_port=port, world_size=client.world_size)
    return nccl_engine.NCCLTrainerWeightTransferEngine.trainer_init(info, client=client, source=tensors)


class EarlierTrainer:
    """The trainer's side for vLLM before 0.27, which has the group and the broadcast and leaves the order of calls to us."""

    def __init__(self, client: ServersAsOne, tensors: Tensors, host: str, port: int) -> None:
        from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine

        self._client, self._tensors, self._engine = client, tensors, NCCLWeightTransferEngine
        address = {"master_address": host, "master_port": port, "world_size": client.world_size}
        joined = begun([partial(client.init_weight_transfer_engine, address)])  # they answer when the group is whole, with the trainer
        self._group = self._engine.trainer_init(address)
        joined()

    def send_weights(self) -> None:
        pairs = self._tensors.pairs
        info = {
            "names": [name for name, _ in pairs],
            "dtype_names": [str(tensor.dtype).removeprefix("torch.") for _, tensor in pairs],
            "shapes": [list(tensor.shape) for _, tensor in pairs],
            "packed": True,
        }
        self._client.start_weight_update()
        received = begun([partial(self._client.update_weights, info)])
        self._engine.trainer_send_weights(iter(pairs), {"group": self._group, "packed": True})
        received()
        self._client.finish_weight_update()

    def shutdown(self) -> None:
        self._group.destroy()


def _workers(fleet: Fleet, server: Server) -> int:
    """Worker processes of a server; refused when it was not started for NCCL."""
    backend = (configuration(fleet, server).get("weight_transfer_config") or {}).get("backend")
    try:
        answer = fleet.ask(server, "GET", "/get_world_size", seconds=INFO_SECONDS)
    except httpx.HTTPError as error:
        raise R1Error(f"{server.url} does not answer: {error}", hint="start it again, then --resume", code=Exit.ENVIRONMENT) from None
    if answer.status_code != 200:
        raise R1Error(
            f"{server.url} takes no weights by NCCL: it has no development endpoints", hint=f"start it as: {START}", code=Exit.ENVIRONMENT
        )
    if backend != "nccl":
        raise R1Error(
            f"{server.url} takes no weights by NCCL: it was not started for it", hint=f"start it as: {START}", code=Exit.ENVIRONMENT
        )
    return int(answer.json()["world_size"])


def _own_address(urls: list[str]) -> str:
    """An address of this machine that all servers reach: where one of them is elsewhere, that on the way to it."""
    found = []
    for url in urls:
        parts = httpx.URL(url)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # connecting a datagram socket sends nothing
            probe.connect((parts.host, parts.port or 80))
            found.append(str(probe.getsockname()[0]))
    return next((address for address in found if not ip_address(address).is_loopback), found[0])


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
