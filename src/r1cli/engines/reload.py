"""New weights for `vllm serve`, through a folder: written as safetensors, loaded by every server, then removed.

    VLLM_SERVER_DEV_MODE=1 vllm serve FOLDER --logprobs-mode processed_logprobs \\
        --worker-extension-cls r1cli.engines.vllm_worker.WeightReload

The development endpoints (`/collective_rpc`, `/reset_prefix_cache`, `/server_info`) take orders from whoever reaches them: bind the server
to a loopback or private address. The folder is a temporary one (below TMPDIR): with servers on other machines that must be a file
system they share.

The worker extension is needed where vLLM multiplies by packed copies of the weights (a CPU): its own `reload_weights` leaves the packed
output layer of a tied model as it was. Elsewhere vLLM's own is used when the extension is not there.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx

from r1cli.engines.fleet import Fleet, Server
from r1cli.engines.openai_api import error_text
from r1cli.engines.protocol import SamplingParams
from r1cli.errors import Exit, R1Error

if TYPE_CHECKING:
    import torch

RELOAD_SECONDS = 600.0
INFO_SECONDS = 60.0
EXTENSION = "r1cli.engines.vllm_worker.WeightReload"
START = f"VLLM_SERVER_DEV_MODE=1 vllm serve FOLDER --logprobs-mode processed_logprobs --worker-extension-cls {EXTENSION}"


def push(fleet: Fleet, weights: Iterator[tuple[str, "torch.Tensor"]], *, tied: bool) -> None:
    """Write `weights` once and have every server load them and forget the prefixes the old ones computed.

    Raises `R1Error` (exit 3) naming the server that could not: it and the others may then hold different weights, so the run must end.
    """
    from huggingface_hub import save_torch_state_dict

    ways = [_way(fleet, server, tied=tied) for server in fleet.servers]
    folder = tempfile.mkdtemp(prefix="r1-weights-")
    try:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights}
        save_torch_state_dict(tensors, folder)
        for server, (method, field) in zip(fleet.servers, ways, strict=True):
            order(fleet, server, "/collective_rpc", {"method": method, "kwargs": {field: folder}}, "load the new weights")
            forgot = order(fleet, server, "/reset_prefix_cache", None, "drop its cached prefixes")
            if not forgot.get("success", True):
                raise R1Error(
                    f"{server.url} kept prefixes that the old weights computed",
                    code=Exit.ENVIRONMENT,
                    hint="something else draws from this server: use one that only this run has",
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_logprobs(fleet: Fleet, params: SamplingParams) -> None:
    """Refuse log-probabilities that are not those of the distribution tokens are drawn from, where a server says which it gives.

    With temperature 1 and nothing cut off both kinds are the same. Raises `R1Error` (exit 3).
    """
    if params.temperature in (0.0, 1.0) and params.top_p == 1.0 and params.top_k == 0:
        return
    for server in fleet.servers:
        mode = (configuration(fleet, server).get("model_config") or {}).get("logprobs_mode")
        if mode != "processed_logprobs":
            raise R1Error(
                f"{server.url} gives log-probabilities before temperature, top_p and top_k, or does not say which",
                hint=f"start it as: {START}",
                code=Exit.ENVIRONMENT,
            )


def _way(fleet: Fleet, server: Server, *, tied: bool) -> tuple[str, str]:
    """(worker method, name of its argument) that loads weights from a folder on this server."""
    config = configuration(fleet, server)
    if not config:
        raise R1Error(
            f"{server.url} takes no new weights: it has no development endpoints", hint=f"start it as: {START}", code=Exit.ENVIRONMENT
        )
    if (config.get("parallel_config") or {}).get("worker_extension_cls") == EXTENSION:
        return "r1_reload", "folder"
    if tied and "cpu" in json.dumps(config.get("device_config")):
        raise R1Error(f"{server.url} would keep the old output layer of a tied model", hint=f"start it as: {START}", code=Exit.ENVIRONMENT)
    return "reload_weights", "weights_path"


def configuration(fleet: Fleet, server: Server) -> dict[str, Any]:
    """The server's configuration; {} when it has no development endpoints."""
    try:
        answer = fleet.ask(server, "GET", "/server_info?config_format=json", seconds=INFO_SECONDS)
    except httpx.HTTPError as error:
        raise R1Error(
            f"{server.url} does not answer: {error or type(error).__name__}", hint="start it again, then --resume", code=Exit.ENVIRONMENT
        ) from None
    if answer.status_code != 200:
        return {}
    config = answer.json().get("vllm_config")
    return config if isinstance(config, dict) else {}


def order(fleet: Fleet, server: Server, path: str, body: Any, what: str, seconds: float = RELOAD_SECONDS) -> dict[str, Any]:
    """Have a server do something and return its answer. Raises `R1Error` (exit 3) that says what it could not do."""
    try:
        answer = fleet.ask(server, "POST", path, body=body, seconds=seconds)
    except httpx.HTTPError as error:
        raise R1Error(
            f"{server.url} did not {what} within {seconds:.0f} s: {error or type(error).__name__}",
            hint="look at the server's log",
            code=Exit.ENVIRONMENT,
        ) from None
    if answer.status_code != 200:
        raise R1Error(
            f"{server.url} could not {what}: {answer.status_code} {error_text(answer.content)}",
            hint="look at the server's log",
            code=Exit.ENVIRONMENT,
        )
    return answer.json() if answer.content else {}
