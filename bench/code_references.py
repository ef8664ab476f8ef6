"""The code reward against reference solutions: all of them must pass, and their mutants must fail where plain Python says so.

    python bench/code_references.py FOLDER          # with mbpp.jsonl and humaneval.jsonl in it
    python bench/code_references.py FOLDER --limit 50 --mutants 2

Each solution is judged as a completion would be. Then one operator of it is changed (`+` to `-`, `<` to `<=`, `and` to `or`, a constant by
one, ...), at a place drawn by seed. A mutant may be equivalent, or be missed by weak tests, so each is also run the plain way: solution and
tests in one script, in the same sandbox, judged by its exit code. The two must agree on every mutant. One JSON object on stdout.
"""

import argparse
import ast
import json
import random
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from r1cli.rewards.code.judge import Local
from r1cli.rewards.code.levels import required
from r1cli.rewards.code.reward import CodeReward
from r1cli.rewards.code.sandbox import Limits
from r1cli.row import Row

LIMITS = Limits(seconds=10.0)
SWAPS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn,
    ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And, ast.BitXor: ast.BitOr, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.USub: ast.UAdd, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip


class OneOperator(ast.NodeTransformer):
    """Changes the operator (or integer) number `place`; counts them all in `seen`."""

    def __init__(self, place: int) -> None:
        self.place, self.seen = place, 0

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if type(node) not in SWAPS and not (isinstance(node, ast.Constant) and type(node.value) is int):
            return node
        self.seen += 1
        if self.seen - 1 != self.place:
            return node
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return ast.Constant(node.value + 1)
        return SWAPS[type(node)]()


def mutant(source: str, rng: random.Random) -> str | None:
    """The source with one operator changed, or None when it has none."""
    counter = OneOperator(-1)
    counter.visit(ast.parse(source))
    if not counter.seen:
        return None
    return ast.unparse(ast.fix_missing_locations(OneOperator(rng.randrange(counter.seen)).visit(ast.parse(source))))


def plainly(sandbox: Any, row: Row, source: str) -> bool:
    """Whether solution and tests run to the end as one script: how the data sets' own harnesses judge."""
    if "entry_point" in row:
        script = f"{source}\n{row['test']}\ncheck({row['entry_point']})\n"
    else:
        script = "\n".join([source, row.get("test_setup_code") or "", *row["tests"]])
    with sandbox.start({"mode": "script", "source": script + "\nprint('end')"}, LIMITS) as process:
        finished = process.finish()
    return finished.status == "ok" and finished.code == 0 and finished.stdout.endswith(b"end\n")


def whole(row: Row) -> str:
    """The reference solution as a whole program."""
    return row["prompt"] + row["solution"] if "entry_point" in row else str(row["solution"])


def judged(row: Row, mutants: int, reward: CodeReward, sandbox: Any) -> dict[str, Any]:
    """What became of one row: its verdict, and for each mutant (ours, plainly)."""
    completion = row["solution"] if "entry_point" in row else f"```python\n{row['solution']}\n```"
    verdict = reward.judge(row.with_fields(completion=completion))
    rng = random.Random(row["id"])
    pairs = []
    for _ in range(mutants):
        if (source := mutant(whole(row), rng)) is not None:
            ours = reward.judge(row.with_fields(completion=f"```python\n{source}\n```"))
            pairs.append((ours.passed == ours.total, plainly(sandbox, row, source), source))
    return {"id": row["id"], "passed": verdict.passed == verdict.total, "verdict": str(verdict), "mutants": pairs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, help="rows of each file")
    parser.add_argument("--mutants", type=int, default=1, help="mutants of each solution")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    sandbox = required()
    reward = CodeReward(Local(sandbox, LIMITS, budget=120.0))
    summary: dict[str, Any] = {"sandbox": sandbox.level.name.lower()}
    for name in ("mbpp", "humaneval"):
        lines = (arguments.folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[: arguments.limit]
        counts: Counter[str] = Counter()
        start = time.perf_counter()
        with ThreadPoolExecutor(arguments.workers) as pool:
            for result in pool.map(lambda line: judged(Row(json.loads(line)), arguments.mutants, reward, sandbox), lines):
                counts["references"] += 1
                counts["references_passed"] += result["passed"]
                if not result["passed"]:
                    sys.stderr.write(f"{result['id']}: the reference failed: {result['verdict']}\n")
                for ours, plain, source in result["mutants"]:
                    counts["mutants"] += 1
                    counts["mutants_passed"] += ours
                    counts["mutants_agree"] += ours == plain
                    if ours != plain:
                        sys.stderr.write(f"{result['id']}: mutant {'passed' if ours else 'failed'} here, not plainly:\n{source}\n")
        summary[name] = {**counts, "seconds": round(time.perf_counter() - start, 1)}
        sys.stderr.write(f"{name}: {summary[name]}\n")
    sys.stdout.write(json.dumps(summary) + "\n")


if __name__ == "__main__":
    main()
