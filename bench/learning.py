"""Reward against wall-clock time: GRPO of r1 and of TRL on one task from one checkpoint, on one machine.

    python bench/learning.py --model runs/demo/cold-start --rows problems.jsonl [--minutes 5] [--prompts 16] [--group 8]
                             [--max-completion-length 80] [--lr 2e-5] [--engine vllm|transformers] [--trl-weights float32|bfloat16]
                             [--trl-batch 32] [--held-out problems.jsonl] [--plot learning.png] [--json]

Rows have `prompt` and a whole number as `answer`. The reward is 1 when the last whole number of a completion is the answer, the same few
lines of Python on both sides; the loss is dapo, TRL's default; truncated completions are trained on, beta is 0. Weights and moments are
float32 on both sides, and bfloat16 computes: with TRL's in bfloat16 (`--trl-weights bfloat16`, faster) an update of 2e-5 is less than half
of the last digit of most weights.
r1 samples with vLLM, TRL with transformers, each its best on a CPU; `--engine transformers` has both sample with transformers. TRL's
minutes begin when its loading is done; r1's, a time limit, when its process starts. The curve is the mean reward of each step's fresh
completions, at the time since the first step began. Those of a step are of few prompts; with `--held-out`, `r1 eval` measures the model at
the start and both at the end on the same problems (`held_out`: mean reward at temperature 0.6 and its 95% interval). `--plot` needs
matplotlib.
"""

import json
import sys
import tempfile
from itertools import accumulate
from pathlib import Path
from typing import Any

from against_trl import facts, measured, parser, run_r1, run_trl, sums_of
from architectures import folder_of

REWARD = """import re


def right(row):
    found = re.findall(r"-?\\d+", row["completion"])
    return float(bool(found) and int(found[-1]) == int(row["answer"]))
"""


def curve(seconds: list[float], rewards: list[float], minutes: float) -> list[tuple[float, float]]:
    """(seconds since the first step began, mean reward) of each step that ended within the minutes."""
    points = zip(accumulate(seconds), rewards, strict=False)
    return [(round(at, 1), round(reward, 4)) for at, reward in points if at <= 60 * minutes]


def held_out(flags: Any, model: str, reward: Path, work: Path) -> list[float]:
    """(mean reward, ends of its 95% interval) of a model on the held-out problems."""
    out = work / f"scores-{Path(model).name}.json"
    arguments = [
        "eval", flags.held_out, "--model", model, "-k", "2", "--temperature", "0.6", "--rewards", f"{reward}:right", "-o", str(out),
        "--max-completion-length", str(flags.max_completion_length), "--engine", flags.engine, "--batch-size", "128",
    ]  # fmt: skip
    measured([sys.executable, "-m", "r1cli", *arguments], work / "eval.log")
    scores = json.loads(out.read_text(encoding="utf-8"))
    return [round(value, 4) for value in (scores["rewards"]["right"], *scores["reward_intervals"]["right"])]


def plot(path: str, curves: dict[str, list[tuple[float, float]]]) -> None:
    import matplotlib.pyplot as plt

    for name, points in curves.items():
        plt.plot([at / 60 for at, _ in points], [reward for _, reward in points], marker="o", label=name)
    plt.xlabel("minutes"), plt.ylabel("mean reward of a step's completions"), plt.legend()
    plt.savefig(path, dpi=120)


def main() -> None:
    flags = parser((__doc__ or "").splitlines()[0])
    flags.add_argument("--minutes", type=float, default=5.0, help="of each side")
    flags.add_argument("--prompts", type=int, default=16)
    flags.add_argument("--group", type=int, default=8)
    flags.add_argument("--max-completion-length", type=int, default=80)
    flags.add_argument("--lr", type=float, default=2e-5)
    flags.add_argument("--engine", choices=["vllm", "transformers"], default="vllm", help="r1's sampler")
    flags.add_argument("--trl-weights", choices=["bfloat16", "float32"], default="float32", help="TRL's; float32 computes under autocast")
    flags.add_argument("--trl-batch", type=int, help="completions in a pass of TRL's (default: all of a step)")
    flags.add_argument("--held-out", help="problems that neither side trains on, measured before and after")
    flags.add_argument("--plot", help="image to write")
    given = flags.parse_args()
    with Path(given.rows).open(encoding="utf-8") as lines:
        rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        model = folder_of(given.model, str(work / "model"), given.tokenizer)
        settings = {
            **sums_of(given, model, rows), "steps": 1000, "minutes": given.minutes, "weights": given.trl_weights,
            "save": str(work / "trl-final") if given.held_out else None,
        }  # fmt: skip
        theirs, _ = run_trl("grpo", settings, given.environment, work)
        (work / "reward.py").write_text(REWARD, encoding="utf-8")
        arguments = [
            "grpo", str(Path(given.rows).resolve()), "--model", model, "--rewards", f"{work / 'reward.py'}:right", "--beta", "0",
            "--loss", "dapo",
            "--prompts-per-step", str(given.prompts), "--group-size", str(given.group), "--lr", str(given.lr), "--no-mask-truncated",
            "--max-completion-length", str(given.max_completion_length), "--steps", "1000", "--time-limit", f"{given.minutes}m",
            "--engine", given.engine, "--microbatch-tokens", "2048", "--batch-size", str(given.group * given.prompts),
            "--lr-schedule", "constant",
        ]  # fmt: skip
        records, _ = run_r1(arguments, work / "r1", work)
        models = {"start": model, "r1": str(work / "r1"), "TRL": str(work / "trl-final")} if given.held_out else {}
        scores = {name: held_out(given, folder, work / "reward.py", work) for name, folder in models.items()}
    curves = {
        "r1": curve([record["seconds"] for record in records], [record["reward"] for record in records], given.minutes),
        "TRL": curve(theirs["seconds"], theirs["rewards"], given.minutes),
    }
    if given.plot:
        plot(given.plot, curves)
    record = {"held_out": scores, "curves": curves, "settings": vars(given), **facts(theirs)}
    sys.stdout.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
