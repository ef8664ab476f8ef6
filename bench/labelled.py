"""Agreement of the accuracy reward with the labels of real completions.

    python bench/labelled.py FOLDER         a folder with gsm8k_model_solutions.jsonl, rlzero_traces_gsm8k.jsonl, rlzero_traces_svamp.jsonl

Prints, for each file: completions, agreement, both kinds of disagreement, rows per second; every disagreement follows with `--show`.
The texts are real: GSM8K solutions by four GPT-3 models, and R1-Zero style traces that a stop string cut before `</answer>`.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r1cli.rewards.registry import parse_specs
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row

FILES = ("gsm8k_model_solutions.jsonl", "rlzero_traces_gsm8k.jsonl", "rlzero_traces_svamp.jsonl")


def rows_of(path: Path) -> Iterator[Row]:
    """Completion rows with `label`, from a row with one solution or with several completions."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            for n, (text, label) in enumerate(_completions(record)):
                yield Row(
                    {
                        "id": f"{record['id']}#{n}",
                        "answer": record["answer"],
                        "completion": text,
                        "label": label,
                        "pred": record.get("pred"),
                    }
                )


def _completions(record: dict[str, Any]) -> list[tuple[str, bool]]:
    if "completions" in record:
        return [(one["text"], bool(one["is_correct"])) for one in record["completions"]]
    return [(record["solution"], bool(record["is_correct"]))]


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--show", action="store_true", help="print every disagreement")
    args = parser.parse_args()
    out = sys.stdout
    out.write("| file | completions | agree | right by label only | right by reward only | rows/s |\n|---|---|---|---|---|---|\n")
    differing: list[Row] = []
    with Scorer(parse_specs("accuracy")) as scorer:
        for name in FILES:
            rows = list(rows_of(args.folder / name))
            started = time.perf_counter()
            scored = list(scorer.score(rows))
            seconds = time.perf_counter() - started
            wrong = [row for row in scored if (row["reward"] == 1.0) != row["label"]]
            refused = sum(row["label"] for row in wrong)
            agree = 1 - len(wrong) / len(rows)
            out.write(f"| {name} | {len(rows)} | {agree:.2%} | {refused} | {len(wrong) - refused} | {len(rows) / seconds:,.0f} |\n")
            differing += wrong
    if args.show:
        for row in differing:
            out.write(
                f"\n{row['id']}  answer {row['answer']}  label {row['label']}  reward {row['reward']}\n    {row['completion'][-300:]!r}\n"
            )


if __name__ == "__main__":
    main()
