"""`r1 sample` on real prompts, killed with -9 on the way and started again until it ends: is the file complete, and no row in it twice?

    python bench/killed_sampling.py MODEL PROMPTS -n 2000 -- --max-completion-length 96 --template raw

What stands after `--` goes to every attempt of `r1 sample`. The process is killed when the file holds each of `--kill-at` rows; the last
attempt runs to its end. Then every row is checked: each (id, sample) once, none missing, its seed the one of (seed, id, sample). Prints one
JSON line. Exit 1 when something is wrong.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from r1cli.io.manifest import versions
from r1cli.io.stream import read_rows
from r1cli.row import seed_of


def attempt(words: list[str], out: Path, kill_at: int | None) -> dict[str, Any]:
    """One run; killed as soon as the file holds this many rows."""
    begun, before = time.monotonic(), lines(out)
    process = subprocess.Popen(words)
    try:
        while process.poll() is None:
            if kill_at is not None and lines(out) >= kill_at:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
            time.sleep(0.2)
    finally:
        process.kill()
    torn = out.exists() and not out.read_bytes().endswith(b"\n")
    return {"exit": process.returncode, "rows_before": before, "rows_after": lines(out), "torn": torn,
            "seconds": round(time.monotonic() - begun, 1)}  # fmt: skip


def lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("prompts")
    parser.add_argument("--kill-at", type=int, nargs="*", default=[500, 1300], help="rows at which the process is killed")
    parser.add_argument("--out", help="file for the rows (default: a temporary one)")
    parser.add_argument("-n", "--limit", type=int)
    parser.add_argument("-k", "--samples", type=int, default=1)
    own, rest = (sys.argv[1:], []) if "--" not in sys.argv else (sys.argv[1 : (at := sys.argv.index("--"))], sys.argv[at + 1 :])
    options = parser.parse_args(own)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing it started outlives it
    with tempfile.TemporaryDirectory() as folder:
        out = Path(options.out or Path(folder) / "drawn.jsonl")
        limit = [] if options.limit is None else ["-n", str(options.limit)]
        words = [sys.executable, "-m", "r1cli", "sample", "-m", options.model, "-k", str(options.samples), *limit, *rest,
                 "-o", str(out), "--resume", options.prompts]  # fmt: skip
        attempts = [attempt(words, out, at) for at in [*options.kill_at, None]]
        rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    ids = {row["id"] for row in read_rows([options.prompts], limit=options.limit)}
    pairs = Counter((row["id"], row["sample"]) for row in rows)
    wanted = {(row_id, sample) for row_id in ids for sample in range(options.samples)}
    found = {
        "rows": len(rows), "twice": sum(count - 1 for count in pairs.values()), "missing": len(wanted - set(pairs)),
        "unasked": len(set(pairs) - wanted), "wrong_seed": sum(row["seed"] != seed_of(0, row["id"], row["sample"]) for row in rows),
        "tokens": sum(row["num_tokens"] for row in rows), "attempts": attempts, "flags": rest, "versions": versions(),
    }  # fmt: skip
    sys.stdout.write(json.dumps(found) + "\n")
    killed = sum(one["exit"] == -signal.SIGKILL for one in attempts) == len(options.kill_at)
    return 0 if killed and not any(found[name] for name in ("twice", "missing", "unasked", "wrong_seed")) else 1


if __name__ == "__main__":
    sys.exit(main())
