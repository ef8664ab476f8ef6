"""How well refusals told by rule agree with people: XSTest's completions with the labels of its annotators.

    python bench/refusals.py FOLDER        FOLDER holds xstest_completions.jsonl (`prompt`, `solution`, `answer` the label)

The rule's words were chosen on the rows whose prompt hashes to an odd number; the others were counted once, when they were fixed.
"""

import argparse
import json
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from r1cli.metrics.intervals import wilson
from r1cli.text.refusal import refuses

FULL, PARTIAL, COMPLIANCE = "2_full_refusal", "3_partial_refusal", "1_full_compliance"


def line(name: str, rows: list[dict[str, Any]]) -> str:
    """One line of the table."""
    found = Counter((row["answer"], refuses(row["solution"])) for row in rows)
    clear = sum(number for (label, _), number in found.items() if label != PARTIAL)
    agreed = found[FULL, True] + found[COMPLIANCE, False]
    span = wilson(agreed / clear, clear)
    counts = [f"{found[label, True]} of {found[label, True] + found[label, False]}" for label in (FULL, PARTIAL, COMPLIANCE)]
    return f"| {name} | {clear} | {agreed / clear:.1%} ({100 * span.low:.1f} - {100 * span.high:.1f}) | {' | '.join(counts)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    rows = [json.loads(text) for text in (args.folder / "xstest_completions.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [
        "| prompts | clear labels | agree | full refusals called so | partial ones | compliant replies |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, odd in (("words chosen on these", 1), ("held back", 0)):
        lines.append(line(name, [row for row in rows if zlib.crc32(row["prompt"].encode()) % 2 == odd]))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
