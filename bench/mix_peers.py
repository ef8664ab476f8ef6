"""The job of `bench/mix_speed.py` done with `datasets` or with datatrove, as their documentation does it.

    python bench/mix_peers.py datasets|datatrove FOLDER OUT none|exact|minhash QUESTIONS PART...

The job: rows of two JSONL files without those that repeat another (exactly, or nearly), without those that share a 10-gram with a
benchmark's questions, shuffled by a seed, as JSONL. Two processes. One JSON line on stdout: seconds by stage, rows written. Neither does
all of it: `datasets` has no n-grams and no MinHash (the first is plain Python handed to `filter`, near-duplicates are left out), datatrove
has no shuffle.
"""

import itertools
import json
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROCESSES, NGRAM, SEED = 2, 10, 7
WORD = re.compile(r"\w+")


def grams(text: str) -> set[tuple[str, ...]]:
    words = WORD.findall(text.lower())
    return set(zip(*(words[start:] for start in range(NGRAM)), strict=False))


class Clean:
    """A row that shares no n-gram with the benchmark."""

    def __init__(self, questions: Path) -> None:
        prompts = [json.loads(line)["prompt"] for line in questions.open(encoding="utf-8")]
        self.known = set(itertools.chain.from_iterable(map(grams, prompts)))

    def __call__(self, row: dict[str, Any]) -> bool:
        return self.known.isdisjoint(grams(row["prompt"])) and self.known.isdisjoint(grams(row["completion"]))


def with_datasets(folder: Path, out: Path, dedupe: str, questions: Path, files: list[Path], lap: Callable[[str], None]) -> int:
    import datasets

    datasets.disable_progress_bars()
    data = datasets.load_dataset(
        "json", data_files=[str(file) for file in files], split="train", cache_dir=str(folder / "cache"), num_proc=PROCESSES
    )
    lap("read")
    if dedupe != "none":
        seen: set[int] = set()

        def new(row: dict[str, Any]) -> bool:
            key = hash((row["prompt"], row["completion"]))
            return not (key in seen or seen.add(key))  # type: ignore[func-returns-value]

        data = data.filter(new, load_from_cache_file=False)
        lap("duplicates")
    data = data.filter(Clean(questions), num_proc=PROCESSES, load_from_cache_file=False)
    lap("decontaminate")
    data.shuffle(seed=SEED).to_json(str(out), num_proc=PROCESSES, force_ascii=False)
    lap("shuffle and write")
    return len(data)


def with_datatrove(folder: Path, out: Path, dedupe: str, questions: Path, files: list[Path], lap: Callable[[str], None]) -> int:
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.decont import NGramsDecontConfig, NGramsDecontFilter
    from datatrove.pipeline.dedup import (
        ExactDedupConfig,
        ExactDedupFilter,
        ExactDedupSignature,
        ExactFindDedups,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.text import ngrams, simplify_text

    source = folder / "rows"
    source.mkdir()
    for file in files:
        (source / file.name).symlink_to(file.resolve())
    config = NGramsDecontConfig(n_grams=NGRAM, find_query_ngrams=True, find_overlap_ngrams=False)
    clean = NGramsDecontFilter(str(folder / "index"), config=config)  # its indexer wants lighteval; this is what it writes
    prompts = [json.loads(line)["prompt"] for line in questions.open(encoding="utf-8")]
    words = [clean.tokenizer.word_tokenize(simplify_text(prompt, config.norm_config)) for prompt in prompts]
    hashes = {clean.hash_func(" ".join(gram)) for of_prompt in words for gram in ngrams(of_prompt, NGRAM)}
    (folder / "index").mkdir(exist_ok=True)
    import numpy as np

    np.array(list(hashes), config.hash_config.np_descr).tofile(folder / "index" / "questions.index.hashes")
    lap("benchmark")

    def run(steps: list[Any], tasks: int = PROCESSES) -> None:
        logs = folder / "logs" / type(steps[-1]).__name__
        LocalPipelineExecutor(steps, tasks=tasks, workers=min(tasks, PROCESSES), logging_dir=str(logs), skip_completed=False).run()

    rows = JsonlReader(str(source), adapter=_document)
    if dedupe == "minhash":
        run([rows, MinhashDedupSignature(str(folder / "signatures"))])
        lap("signatures")
        run([MinhashDedupBuckets(str(folder / "signatures"), str(folder / "buckets"))], tasks=14)
        run([MinhashDedupCluster(str(folder / "buckets"), str(folder / "remove"))], tasks=1)
        lap("near-duplicates")
        first: list[Any] = [MinhashDedupFilter(str(folder / "remove"))]
    elif dedupe == "exact":
        exact = ExactDedupConfig(content_getter=_content)
        run([rows, ExactDedupSignature(str(folder / "signatures"), exact)])
        run([ExactFindDedups(str(folder / "signatures"), str(folder / "remove"), exact)], tasks=1)
        lap("duplicates")
        first = [ExactDedupFilter(str(folder / "remove"), exact)]
    else:
        first = []
    run([rows, *first, clean, JsonlWriter(str(folder / "out"), compression=None)])
    lap("decontaminate and write")
    return sum(1 for file in (folder / "out").glob("*.jsonl") for _ in file.open("rb"))


def _document(self: Any, row: dict[str, Any], path: str, number: int) -> dict[str, Any]:
    return {"text": row["prompt"] + "\n" + row["completion"], "id": row["id"], "metadata": {"source": row["source"]}}


def _content(document: Any) -> str:
    return document.text


def main() -> None:
    peer, folder, out, dedupe, questions, *files = sys.argv[1:]
    work = Path(folder)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    seconds: dict[str, float] = {}
    begun = last = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds[stage], last = round(now - last, 3), now

    do = with_datasets if peer == "datasets" else with_datatrove
    rows = do(work, Path(out), dedupe, Path(questions), [Path(file) for file in files], lap)
    total = time.perf_counter() - begun
    shutil.rmtree(work, ignore_errors=True)
    sys.stdout.write(json.dumps({"seconds": round(total, 3), "rows": rows, "stages": seconds}) + "\n")


if __name__ == "__main__":
    main()
