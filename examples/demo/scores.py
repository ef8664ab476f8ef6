"""One table of every model of the demo, from what `r1 eval` wrote.

    python examples/demo/scores.py runs/demo -o runs/demo/scores.json

helpful and harmless are the reward models' mean scores of answers to held-out general prompts, before and after stage 4.
Seconds are those of the stage that made the model (sampling and training), not of its evaluation.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

STAGES = {
    "base": "base",
    "cold-start": "1 cold start",
    "reasoning-rl": "2 reasoning RL",
    "rejection-sft": "3 rejection sampling + SFT",
    "all-scenario-rl": "4 RL on all prompts",
    "student-start": "student, before",
    "student": "5 student, distilled",
}

FILES = {"rejection-sft": ("kept.jsonl", "rejection-sft.jsonl")}  # sampled and mixed for the stage, outside its run directory

REWARD_MODELS = {"all-scenario-rl": ("helpful-rm", "harmless-rm")}  # trained for the stage


def seconds_of(folder: Path, model: str) -> float:
    """Seconds of the stage, and of the files and reward models made for it, from their manifests; 0 for a model no stage made."""
    manifests = [folder / "stages" / name / "manifest.json" for name in (model, *REWARD_MODELS.get(model, ()))]
    manifests += [folder / "data" / f"{name}.manifest.json" for name in FILES.get(model, ())]
    return round(sum(json.loads(manifest.read_text())["seconds"] for manifest in manifests if manifest.is_file()), 1)


def scores(folder: Path) -> list[dict[str, Any]]:
    """One entry a model, in the order of the recipe."""
    table = []
    for model, stage in STAGES.items():
        result = json.loads((folder / "eval" / f"{model}.json").read_text())
        preference = folder / "preference" / f"{model}.json"
        consensus = next(value for name, value in result.items() if name.startswith("cons@"))
        table.append(
            {
                "stage": stage,
                "model": str(folder / model),
                "problems": result["problems"],
                "samples": result["samples"],
                "pass@1": result["pass@1"],
                "low": result["low"],
                "high": result["high"],
                "cons@k": consensus,
                "preference": json.loads(preference.read_text())["preference"] if preference.is_file() else {},
                "mean_tokens": result["mean_tokens"],
                "seconds": seconds_of(folder, model),
            }
        )
    return table


def show(table: list[dict[str, Any]]) -> None:
    shown = Table("stage", "model", "problems x k", "pass@1", "95% interval", "cons@k", "helpful", "harmless", "mean tokens", "seconds")
    for entry in table:
        k = entry["samples"] // entry["problems"]
        shown.add_row(
            entry["stage"],
            entry["model"],
            f"{entry['problems']} x {k}",
            f"{entry['pass@1']:.1%}",
            f"{entry['low']:.1%} - {entry['high']:.1%}",
            f"{entry['cons@k']:.1%}",
            *(f"{entry['preference'][name]:.2f}" if name in entry["preference"] else "" for name in ("helpful", "harmless")),
            f"{entry['mean_tokens']:.0f}",
            f"{entry['seconds']:.0f}",
        )
    Console(file=sys.stdout, width=150 if not sys.stdout.isatty() else None).print(shown)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    found = scores(args.folder)
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n")
    show(found)
