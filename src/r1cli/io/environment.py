"""What a run ran on: machine, packages, code. Never the environment as a whole: it holds tokens."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from r1cli.io import manifest

VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "WORLD_SIZE",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "PYTHONHASHSEED",
    "PYTORCH_CUDA_ALLOC_CONF",
    "VLLM_ENABLE_V1_MULTIPROCESSING",
    "VLLM_CPU_KVCACHE_SPACE",
    "SLURM_JOB_ID",
)
_LONGEST_DIFF = 1 << 20  # bytes; past it a diff is data, not code


def environment() -> dict[str, Any]:
    """Machine, Python, versions, git commits and the few environment variables that decide results."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpus": _lines("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"),
        "versions": manifest.versions(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "git": [{"tree": tree, "commit": "".join(_lines("git", "-C", tree, "rev-parse", "HEAD"))} for tree in _trees()],
    }


def code_diff() -> str:
    """What the git trees of the working directory and of r1 itself hold beyond their last commit (tracked files); "" if nothing."""
    parts = []
    for tree in _trees():
        diff = "\n".join(_lines("git", "-C", tree, "diff", "HEAD", "--no-color"))
        if len(diff) > _LONGEST_DIFF:
            diff = diff[:_LONGEST_DIFF] + "\n(cut here)"
        if diff:
            parts.append(f"# {tree}\n{diff}\n")
    return "".join(parts)


def _trees() -> list[str]:
    """The git trees that the working directory and r1's own code are in."""
    tops = (_lines("git", "-C", str(folder), "rev-parse", "--show-toplevel") for folder in (Path.cwd(), Path(__file__).parent))
    return list(dict.fromkeys(top[0] for top in tops if top))


def _lines(*command: str) -> list[str]:
    """The output of a small program; nothing when it is not there, fails or hangs."""
    if shutil.which(command[0]) is None:
        return []
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=20, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return []
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else []
