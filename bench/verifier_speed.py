"""Rows per second of the accuracy reward on realistic completions, beside Math-Verify and PRM800K's grader in one run.

    python bench/verifier_speed.py FOLDER [--rows 10000] [--their-rows 1000]

FOLDER holds the labelled files that `labelled.py` reads; its completions are repeated, each time with other blanks at the end, until
there are enough. All graders get the same rows on one machine: ours through the `Scorer` as `r1 reject` uses it, which tells most
rows in its own process, and through a process pool on all cores; the others (`graders.py`) through such a pool with their own time-outs.
The others score fewer rows; all are stated as rates.
"""

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, islice
from pathlib import Path

from graders import Grader, installed
from labelled import FILES, rows_of

from r1cli.rewards.registry import make, parse_specs
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row

OURS = "r1 accuracy, one process a core"


def realistic(folder: Path, count: int) -> list[Row]:
    """`count` rows in a mixed order, no two texts alike."""
    rows = [row for name in FILES for row in rows_of(folder / name)]
    rows.sort(key=lambda row: row["id"][::-1])  # mixes files and questions, the same way each time
    return [row.with_fields(completion=row["completion"] + "\n" * (n // len(rows))) for n, row in enumerate(islice(cycle(rows), count))]


_graders: dict[str, Grader] = {}


def _ready() -> None:
    """In each process of a pool: the graders, and ours."""
    _graders.update(installed(lambda _: None))
    reward = make(parse_specs("accuracy")[0])
    _graders[OURS] = lambda gold, response: reward.quick(Row({"id": 0, "answer": gold, "completion": response})) == 1.0


def _graded(job: tuple[str, str, str]) -> bool:
    name, gold, response = job
    return _graders[name](gold, response)


def pooled(pool: ProcessPoolExecutor, name: str, rows: list[Row], cores: int) -> tuple[float, list[bool]]:
    """(rows a second, verdicts) of one grader; its imports and first parses are not timed."""
    jobs = [(name, row["answer"], row["completion"]) for row in rows]
    list(pool.map(_graded, jobs[: 8 * cores]))
    started = time.perf_counter()
    verdicts = list(pool.map(_graded, jobs, chunksize=len(jobs) // (8 * cores)))
    return len(jobs) / (time.perf_counter() - started), verdicts


def main() -> None:
    """Print the rates and their quotients."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--their-rows", type=int, default=1_000)
    args = parser.parse_args()
    rows = realistic(args.folder, args.rows)
    few = rows[: args.their_rows]
    cores = os.cpu_count() or 1
    out = sys.stdout
    out.write(f"| grader | rows | right among the first {len(few)} | cores | rows/s | times slower than one r1 | than r1 on all cores |\n")
    out.write("|---|---|---|---|---|---|---|\n")
    with Scorer(parse_specs("accuracy")) as scorer:
        started = time.perf_counter()
        verdicts = [row["reward"] == 1.0 for row in scorer.score(rows)]
        alone = len(rows) / (time.perf_counter() - started)
    line = f"| r1 accuracy, `Scorer` as in `r1 reject` | {len(rows)} | {sum(verdicts[: len(few)]) / len(few):.1%} | 1 of {cores} |"
    out.write(f"{line} {alone:,.0f} | 1 | |\n")
    together = 0.0
    with ProcessPoolExecutor(cores, initializer=_ready) as pool:
        for name in (OURS, *installed(sys.stderr.write)):
            mine = rows if name == OURS else few
            rate, verdicts = pooled(pool, name, mine, cores)
            together = together or rate
            line = f"| {name} | {len(mine)} | {sum(verdicts[: len(few)]) / len(few):.1%} | {cores} |"
            out.write(f"{line} {rate:,.0f} | {alone / rate:.1f} | {together / rate:.1f} |\n")
            out.flush()


if __name__ == "__main__":
    main()
