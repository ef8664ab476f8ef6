"""Speed of one training step against what its matrix products alone must take.

    python bench/train_step.py MODEL [--shape grpo|sft] [--dtype bfloat16] [--microbatch-tokens 4096]
    python bench/train_step.py qwen2.5-0.5b --shape sft --length 8192 --rows 4 --dtype bfloat16 --peak-tflops 989

MODEL is a Hugging Face folder, or the name of an architecture, which gets random weights. Tokens are random. `grpo`: groups of one prompt
and 8 completions, each prompt computed once. `sft`: `--rows` sequences of `--length` tokens, all trained on. The floor is 6 floating point
operations a weight and token (forward 2, backward 4; the head only for trained tokens) and 12 a head dimension and pair of a query and a
key it may see, in every layer, at the speed of a large matrix product measured in the same process, in the same type. Of what is computed
anew, gradient checkpointing included, nothing counts. `floor_share` is the floor over the time of the step; `mfu`, with `--peak-tflops`,
the same operations over what the maker of the device states (an H100 SXM: 989 for dense bfloat16). `--profile` makes one step more and
lists where its time went on stderr. One JSON line on stdout.
"""

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Sequence

import torch
from architectures import ARCHITECTURES, folder_of

from r1cli.train.batches import MicroBatch, RowLayout, Sample, group_rows, micro_batches, packed_rows
from r1cli.train.model import accelerator_for, load_policy
from r1cli.train.optimiser import OptimiserConfig, build_optimiser
from r1cli.train.strategy import prepare
from r1cli.train.update import update

GROUP = 8
PROMPT, COMPLETION = 50, 55


def grpo_samples(groups: int, vocabulary: int) -> list[Sample]:
    """Groups of completions of about COMPLETION random tokens after prompts of PROMPT."""
    rng = random.Random(0)

    def some(count: int) -> list[int]:
        return [rng.randrange(vocabulary) for _ in range(count)]

    prompts = [some(PROMPT) for _ in range(groups)]
    return [
        Sample(GROUP * number + member, prompt, some(rng.randint(COMPLETION - 10, COMPLETION + 10)))
        for number, prompt in enumerate(prompts)
        for member in range(GROUP)
    ]


def sft_samples(rows: int, length: int, vocabulary: int) -> list[Sample]:
    """Sequences of `length` random tokens, all but the first trained on."""
    rng = random.Random(0)
    return [Sample(number, [0], [rng.randrange(vocabulary) for _ in range(length - 1)]) for number in range(rows)]


def pairs(rows: Sequence[RowLayout]) -> int:
    """Pairs of a query and a key that it may attend to."""
    total = 0
    for row in rows:
        prefix = len(row.prefix_ids)
        total += prefix * (prefix + 1) // 2
        for sample in row.samples:
            own = row.own_length(sample)
            total += own * prefix + own * (own + 1) // 2
    return total


def operations(model: torch.nn.Module, rows: Sequence[RowLayout], trained: int) -> int:
    """Floating point operations of a forward and a backward pass over the rows; see the module's docstring."""
    config = model.config
    head = model.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in model.get_decoder().parameters()) - model.get_input_embeddings().weight.numel()
    width = config.num_attention_heads * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    return 6 * (body * sum(row.length for row in rows) + head * trained) + 12 * config.num_hidden_layers * width * pairs(rows)


def synchronised() -> float:
    """The time when everything asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def product_rate(hidden: int, wide: int, dtype: torch.dtype, device: torch.device) -> float:
    """Floating point operations a second of [1024, hidden] x [hidden, wide], on a GPU of three times 8192; best of 20."""
    many, hidden, wide = (8192, 8192, 8192) if device.type == "cuda" else (1024, hidden, wide)
    left, right = torch.randn(many, hidden, dtype=dtype, device=device), torch.randn(hidden, wide, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(20):
        started = synchronised()
        left @ right
        best = min(best, synchronised() - started)
    return 2 * many * hidden * wide / best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help=f"Hugging Face folder, or one of {', '.join(ARCHITECTURES)}")
    parser.add_argument("--shape", choices=["grpo", "sft"], default="grpo")
    parser.add_argument("--groups", type=int, default=16, help="of a GRPO step")
    parser.add_argument("--rows", type=int, default=4, help="sequences of an SFT step")
    parser.add_argument("--length", type=int, default=1024, help="tokens of each")
    parser.add_argument("--microbatch-tokens", type=int, default=4096)
    parser.add_argument("--pack-length", type=int, default=2048)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--peak-tflops", type=float, help="of the device, as its maker states it")
    parser.add_argument("--steps", type=int, default=2, help="steps timed, after one that is not; the fastest counts")
    parser.add_argument("--profile", action="store_true", help="one step more under torch's profiler")
    flags = parser.parse_args()

    accelerator = accelerator_for(flags.dtype)
    with tempfile.TemporaryDirectory() as work:
        policy = load_policy(folder_of(flags.model, work), gradient_checkpointing=flags.gradient_checkpointing)
    config = OptimiserConfig(lr=1e-6)
    policy, optimizer = prepare(accelerator, policy, build_optimiser(policy.parameters(), config), config.max_grad_norm)
    model = policy.model
    if flags.shape == "grpo":
        samples = grpo_samples(flags.groups, model.config.vocab_size)
        rows = group_rows(samples, min(flags.pack_length, flags.microbatch_tokens))
    else:
        samples = sft_samples(flags.rows, flags.length, model.config.vocab_size)
        rows = packed_rows(samples, min(flags.pack_length, flags.microbatch_tokens))
    batches = micro_batches(rows, flags.microbatch_tokens, pad_id=0)
    trained, tokens = sum(len(sample.completion_ids) for sample in samples), sum(row.length for row in rows)

    def loss_of(batch: MicroBatch, logprobs_N: torch.Tensor, entropies_N: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return -logprobs_N.sum() / trained, {"entropy": entropies_N.sum() / trained}

    def step() -> tuple[float, float]:
        started, processor = synchronised(), time.process_time()
        update(accelerator, policy, optimizer, batches, loss_of, lr=config.lr, config=config, where="the benchmark")
        return synchronised() - started, time.process_time() - processor

    timings = [step() for _ in range(flags.steps + 1)]
    seconds, processor_seconds = min(timings[1:])
    rate = product_rate(model.config.hidden_size, model.config.intermediate_size, getattr(torch, flags.dtype), accelerator.device)
    needed, tflops = operations(model, rows, trained), flags.peak_tflops
    peak = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    record = {
        "model": flags.model, "device": accelerator.device.type, "dtype": flags.dtype, "threads": torch.get_num_threads(), "tokens": tokens,
        "micro_batches": [list(batch.input_ids_BT.shape) for batch in batches], "seconds": round(seconds, 3),
        "processor_seconds": round(processor_seconds, 3), "tokens_per_second": round(tokens / seconds, 1),
        "gflop_per_second": round(rate / 1e9, 1), "floor_seconds": round(needed / rate, 3),
        "floor_share": round(needed / rate / seconds, 3), "mfu": tflops and round(needed / seconds / tflops / 1e12, 3),
        "peak_gib": round(peak / 2**30, 2),
    }  # fmt: skip
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()
    if flags.profile:
        with torch.profiler.profile() as profile:
            step()
        spent = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        sys.stderr.write(profile.key_averages().table(sort_by=spent, row_limit=40, max_name_column_width=90) + "\n")


if __name__ == "__main__":
    main()
