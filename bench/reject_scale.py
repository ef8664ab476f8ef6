"""How `r1 reject` scales: rows a second and the memory of the whole process at two sizes, for each thing it can do.

    python bench/reject_scale.py                  # 20,000 and 200,000 rows of 16 completions a prompt, about 1 kB each
    python bench/reject_scale.py --rows 1000000

Memory is flat when the larger size takes no more than the smaller one; what needs all rows of a prompt keeps a few numbers of each row.
The reward is `format`, which is cheap, so that the figures are those of the pipeline and not of a verifier.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WAYS = {
    "stream": [],
    "filters": ["--filters", "readable"],
    "pass rate": ["--pass-rate", "0.1..0.9"],
    "4 of 16, random": ["--per-prompt", "4"],
    "4 of 16, diverse": ["--per-prompt", "4", "--pick", "diverse"],
    "pairs": ["--pairs", "--per-prompt", "1"],
}


def write_rows(path: Path, count: int) -> None:
    """Completions with and without a well-formed reasoning, one prompt's spread over the file as a sampler leaves them."""
    rng = random.Random(0)
    words = [f"word{n}" for n in range(2000)]
    prompts = count // 16
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            text = " ".join(rng.choices(words, k=90))
            completion = f"<think>{text}</think> \\boxed{{4}}" if rng.random() < 0.5 else f"{text} \\boxed{{5}}"
            row = {
                "id": f"p{number % prompts}",
                "prompt": f"What is {number % prompts} + 4?",
                "answer": "4",
                "sample": number // prompts,
                "completion": completion,
                "finish_reason": "stop",
                "num_tokens": 100 + number % 50,
            }
            file.write(json.dumps(row) + "\n")


def measured(words: list[str], rows: Path) -> tuple[float, float]:
    """(seconds, most resident memory in MiB) of one command; memory is that of the process that holds the rows."""
    command = [sys.executable, "-m", "r1cli", "reject", "--rewards", "format", "--no-progress", "-qq", *words, str(rows)]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        sizes = {count: Path(folder) / f"{count}.jsonl" for count in (rows // 10, rows)}
        for count, path in sizes.items():
            write_rows(path, count)
        say(f"| way | rows/s at {rows:,} | MiB at {rows // 10:,} | MiB at {rows:,} | bytes a further row |\n|---|---|---|---|---|")
        for name, words in WAYS.items():
            (_, small), (seconds, large) = (measured(words, path) for path in sizes.values())
            say(f"| {name} | {rows / seconds:,.0f} | {small:.0f} | {large:.0f} | {(large - small) * 2**20 / (0.9 * rows):.0f} |")


if __name__ == "__main__":
    main()
