"""Agreement of `r1 reject` and `r1 eval` with the labels of real completions, through the commands themselves.

    python bench/labelled.py FOLDER [--show]

FOLDER holds gsm8k_model_solutions.jsonl, rlzero_traces_gsm8k.jsonl, rlzero_traces_svamp.jsonl, rg_teacher_rollouts.jsonl (labelled) and
traces_tool_use.jsonl, r1_traces_star1_safety.jsonl (reasoning traces without a checkable answer). Every file is scored by
`r1 reject --rewards accuracy --keep all` and by `r1 eval --json`; the two must say the same of as many rows as went in.

The texts are real: GSM8K solutions of GPT-3 models, R1-Zero style traces that a stop string cut before `</answer>`, reasoning-gym answers
of a 24B model with the scores of its own task graders, multi-turn tool use, and DeepSeek-R1 on unsafe prompts.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r1cli.row import Row

FILES = ("gsm8k_model_solutions.jsonl", "rlzero_traces_gsm8k.jsonl", "rlzero_traces_svamp.jsonl")
ROLLOUTS = "rg_teacher_rollouts.jsonl"
TRACES = ("traces_tool_use.jsonl", "r1_traces_star1_safety.jsonl")
# Tasks whose graders ask for one notation and give part of the score for another, so that the label is no label of correctness:
# a fraction in lowest terms, "66" and not "l = 66", all prime factors, a formula that only its own grader can prove.
NOTATION = ("fraction_simplification", "simple_equations", "prime_factorization", "propositional_logic")


def rows_of(path: Path) -> Iterator[Row]:
    """Completion rows with `label` (true, false, or null), one a completion."""
    with path.open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            for n, (text, label) in enumerate(_completions(record)):
                fields = {"id": f"{record['id']}#{n}", "prompt": record["prompt"], "answer": record["answer"], "completion": text}
                yield Row({**fields, "label": label, "task": record.get("task")})


def _completions(record: dict[str, Any]) -> list[tuple[str, bool | None]]:
    if "completions" in record:
        return [(one["text"], one["is_correct"] if "is_correct" in one else one["score"] == 1.0) for one in record["completions"]]
    if "messages" in record:  # the last turn, its reasoning in tags
        parts = [(part["type"], part["value"]) for part in record["messages"][-1]["content"]]
        thoughts = "".join(value for kind, value in parts if kind == "reasoning")
        return [(f"<think>\n{thoughts}\n</think>\n\n" + "".join(value for kind, value in parts if kind != "reasoning"), None)]
    return [(record["solution"], bool(record["is_correct"]) if "is_correct" in record else None)]


def run(*args: str) -> str:
    """The stdout of `r1`; its stderr goes on."""
    return subprocess.run([sys.executable, "-m", "r1cli", *args], stdout=subprocess.PIPE, text=True, check=True).stdout


def scored(rows: list[Row], rewards: str, folder: Path) -> tuple[list[Row], dict[str, Any], float]:
    """(the rows that `r1 reject` gives back, the scores of `r1 eval`, seconds of `r1 reject`)."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    started = time.perf_counter()
    kept = run("reject", "-qq", "--rewards", rewards, "--keep", "all", str(path))
    seconds = time.perf_counter() - started
    back = [Row(json.loads(line)) for line in kept.split("\n") if line]
    if [row["id"] for row in back] != [row["id"] for row in rows]:
        raise SystemExit("r1 reject --keep all did not give every row back in order")
    return back, json.loads(run("eval", "-qq", "--json", "--rewards", rewards, str(path))), seconds


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--show", action="store_true", help="print every disagreement")
    args = parser.parse_args()
    out = sys.stdout
    out.write("| file | completions | agree | right by label only | right by reward only | rows/s of the command |\n")
    out.write("|---|---|---|---|---|---|\n")
    differing: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in (*FILES, ROLLOUTS):
            groups: dict[str, list[Row]] = {}
            for row in rows_of(args.folder / name):
                groups.setdefault(f"{name}: notation" if row["task"] in NOTATION else name, []).append(row)
            for label, rows in groups.items():
                back, scores, seconds = scored(rows, "accuracy", Path(temporary))
                judged = [row for row in back if row["rewards"]["accuracy"] is not None]
                mean = sum(row["reward"] for row in judged) / len(judged)
                if abs(scores["rewards"]["accuracy"] - mean) > 0.02:  # eval takes the mean over problems
                    raise SystemExit(f"r1 eval says {scores['rewards']['accuracy']}, r1 reject {mean}")
                wrong = [row for row in back if (row["reward"] == 1.0) != row["label"]]
                refused, agree = sum(row["label"] for row in wrong), 1 - len(wrong) / len(back)
                out.write(f"| {label} | {len(back)} | {agree:.2%} | {refused} | {len(wrong) - refused} | {len(rows) / seconds:,.0f} |\n")
                differing += wrong
        out.write("\n| file | completions | accuracy | format (r1) | language (en) |\n|---|---|---|---|---|\n")
        for name in TRACES:
            back, scores, _ = scored(list(rows_of(args.folder / name)), "format:style=r1,accuracy,language:target=en", Path(temporary))
            kinds = Counter(row["rewards"]["accuracy"] for row in back)
            means = [sum(row["rewards"][key] for row in back) / len(back) for key in ("format", "language")]
            out.write(f"| {name} | {len(back)} | null for {kinds[None]} | {means[0]:.4f} | {means[1]:.4f} |\n")
    by_task = Counter((row["task"], row["label"]) for row in differing if row["task"])
    for (task, label), count in sorted(by_task.items()):
        out.write(f"\n{task}: {count} right by {'label' if label else 'reward'} only")
    out.write("\n")
    if args.show:
        for row in differing:
            said = f"{row['id']}  answer {row['answer']}  label {row['label']}  reward {row['reward']}"
            out.write(f"\n{said}\n    {row['completion'][-300:]!r}\n")


if __name__ == "__main__":
    main()
