"""Peak memory of log-probabilities and their gradient, in chunks and with all logits at once.

    python bench/logprob_memory.py [--tokens 8192] [--full-tokens 1024,2048,4096] [--vocabulary 151936] [--hidden 896] [--dtype bfloat16]

Hidden states and a head's weight, as behind the last layer of a model; forward and backward pass. "full" is what a training loop
writes down first: logits, float32, log_softmax, gather, and torch's own backward pass. It is run at several sizes, because all logits of
8k tokens may not fit; its peak is a line in the number of tokens, and `full_at_tokens` is that line at --tokens (measured when the size
is among them). Each run is a process of its own; its peak is the most it held beyond what it held before the first operation, on Linux.
One JSON line on stdout, in GiB.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn.functional import linear

from r1cli.train.logits import HeadShape
from r1cli.train.logprobs import TokenLogprobs
from r1cli.train.model import keep_freed_memory


def held(name: str) -> float:
    """VmRSS or VmHWM of this process in GiB."""
    line = next(line for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if line.startswith(name))
    return int(line.split()[1]) / 2**20


def once(way: str, tokens: int, flags: argparse.Namespace) -> dict[str, float]:
    """Forward and backward pass in this process."""
    keep_freed_memory()
    dtype = getattr(torch, flags.dtype)
    torch.manual_seed(0)
    hidden_NH = torch.randn(tokens, flags.hidden).to(dtype).requires_grad_()
    weight_VH = (torch.randn(flags.vocabulary, flags.hidden) / flags.hidden**0.5).requires_grad_()
    target_N = torch.randint(flags.vocabulary, (tokens,))
    linear(hidden_NH[:64], weight_VH[:64].to(dtype)).float().sum().backward()  # what libraries allocate once
    hidden_NH.grad = weight_VH.grad = None
    before, started = held("VmRSS"), time.perf_counter()
    if way == "chunked":
        logprobs_N, _ = TokenLogprobs.apply(hidden_NH, weight_VH, None, target_N, HeadShape(), dtype)
    else:
        logits_NV = linear(hidden_NH, weight_VH.to(dtype))
        logprobs_N = torch.log_softmax(logits_NV.float(), -1).gather(-1, target_N[:, None]).squeeze(-1)
        del logits_NV
    (-logprobs_N.mean()).backward()
    return {"gib": held("VmHWM") - before, "seconds": time.perf_counter() - started, "mean": float(logprobs_N.detach().mean())}


def measured(way: str, tokens: int, arguments: list[str]) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, *arguments, "--once", way, str(tokens)], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def at(tokens: int, sizes: list[int], peaks: list[float]) -> float:
    """The least-squares line through the measured peaks."""
    if tokens in sizes:
        return peaks[sizes.index(tokens)]
    mean_x, mean_y = sum(sizes) / len(sizes), sum(peaks) / len(peaks)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(sizes, peaks, strict=True)) / sum((x - mean_x) ** 2 for x in sizes)
    return mean_y + slope * (tokens - mean_x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--full-tokens", default="1024,2048,4096")
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--hidden", type=int, default=896)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--once", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.once:
        print(json.dumps(once(flags.once[0], int(flags.once[1]), flags)))  # noqa: T201
        return
    arguments = sys.argv[1:]
    sizes = [int(size) for size in flags.full_tokens.split(",")]
    chunked = [measured("chunked", size, arguments) for size in (sizes[0], flags.tokens)]
    full = [measured("full", size, arguments) for size in sizes]
    assert abs(chunked[0]["mean"] - full[0]["mean"]) < 0.01, "the two ways disagree"
    whole = at(flags.tokens, sizes, [one["gib"] for one in full])
    record = {
        "tokens": flags.tokens,
        "vocabulary": flags.vocabulary,
        "hidden": flags.hidden,
        "dtype": flags.dtype,
        "chunked": round(chunked[1]["gib"], 2),
        "full": {size: round(one["gib"], 2) for size, one in zip(sizes, full, strict=True)},
        "full_at_tokens": round(whole, 2),
        "memory_ratio": round(chunked[1]["gib"] / whole, 3),
        "chunked_seconds": round(chunked[1]["seconds"], 1),
        "full_seconds": {size: round(one["seconds"], 1) for size, one in zip(sizes, full, strict=True)},
        "torch": torch.__version__,
    }
    print(json.dumps(record))  # noqa: T201


if __name__ == "__main__":
    main()
