"""SFT of r1 and of TRL, packed to the same length, side by side on one machine.

    python bench/sft_vs_trl.py --model MODEL --rows gsm8k_train.jsonl [--steps 4] [--length 1024] [--tokens 4096]
                               [--microbatch-tokens 4096] [--gradient-checkpointing] [--trl-weights float32|bfloat16]
                               [--trl-gradient-checkpointing] [--json]

Both train on the completions of the same rows, about `tokens` positions a step, computing in bfloat16. r1's weights and moments are
float32. So are TRL's when it loads a model itself, and here; `--trl-weights bfloat16` has all of TRL's in bfloat16, where small updates are
lost. `--gradient-checkpointing` is r1's, `--trl-gradient-checkpointing` TRL's (its default, and slower).
`speedup` is r1's tokens a second over TRL's, medians over the steps after the first; `memory_ratio` is the peak resident memory of r1's
process over that of TRL's, model loading included.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from against_trl import facts, middle, parser, run_r1, run_trl
from architectures import folder_of


def read(path: str, count: int) -> list[tuple[str, str]]:
    with Path(path).open(encoding="utf-8") as lines:
        rows = [json.loads(line) for _, line in zip(range(count), lines, strict=False)]
    return [(row["prompt"], row["solution"]) for row in rows]


def ours(flags: Any, model: str, rows: list[tuple[str, str]], work: Path) -> tuple[float, float]:
    """(tokens a second, GiB) of `r1 sft` over the rows once."""
    path = work / "rows.jsonl"
    made = [{"prompt": [{"role": "user", "content": one}], "completion": two} for one, two in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    arguments = ["sft", str(path), "--model", model, "--epochs", "1", "--batch-rows", str(max(1, len(rows) // flags.steps))]
    arguments += ["--microbatch-tokens", str(flags.microbatch_tokens), "--lr", "1e-6"]
    if flags.gradient_checkpointing:
        arguments.append("--gradient-checkpointing")
    records, memory = run_r1(arguments, work / "r1", work)
    return middle([record["tokens_per_second"] for record in records]), memory


def main() -> None:
    flags = parser((__doc__ or "").splitlines()[0])
    flags.add_argument("--length", type=int, default=1024, help="positions of a packed row (TRL's max_length)")
    flags.add_argument("--tokens", type=int, default=4096, help="positions of a step")
    flags.add_argument("--microbatch-tokens", type=int, default=4096, help="of r1; TRL takes one packed row at a time")
    flags.add_argument("--gradient-checkpointing", action="store_true", help="of r1")
    flags.add_argument("--trl-weights", choices=["bfloat16", "float32"], default="float32", help="TRL's; float32 computes under autocast")
    flags.add_argument("--trl-gradient-checkpointing", action="store_true", help="of TRL")
    given = flags.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model = folder_of(given.model, str(work / "model"), given.tokenizer)
        rows = read(given.rows, given.steps * given.tokens // 190)  # a row of GSM8K is about 190 tokens under SmolLM2's template
        settings = {
            "model": model, "steps": given.steps, "length": given.length, "tokens": given.tokens, "rows": rows,
            "weights": given.trl_weights, "gradient_checkpointing": given.trl_gradient_checkpointing,
        }  # fmt: skip
        theirs, their_memory = run_trl("sft", settings, given.environment, work)
        rate, memory = ours(given, model, rows, work)
    their_rate = middle([tokens / seconds for tokens, seconds in zip(theirs["tokens"], theirs["seconds"], strict=False)])
    record = {
        "speedup": round(rate / their_rate, 2), "memory_ratio": round(memory / their_memory, 2), "r1_tokens_per_second": round(rate, 1),
        "trl_tokens_per_second": round(their_rate, 1), "r1_peak_gib": round(memory, 2), "trl_peak_gib": round(their_memory, 2),
        "settings": vars(given), **facts(theirs),
    }  # fmt: skip
    if not given.json:
        sys.stderr.write(f"r1 {rate:,.0f} tok/s in {memory:.1f} GiB; TRL {their_rate:,.0f} tok/s in {their_memory:.1f} GiB\n")
    sys.stdout.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
