"""Speed on this machine, through the real commands: start-up, scoring, sampling.

    python bench/speed.py                  start-up and scoring
    python bench/speed.py runs/demo/base   and sampling from a model, with every engine that can be imported

Wall times of whole processes, the best of a few: loading is part of what a user waits for, so sampling is timed twice, with few and with
many tokens, and the rate is that of the difference. Training speed is not measured here.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from r1cli.report.tables import figure, text_table

ROWS = 5000
PROMPTS, FEW, MANY = 64, 8, 136


def seconds(words: list[str], times: int = 1) -> float:
    """The shortest wall time of a command over `times` runs; its output is thrown away, a failure ends the benchmark."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        best = min(best, time.perf_counter() - start)
    return best


def completions(path: Path) -> None:
    """Completions as a trained model writes them, half of them right."""
    with path.open("w") as file:
        for i in range(ROWS):
            text = f"<think>\n{i} + {i + 7} = {2 * i + 7}\n</think>\n<answer>{2 * i + 7 + i % 2}</answer>"
            file.write(json.dumps({"id": str(i), "prompt": f"What is {i} + {i + 7}?", "answer": str(2 * i + 7), "completion": text}) + "\n")


def prompts(path: Path) -> None:
    path.write_text("".join(json.dumps({"prompt": f"Count from {i} to {i + 500}, one number a line."}) + "\n" for i in range(PROMPTS)))


def sampling(model: str, engine: str, rows: Path, folder: Path) -> float:
    """Tokens a second, counted from the rows; completions that end early are why tokens are counted and not assumed."""
    tokens, spent = [], []
    for length in (FEW, MANY):
        out = folder / f"{engine}-{length}.jsonl"
        words = ["-m", "r1cli", "sample", "-m", model, "--engine", engine, "--max-completion-length", str(length)]
        spent.append(seconds([*words, "-o", str(out), str(rows)]))
        tokens.append(sum(json.loads(line)["num_tokens"] for line in out.read_text().splitlines()))
    return (tokens[1] - tokens[0]) / (spent[1] - spent[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", help="a model folder, for sampling")
    model = parser.parse_args().model
    results = [["r1 --help", figure(seconds(["-m", "r1cli", "--help"], 5)), "s"]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = folder / "completions.jsonl"
        completions(rows)
        base = seconds(["-m", "r1cli", "eval", "-n", "1", str(rows)], 3)
        whole = seconds(["-m", "r1cli", "eval", "--rewards", "accuracy,format", str(rows)], 3)
        results.append(["eval, accuracy and format", figure(round(ROWS / (whole - base))), "rows/s"])
        if model:
            prompts(folder / "prompts.jsonl")
            for engine in ("vllm", "transformers"):
                if importlib.util.find_spec(engine):
                    rate = sampling(model, engine, folder / "prompts.jsonl", folder)
                    results.append([f"sample, {engine}, {PROMPTS} at a time", figure(round(rate)), "tokens/s"])
    sys.stdout.write(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}\n\n{text_table(['what', 'figure', ''], results)}\n")


if __name__ == "__main__":
    main()
