"""Speed of one training step against what the matrix products alone must take.

    python bench/train_step.py MODEL [--groups 16] [--microbatch-tokens 4096] [--dtype bfloat16]

The batch is that of a GRPO step: groups of one prompt and 8 completions, random tokens, each prompt computed once. The floor is 6 floating
point operations a weight and token (forward 2, backward 4; the head only for completion tokens) at the speed of a large matrix product
measured in the same process, in the same type. One JSON line on stdout; `tokens` are the positions computed. It leaves out sampling.
"""

import argparse
import json
import random
import resource
import sys
import time

import torch

from r1cli.train.batches import MicroBatch, Sample, group_rows, micro_batches
from r1cli.train.model import accelerator_for, load_policy
from r1cli.train.optimiser import OptimiserConfig, build_optimiser
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


def synchronised() -> float:
    """The time when everything asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def product_rate(hidden: int, wide: int, dtype: torch.dtype, device: torch.device) -> float:
    """Floating point operations a second of [1024, hidden] x [hidden, wide], best of 20."""
    left, right = torch.randn(1024, hidden, dtype=dtype, device=device), torch.randn(hidden, wide, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(20):
        started = synchronised()
        left @ right
        best = min(best, synchronised() - started)
    return 2 * 1024 * hidden * wide / best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="Hugging Face folder")
    parser.add_argument("--groups", type=int, default=16)
    parser.add_argument("--microbatch-tokens", type=int, default=4096)
    parser.add_argument("--pack-length", type=int, default=2048)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--steps", type=int, default=2, help="steps timed, after one that is not; the fastest counts")
    flags = parser.parse_args()

    accelerator = accelerator_for(flags.dtype)
    policy = load_policy(flags.model)
    config = OptimiserConfig(lr=1e-6)
    policy, optimizer = accelerator.prepare(policy, build_optimiser(policy.parameters(), config))
    model = accelerator.unwrap_model(policy).model
    samples = grpo_samples(flags.groups, model.config.vocab_size)
    batches = micro_batches(group_rows(samples, flags.pack_length), flags.microbatch_tokens, pad_id=0)
    trained = sum(len(sample.completion_ids) for sample in samples)
    tokens = trained + sum(len(row.prefix_ids) for row in group_rows(samples, flags.pack_length))

    def loss_of(batch: MicroBatch, logprobs_N: torch.Tensor, entropies_N: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return -logprobs_N.sum() / trained, {"entropy": entropies_N.sum() / trained}

    timings = []
    for _ in range(flags.steps + 1):
        started, processor = synchronised(), time.process_time()
        update(accelerator, policy, optimizer, batches, loss_of, lr=config.lr, config=config, where="the benchmark")
        timings.append((synchronised() - started, time.process_time() - processor))
    seconds, processor_seconds = min(timings[1:])
    head = model.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in model.get_decoder().parameters()) - model.get_input_embeddings().weight.numel()
    rate = product_rate(model.config.hidden_size, model.config.intermediate_size, getattr(torch, flags.dtype), accelerator.device)
    floor = 6 * (body * tokens + head * trained) / rate
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    record = {
        "model": flags.model, "device": accelerator.device.type, "dtype": flags.dtype, "threads": torch.get_num_threads(), "tokens": tokens,
        "micro_batches": [list(batch.input_ids_BT.shape) for batch in batches], "seconds": round(seconds, 3),
        "processor_seconds": round(processor_seconds, 3), "tokens_per_second": round(tokens / seconds, 1),
        "gflop_per_second": round(rate / 1e9, 1), "floor_seconds": round(floor, 3), "floor_tokens_per_second": round(tokens / floor, 1),
        "peak_gib": round(peak / 2**30, 2),
    }  # fmt: skip
    sys.stdout.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
