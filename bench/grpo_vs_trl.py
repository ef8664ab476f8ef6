"""A GRPO step of r1 and of TRL, side by side on one machine, every group carrying signal.

    python bench/grpo_vs_trl.py --model MODEL [--rows gsm8k_train.jsonl] [--prompts 4] [--group 8] [--max-completion-length 96]
                                [--steps 4] [--engine vllm|transformers] [--signal 1.0] [--trl-batch 32]
                                [--trl-weights bfloat16|float32] [--trl-engine transformers|vllm] [--engine-sleep] [--json]

Same model, prompts, group size and length limit; beta 0; both compute in bfloat16. r1's weights and moments are float32; TRL's are bfloat16
here, which is its fastest way and the least memory, though small updates are lost (`--trl-weights float32`). The reward is a hash of the
completion, so no group is silent and no work is skipped; truncated completions are trained on, as TRL does. With `--signal 0.5` the
completions of every second prompt all get the same reward: r1 leaves such groups out of the training pass. TRL samples with transformers
and takes the whole step as one batch, its fastest way (`--trl-batch` makes it smaller: less memory, more time). With `--trl-engine vllm` it
samples with vLLM in its process, on a GPU by an interpreter that has both, on a CPU with its hand-over of weights replaced (its own fails
there, see `trl_side.py`) and a KV cache of 1 GiB, the least it can ask for; `--engine-sleep` has both sides' vLLM sleep. r1's micro-batches
and KV cache are as small as the sizes allow (`--microbatch-tokens`, `--kv-cache-gib`). `speedup` is TRL's seconds a step over r1's, medians
over the steps after the first; `memory_ratio` is the peak resident memory of r1's process over that of TRL's, model loading included; on a
GPU the peak that torch reserved there, with vLLM on either side what the driver says is in use. r1's reward workers are not in it.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from against_trl import facts, gpu_peak, middle, parser, run_r1, run_trl
from architectures import folder_of

SUMS = Path(__file__).resolve().parent.parent / "examples" / "sums" / "problems.jsonl"
REWARD = """import zlib

SIGNAL = set({signal!r})


def spread(row):
    if row["prompt"] not in SIGNAL:
        return 0.0
    return zlib.crc32((row["completion"] + str(row["sample"])).encode()) % 1000 / 1000
"""


def main() -> None:
    flags = parser((__doc__ or "").splitlines()[0], default_rows=SUMS)
    flags.add_argument("--prompts", type=int, default=4, help="prompts a step")
    flags.add_argument("--group", type=int, default=8, help="completions a prompt")
    flags.add_argument("--max-completion-length", type=int, default=96)
    flags.add_argument("--engine", choices=["vllm", "transformers"], default="vllm", help="r1's sampler")
    flags.add_argument("--signal", type=float, default=1.0, help="share of each step's prompts whose completions get different rewards")
    flags.add_argument("--microbatch-tokens", type=int, default=2048, help="r1's")
    flags.add_argument("--kv-cache-gib", type=float, default=0.25, help="r1's, on a CPU")
    flags.add_argument("--gpu-memory", type=float, default=0.3, help="share of it that r1's vLLM takes at once, on a GPU")
    flags.add_argument("--trl-batch", type=int, help="completions in a pass of TRL's (default: all of a step)")
    flags.add_argument("--trl-weights", choices=["bfloat16", "float32"], default="bfloat16", help="TRL's; float32 computes under autocast")
    flags.add_argument("--max-model-len", type=int, help="of either side's vLLM (default: the model's own)")
    flags.add_argument("--trl-engine", choices=["transformers", "vllm"], default="transformers", help="TRL's sampler")
    flags.add_argument("--engine-sleep", action="store_true", help="vLLM of either side gives its GPU memory away while training")
    given = flags.parse_args()
    with Path(given.rows).open(encoding="utf-8") as lines:
        rows = [json.loads(line) for _, line in zip(range(given.prompts * given.steps), lines, strict=False)]
    if len(rows) < given.prompts * given.steps:
        raise SystemExit(
            f"{given.rows} has {len(rows)} rows; {given.steps} steps of {given.prompts} prompts take {given.prompts * given.steps}"
        )
    loud = round(given.signal * given.prompts)
    signal = [row["prompt"] for number, row in enumerate(rows) if number % given.prompts < loud]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model = folder_of(given.model, str(work / "model"), given.tokenizer)
        settings = {
            "model": model, "steps": given.steps, "group": given.group, "prompts": given.prompts,
            "texts": [row["prompt"] for row in rows], "max_completion_length": given.max_completion_length,
            "signal": signal, "weights": given.trl_weights, "trl_batch": given.trl_batch or given.group * given.prompts,
            "sampler": given.trl_engine,
            "vllm": {
                "vllm_gpu_memory_utilization": given.gpu_memory, "vllm_enable_sleep_mode": given.engine_sleep,
                "vllm_max_model_length": given.max_model_len,
            },
        }  # fmt: skip
        with gpu_peak() as their_peak:
            theirs, their_memory = run_trl("grpo", settings, given.environment, work)
        (work / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (work / "spread.py").write_text(REWARD.format(signal=signal), encoding="utf-8")
        arguments = [
            "grpo", str(work / "rows.jsonl"), "--model", model, "--engine", given.engine, "--rewards", f"{work / 'spread.py'}:spread",
            "--prompts-per-step", str(given.prompts), "--group-size", str(given.group), "--max-completion-length",
            str(given.max_completion_length), "--steps", str(given.steps), "--beta", "0", "--no-mask-truncated", "--lr", "1e-6",
            "--microbatch-tokens", str(given.microbatch_tokens), "--batch-size", str(given.group * given.prompts),
            *(["--engine-sleep"] if given.engine_sleep else []),
            *(["--max-model-len", str(given.max_model_len)] if given.max_model_len else []),
        ]  # fmt: skip
        if given.engine == "vllm":  # the other sampler has neither
            room = ("--gpu-memory", given.gpu_memory) if torch.cuda.is_available() else ("--kv-cache-gib", given.kv_cache_gib)
            arguments += [room[0], str(room[1])]
        with gpu_peak() as peak:
            records, memory = run_r1(arguments, work / "r1", work)
        if torch.cuda.is_available() and "vllm" in (given.engine, given.trl_engine):
            memory, their_memory = peak[0], their_peak[0]
    seconds, their_seconds = middle([record["seconds"] for record in records]), middle(theirs["seconds"])
    phases = {name: round(middle([record[name] for record in records]), 2) for name in records[0] if name.startswith("seconds/")}
    record = {
        "speedup": round(their_seconds / seconds, 2), "memory_ratio": round(memory / their_memory, 2), "r1_seconds": round(seconds, 2),
        "trl_seconds": round(their_seconds, 2), "r1_phases": phases,
        "trl_phases": {name: round(middle(spent), 2) for name, spent in theirs["phases"].items()}, "r1_peak_gib": round(memory, 2),
        "trl_peak_gib": round(their_memory, 2), "settings": vars(given), **facts(theirs),
    }  # fmt: skip
    if not given.json:
        sys.stderr.write(f"r1 {seconds:.1f} s in {memory:.1f} GiB; TRL {their_seconds:.1f} s in {their_memory:.1f} GiB\n")
    sys.stdout.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
