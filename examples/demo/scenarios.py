"""Make stage 4's prompt rows from the rows that its reward models were trained and measured on: the prompts alone, each with its set.

    python examples/demo/scenarios.py runs/demo/data

Writes helpful.jsonl and safety.jsonl (to train on), and scenarios.jsonl (prompts of the held-out rows, to measure on). A prompt has no
answer to check (`answer: null`); its field `set` says which reward model it gets.
"""

import argparse
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SETS = {"helpful": ("helpful-pairs.jsonl", "helpful-held-out.jsonl"), "safety": ("safety-labels.jsonl", "safety-held-out.jsonl")}


def prompts(file: str, name: str) -> list[dict[str, Any]]:
    """The different prompts of a file, in its order."""
    rows = (json.loads(line) for line in (HERE / file).read_text(encoding="utf-8").splitlines())
    found = dict.fromkeys(row["prompt"] for row in rows)
    return [
        {"id": f"{file.removesuffix('.jsonl')}/{number}", "prompt": prompt, "answer": None, "language": "en", "set": name}
        for number, prompt in enumerate(found)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=60, help="held-out prompts of each set")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for name, (train, _) in SETS.items():
        write(args.folder / f"{name}.jsonl", prompts(train, name))
    write(args.folder / "scenarios.jsonl", [row for name, (_, test) in SETS.items() for row in prompts(test, name)[: args.limit]])


if __name__ == "__main__":
    main()
