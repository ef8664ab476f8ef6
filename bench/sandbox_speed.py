"""Runs per second of the code sandbox, at each level that this machine allows.

    python bench/sandbox_speed.py [--runs 100] [--workers 0]

A run is one fresh process that reads a line and prints it. For each level: runs per second with as many workers as cores, the median of a
run alone, and the CPU time of a run (which other load on the machine does not change). For comparison the same for a bare
`python -c`, unconfined. One JSON object on stdout.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from r1cli.rewards.code.levels import available
from r1cli.rewards.code.sandbox import Level, Limits, Sandbox

SOURCE = "print(input())"


def cpu_seconds() -> float:
    """CPU time of this process and its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def sandboxed(sandbox: Sandbox) -> Callable[[], bytes]:
    """One run in this sandbox."""

    def run() -> bytes:
        with sandbox.start({"mode": "script", "source": SOURCE}, Limits()) as process:
            return process.finish(b"hello\n").stdout

    return run


def bare() -> bytes:
    """One run without any of it."""
    return subprocess.run([sys.executable, "-I", "-S", "-c", SOURCE], input=b"hello\n", capture_output=True, check=True).stdout


def measure(run: Callable[[], bytes], runs: int, workers: int) -> dict[str, float]:
    """The figures of one kind of run."""
    alone = []
    for _ in range(max(5, runs // 5)):
        start = time.perf_counter()
        assert run() == b"hello\n"
        alone.append(time.perf_counter() - start)
    cpu, start = cpu_seconds(), time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        assert all(output == b"hello\n" for output in pool.map(lambda _: run(), range(runs)))
    seconds = time.perf_counter() - start
    return {
        "runs_per_second": round(runs / seconds, 1),
        "median_ms_alone": round(statistics.median(alone) * 1e3, 1),
        "cpu_ms": round((cpu_seconds() - cpu) / runs * 1e3, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--workers", type=int, default=0, help="0 is one per core")
    arguments = parser.parse_args()
    best = available()
    workers = arguments.workers or os.cpu_count() or 1
    kinds: dict[str, Callable[[], bytes]] = {"bare": bare}
    kinds |= {level.name.lower(): sandboxed(Sandbox(level, best.user)) for level in Level if level <= best.level}
    results: dict[str, object] = {"cores": os.cpu_count(), "workers": workers, "load": round(os.getloadavg()[0], 1)}
    for name, run in kinds.items():
        results[name] = measure(run, arguments.runs, workers)
        sys.stderr.write(f"{name:10s} {results[name]}\n")
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
