"""How much of an engine's speed reaches the rows of `r1 sample`, side by side in one process.

    python bench/sample_speed.py MODEL                     both comparisons
    python bench/sample_speed.py MODEL --engine vllm --prompts problems.jsonl --json

vllm:         the same requests (tokens, seeds, sampling parameters) to the same `vllm.LLM`: once by its own `generate`, once through the
              command's path: rows read, rendered and cut, drawn, decoded and written as JSON lines. The first includes only generation,
              which favours it.
transformers: `generate` in static batches in the order of the input, padded on the left, against this project's engine; same model in
              memory, same prompts, same limits. Both count the tokens up to and including the end token.

Each side runs `--rounds` times in turn after one short warm-up, and each begins in turn. `ratio` compares the best round of each (what
else runs on the machine only ever slows a round down), `ratio_of_medians` the medians.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r1cli.commands.sampler import Sampler
from r1cli.engines.load import load_engine
from r1cli.engines.protocol import SamplingParams
from r1cli.io.manifest import versions
from r1cli.io.stream import RowWriter, read_rows
from r1cli.row import Row, dump, seed_of
from r1cli.text.prompts import PromptRenderer


def mixed_prompts(count: int) -> list[Row]:
    """Prompts whose answers differ in length by two orders of magnitude: sums, and lists to count through."""
    rows = []
    for n in range(count):
        text = f"What is {n} + {n + 3}? Answer with the number only." if n % 2 else f"Count from {n} to {n + 20 * (n % 7 + 1)}."
        rows.append(Row({"id": str(n), "prompt": text * (1 + n % 5 // 4)}))
    return rows


def measured(sides: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Tokens a second of each side, `rounds` times, the sides in turn."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, run in list(sides.items())[:: -1 if number % 2 else 1]:
            begun = time.perf_counter()
            tokens = run()
            rates[name].append(tokens / (time.perf_counter() - begun))
            sys.stderr.write(f"round {number + 1}: {name} {rates[name][-1]:.1f} tokens/s\n")
    return rates


def ours(sampler: Sampler, rows: list[Row], samples: int, folder: Path) -> int:
    """What the command does, from the input file to the output file; the tokens it wrote."""
    source, out = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text("".join(dump(row) + "\n" for row in rows), encoding="utf-8")
    tokens = 0
    with RowWriter(out, force=True, append=True) as writer:
        for drawn in sampler.draw(read_rows([str(source)]), samples=samples, seed=0):
            writer.write(drawn.row)
            tokens += drawn.row["num_tokens"]
    return tokens


def with_vllm(model: str, rows: list[Row], params: SamplingParams, options: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """`LLM.generate` and ours."""
    engine: Any = load_engine(model, engine="vllm", batch_size=options.batch_size, kv_cache_gib=options.kv_cache_gib, logprobs=False)
    sampler = Sampler(engine, PromptRenderer(engine.tokenizer, template=options.template), params, model=model)
    requests = [({"prompt_token_ids": sampler.renderer.ids(row["prompt"])}, seed_of(0, row["id"], sample))  # type: ignore[union-attr]
                for row in rows for sample in range(options.samples)]  # fmt: skip
    chosen = [engine._vllm.SamplingParams(max_tokens=params.max_tokens, temperature=params.temperature, top_k=0, seed=seed,
                                          stop_token_ids=engine._end_ids) for _, seed in requests]  # fmt: skip

    def raw() -> int:
        outputs = engine._llm.generate([prompt for prompt, _ in requests], chosen, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    ours(sampler, rows[:8], 1, folder)
    rates = measured({"vllm generate": raw, "r1 sample": lambda: ours(sampler, rows, options.samples, folder)}, options.rounds)
    engine.close()
    return rates


def with_transformers(
    model: str, rows: list[Row], params: SamplingParams, options: argparse.Namespace, folder: Path
) -> dict[str, list[float]]:
    """`generate` in static batches and ours."""
    import torch

    engine: Any = load_engine(model, engine="transformers", batch_size=options.batch_size)
    sampler = Sampler(engine, PromptRenderer(engine.tokenizer, template=options.template), params, model=model)
    prompts = [sampler.renderer.ids(row["prompt"]) for row in rows for _ in range(options.samples)]  # type: ignore[union-attr]
    ends = sorted(engine._end_ids)

    def static() -> int:
        tokens = 0
        for start in range(0, len(prompts), options.batch_size):
            batch = prompts[start : start + options.batch_size]
            width = max(map(len, batch))
            ids = torch.tensor([[ends[0]] * (width - len(prompt)) + prompt for prompt in batch], device=engine._device)
            mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch], device=engine._device)
            with torch.inference_mode():
                out = engine._net.generate(input_ids=ids, attention_mask=mask, do_sample=True, temperature=params.temperature, top_k=0,
                                           max_new_tokens=params.max_tokens, eos_token_id=ends, pad_token_id=ends[0])  # fmt: skip
            for row in out[:, width:].tolist():
                tokens += next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
        return tokens

    ours(sampler, rows[:8], 1, folder)
    rates = measured({"generate, static batches": static, "r1 sample": lambda: ours(sampler, rows, options.samples, folder)},
                     options.rounds)  # fmt: skip
    engine.close()
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a model folder")
    parser.add_argument("--engine", choices=("vllm", "transformers", "both"), default="both")
    parser.add_argument("--prompts", help="row file (default: sums and countings)")
    parser.add_argument("--count", type=int, default=96, help="prompts")
    parser.add_argument("--samples", type=int, default=1, help="completions a prompt")
    parser.add_argument("--max-completion-length", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--template", default="chat")
    parser.add_argument("--kv-cache-gib", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON line an engine")
    options = parser.parse_args()
    rows = list(read_rows([options.prompts], limit=options.count)) if options.prompts else mixed_prompts(options.count)
    rows = [Row({"id": row["id"], "prompt": row["prompt"]}) for row in rows]
    params = SamplingParams(max_tokens=options.max_completion_length, temperature=options.temperature)
    for name, compare in (("vllm", with_vllm), ("transformers", with_transformers)):
        if options.engine not in (name, "both"):
            continue
        with tempfile.TemporaryDirectory() as folder:
            rates = compare(options.model, rows, params, options, Path(folder))
        baseline, own = (max(found) for found in rates.values())
        middle, own_middle = (statistics.median(found) for found in rates.values())
        found = {"engine": name, "ratio": round(own / baseline, 3), "ratio_of_medians": round(own_middle / middle, 3),
                 "rounds": {side: [round(v, 1) for v in values] for side, values in rates.items()}, "settings": vars(options),
                 "cores": os.cpu_count(), "machine": platform.machine(), "versions": versions()}  # fmt: skip
        text = json.dumps(found) if options.json else f"{name}: {own / baseline:.3f} ({found['rounds']})"
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
