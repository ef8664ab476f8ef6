"""Accuracy and time of the mathematics verifier on judged cases, beside other graders (`graders.py`).

    python bench/verifier_accuracy.py FOLDER [--show] [--ours-only]

FOLDER holds math_cases.jsonl ({id, gold, response, expected}) and, if there, adversarial.jsonl.gz ({id, gold, response, expected: false
or null}). Labels held to be wrong, with the reason, stand in `verifier_disputed.jsonl` beside this script; they count neither way. Times
are of one case, extraction included, golds cached, in this process, the best of three; a case that needs sympy is asked of a worker, and
its time is the whole wait for the worker.
The halves are a stable split of the ids: `dev` was looked at while the rules were written, `test` only after a first count.
"""

import argparse
import gzip
import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graders import Grader, installed

from r1cli.rewards.math.judge import gold_of
from r1cli.rewards.registry import make, parse_specs
from r1cli.rewards.reward import Undecided
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row

DISPUTED = Path(__file__).with_name("verifier_disputed.jsonl")
SECONDS = 5.0
Case = dict[str, Any]
Grade = Callable[[Case], bool]


@dataclass
class Outcome:
    """What one grader did on one list of cases."""

    right: int = 0
    accepted: list[Case] = field(default_factory=list)
    refused: list[Case] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def line(self, name: str) -> str:
        """A row of the table; times in microseconds and milliseconds."""
        times = sorted(self.times)
        total = self.right + len(self.accepted) + len(self.refused)
        median, p99 = times[len(times) // 2] * 1e6, times[int(len(times) * 0.99)] * 1e3
        cells = [name, str(total), f"{self.right / total:.2%}", f"{len(self.accepted)} ({len(self.accepted) / total:.2%})"]
        return "| " + " | ".join([*cells, str(len(self.refused)), f"{median:.0f} us", f"{p99:.1f} ms"]) + " |"


def ours() -> tuple[Grade, Callable[[], list[str]]]:
    """Our reward, as a run would use it, and what it has to say at the end."""
    (spec,) = parse_specs("math")
    reward = make(spec)
    scorer = Scorer([spec], workers=1, timeout=SECONDS)

    def grade(case: Case) -> bool:
        row = Row({"id": case["id"], "completion": case["response"], "answer": case["gold"]})
        score = reward.quick(row)
        if isinstance(score, Undecided):
            (scored,) = scorer.score([row])
            score = scored["reward"]
        return score == 1.0

    def finish() -> list[str]:
        said = scorer.warnings()
        scorer.close()
        return said

    return grade, finish


def by(grader: Grader) -> Grade:
    """Another grader on a case; what it does not survive is a refusal, as its users would have it."""

    def grade(case: Case) -> bool:
        try:
            return grader(case["gold"], case["response"])
        except Exception:
            return False

    return grade


def measure(cases: list[Case], grade: Grade) -> Outcome:
    """Grade every case once, the first one twice so that imports are not timed."""
    outcome = Outcome()
    if cases:
        grade(cases[0])
    for case in cases:
        got, seconds = _timed(grade, case)
        repeats = 0 if seconds > 0.05 else 2  # the best of three: what other programs take is not the grader's
        outcome.times.append(min([seconds, *(_timed(grade, case)[1] for _ in range(repeats))]))
        if case["expected"] is None or got == case["expected"]:
            outcome.right += 1
        else:
            (outcome.accepted if got else outcome.refused).append(case)
    return outcome


def _timed(grade: Grade, case: Case) -> tuple[bool, float]:
    started = time.perf_counter()
    got = grade(case)
    return got, time.perf_counter() - started


def half_of(case: Case) -> str:
    """dev or test, by a hash of the id."""
    return "dev" if int(hashlib.sha256(case["id"].encode()).hexdigest(), 16) % 2 == 0 else "test"


def read(folder: Path) -> tuple[list[Case], list[Case]]:
    """(cases that count, hostile inputs)."""
    disputed = {json.loads(line)["id"] for line in DISPUTED.read_text(encoding="utf-8").splitlines()}
    lines = (folder / "math_cases.jsonl").read_text(encoding="utf-8").split("\n")
    cases = [case for case in map(json.loads, filter(None, lines)) if case["id"] not in disputed]
    hostile_file = folder / "adversarial.jsonl.gz"
    if not hostile_file.exists():
        return cases, []
    with gzip.open(hostile_file, "rt", encoding="utf-8") as hostile:
        return cases, [json.loads(line) for line in hostile]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--show", action="store_true", help="print every case that is judged otherwise")
    parser.add_argument("--ours-only", action="store_true", help="leave out the others")
    args = parser.parse_args()
    cases, hostile = read(args.folder)
    for case in cases:
        gold_of(case["gold"])
    grade, finish = ours()
    out = sys.stdout
    out.write("| grader | cases | correct | wrongly accepted | wrongly refused | median | p99 |\n|---|---|---|---|---|---|---|\n")
    outcome = measure(cases, grade)
    out.write(outcome.line("r1 math") + "\n")
    for half in ("dev", "test"):
        out.write(measure([c for c in cases if half_of(c) == half], grade).line(f"r1 math, {half} half") + "\n")
    for name, their_grade in {} if args.ours_only else installed(sys.stderr.write).items():
        out.write(measure(cases, by(their_grade)).line(name) + "\n")
        out.flush()
    if hostile:
        attacked = measure(hostile, grade)
        slowest = max(attacked.times)
        out.write(f"\nhostile inputs: {len(hostile)}, wrong accepted {len(attacked.accepted)}, ")
        out.write(f"slowest {slowest:.2f} s (deadline {SECONDS:g} s)\n")
    for line in finish():
        out.write(line + "\n")
    if args.show:
        for case in (*outcome.accepted, *outcome.refused):
            out.write(f"{case['id']} expected {case['expected']}: {case['gold'][:80]!r} | {case['response'][-120:]!r}\n")


if __name__ == "__main__":
    main()
