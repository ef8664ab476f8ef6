"""Rows per second of the accuracy reward on realistic completions, beside Math-Verify in one run.

    python bench/verifier_speed.py FOLDER [--rows 10000] [--math-verify-rows 500]

FOLDER holds the labelled files that `labelled.py` reads; its completions are repeated, each time with other blanks at the end, until
there are enough. Both graders get the same rows on all cores of one machine: ours through the `Scorer` as `r1 reject` uses it,
Math-Verify through a process pool with its own time-outs. Math-Verify scores fewer rows, and both are stated as rates.
"""

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, islice
from pathlib import Path

from labelled import FILES, rows_of

from r1cli.rewards.registry import parse_specs
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row


def realistic(folder: Path, count: int) -> list[Row]:
    """`count` rows in a mixed order, no two texts alike."""
    rows = [row for name in FILES for row in rows_of(folder / name)]
    rows.sort(key=lambda row: row["id"][::-1])  # mixes files and questions, the same way each time
    return [row.with_fields(completion=row["completion"] + "\n" * (n // len(rows))) for n, row in enumerate(islice(cycle(rows), count))]


def by_math_verify(pair: tuple[str, str]) -> bool:
    """One row as Math-Verify's users grade it."""
    from math_verify import parse, verify

    return bool(verify(parse(f"${pair[0]}$"), parse(pair[1])))


def main() -> None:
    """Print both rates and their quotient."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--math-verify-rows", type=int, default=500)
    args = parser.parse_args()
    rows = realistic(args.folder, args.rows)
    cores = os.cpu_count() or 1
    with Scorer(parse_specs("accuracy")) as scorer:
        started = time.perf_counter()
        right = sum(row["reward"] == 1.0 for row in scorer.score(rows))
        ours = len(rows) / (time.perf_counter() - started)
    pairs = [(row["answer"], row["completion"]) for row in rows[: args.math_verify_rows]]
    with ProcessPoolExecutor(cores) as pool:
        list(pool.map(by_math_verify, pairs[: 2 * cores]))  # imports are not timed
        started = time.perf_counter()
        list(pool.map(by_math_verify, pairs, chunksize=16))
        theirs = len(pairs) / (time.perf_counter() - started)
    out = sys.stdout
    out.write("| grader | rows | cores | rows/s |\n|---|---|---|---|\n")
    out.write(f"| r1 accuracy | {len(rows)} ({right / len(rows):.1%} right) | 1 of {cores} | {ours:,.0f} |\n")
    out.write(f"| Math-Verify, default | {len(pairs)} | {cores} | {theirs:,.0f} |\n")
    out.write(f"\n{ours / theirs:.1f} times as many rows a second\n")


if __name__ == "__main__":
    main()
