"""`r1 mix` beside `datasets` and datatrove on one machine, in one run: the same rows, the same job, two processes each.

    python bench/mix_speed.py                                   20,000 rows of 5 kB, exact duplicates
    python bench/mix_speed.py --dedupe minhash                  and near-duplicates
    python bench/mix_speed.py --rows 1000000 --what r1          the 5 GB case: needs 11 GB of disk

The rows are made of words by a seed (`mix_rows.py`); 5% repeat the row before, 5% nearly, 1% hold a question of the benchmark. The job is
what `mix_peers.py` says. datatrove gets an environment of its own, made on the first run. One JSON line on stdout: seconds, rows and
megabytes a second, the peak memory of all processes together (PSS, shared pages counted once), seconds by stage, and how many times faster
`r1 mix` is than the faster of the two.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import mix_rows

DATATROVE = ("datatrove[io,processing]==0.10.1", "spacy")  # spacy: its English word tokenizer
FORMATS = ("jsonl", "parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=5_000, help="bytes a row")
    parser.add_argument("--dedupe", choices=("none", "exact", "minhash"), default="exact")
    parser.add_argument("--format", choices=FORMATS, default="jsonl", help="of the output of r1")
    parser.add_argument("--what", default="r1,datasets,datatrove", help="which of the three, with commas")
    parser.add_argument("--folder", type=Path, default=Path("mix-speed"), help="for rows, outputs and datatrove's environment")
    parser.add_argument("--processes", type=int, default=2, help="of r1")
    asked = parser.parse_args()
    files, questions = mix_rows.make(asked.folder, asked.rows, asked.size)
    result: dict[str, Any] = {
        "rows": asked.rows,
        "bytes": sum(file.stat().st_size for file in files),
        "dedupe": asked.dedupe,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("datasets", "msgspec")},
    }
    for name in ("r1", "datasets", "datatrove"):
        if name in asked.what.split(","):
            measured = r1(asked, files, questions) if name == "r1" else peer(name, asked, files, questions)
            rate = asked.rows / measured["seconds"]
            megabytes = round(result["bytes"] / 1e6 / measured["seconds"], 1)
            result[name] = {**measured, "rows_per_second": round(rate), "mb_per_second": megabytes}
    peers = [result[name]["seconds"] for name in ("datasets", "datatrove") if name in result]
    if peers and "r1" in result:
        result["times_faster"] = round(min(peers) / result["r1"]["seconds"], 2)
    sys.stdout.write(json.dumps(result) + "\n")


def r1(asked: argparse.Namespace, files: list[Path], questions: Path) -> dict[str, Any]:
    """The command as a user calls it, start-up and manifest included."""
    out = asked.folder / f"r1.{asked.format}"
    words = [
        sys.executable,
        "-m",
        "r1cli",
        "mix",
        *map(str, files),
        "--dedupe",
        asked.dedupe,
        "--decontaminate",
        str(questions),
        "--seed",
        "7",
        "-o",
        str(out),
        "--force",
        "--num-processes",
        str(asked.processes),
    ]
    seconds, peak, _ = timed(words)
    made = json.loads(Path(f"{out}.manifest.json").read_text("utf-8"))
    out.unlink()
    return {
        "seconds": round(seconds, 3),
        "peak_mib": peak,
        "out": made["counts"]["out"],
        "dropped": made["counts"]["dropped"],
        "stages": made["stages"],
    }


def peer(name: str, asked: argparse.Namespace, files: list[Path], questions: Path) -> dict[str, Any]:
    """The job by another library; its own clock, which starts when Python and the library are loaded."""
    python = sys.executable if name == "datasets" else datatrove_python(asked.folder)
    out = asked.folder / f"{name}.jsonl"
    words = [
        python,
        str(Path(__file__).parent / "mix_peers.py"),
        name,
        str(asked.folder / "work"),
        str(out),
        asked.dedupe,
        str(questions),
        *map(str, files),
    ]
    _, peak, text = timed(words)
    out.unlink(missing_ok=True)
    return {**json.loads(text.splitlines()[-1]), "peak_mib": peak}


def datatrove_python(folder: Path) -> str:
    """The Python of an environment that holds datatrove."""
    python = folder / "datatrove-env" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "datatrove-env")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *DATATROVE], check=True, stdout=sys.stderr)
    return str(python.absolute())


def timed(words: list[str]) -> tuple[float, int, str]:
    """(seconds, peak MiB of the process and its descendants, stdout) of a program; one that fails ends the benchmark."""
    begun = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=sys.stderr, text=True)
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.2):
            peak = max(peak, sum(map(pss, family(process.pid))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    text, _ = process.communicate()
    seconds = time.perf_counter() - begun
    done.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(words[:4])} ... failed with exit code {process.returncode}")
    return seconds, peak >> 10, text


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for one in found:
        for path in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += map(int, path.read_text().split())
            except OSError:
                continue
    return found


def pss(pid: int) -> int:
    """Memory of a process in KiB, pages it shares divided among those that share them; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    main()
