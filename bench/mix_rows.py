"""Rows for `bench/mix_speed.py`: made of words by a seed, the same on every machine. Also what a benchmark's questions are."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

WORDS = 30_000
QUESTIONS, QUESTION_WORDS = 1_000, 40
DUPLICATES, NEAR, LEAKED = 0.05, 0.05, 0.01  # shares of the rows: repeated, repeated with a few other words, holding a question
CHANGED = 4  # words of a near-duplicate that are others: below 3% of its 5-word runs
FIRST, SECOND = ["b", "ch", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w"], ["a", "e", "i", "o", "u", "an", "en", "or"]
SYLLABLES = [first + second for first in FIRST for second in SECOND]


def vocabulary() -> "np.ndarray":
    """WORDS different words of two to four syllables."""
    rng = np.random.Generator(np.random.PCG64(1))
    words: dict[str, None] = {}
    while len(words) < WORDS:
        words["".join(SYLLABLES[i] for i in rng.integers(0, len(SYLLABLES), rng.integers(2, 5)))] = None
    return np.array(list(words), object)


def questions(path: Path) -> None:
    """A benchmark: prompts without answers."""
    words = vocabulary()
    rng = np.random.Generator(np.random.PCG64(2))
    with path.open("w", encoding="utf-8") as file:
        for number in range(QUESTIONS):
            text = " ".join(words[_zipf(rng, QUESTION_WORDS)])
            file.write(json.dumps({"id": f"q{number}", "prompt": text.capitalize() + "?"}) + "\n")


def rows(count: int, size: int, seed: int) -> Iterator[str]:
    """`count` lines of about `size` bytes: {"id", "prompt", "completion", "source"}."""
    words = vocabulary()
    asked = [json.loads(line)["prompt"] for line in _questions_of(words)]
    rng = np.random.Generator(np.random.PCG64(seed))
    mean = float(np.mean([len(word) for word in words[_zipf(rng, 10_000)]])) + 1
    per_row = max(int((size - 70) / mean), 20)
    last = words[_zipf(rng, per_row)]
    for number in range(count):
        kind = rng.random()
        if number and kind < DUPLICATES:
            chosen = last
        elif number and kind < DUPLICATES + NEAR:
            chosen = last.copy()
            chosen[rng.integers(0, per_row, CHANGED)] = words[rng.integers(0, WORDS, CHANGED)]
        else:
            chosen = last = words[_zipf(rng, per_row)]
        cut = per_row // 8
        prompt, completion = " ".join(chosen[:cut]), " ".join(chosen[cut:])
        if kind > 1 - LEAKED:
            completion += " " + asked[int(rng.integers(0, QUESTIONS))]
        yield json.dumps({"id": f"{seed}-{number}", "prompt": prompt, "completion": completion, "source": f"s{number % 5}"}) + "\n"


def _questions_of(words: "np.ndarray") -> Iterator[str]:
    rng = np.random.Generator(np.random.PCG64(2))
    for _ in range(QUESTIONS):
        text = " ".join(words[_zipf(rng, QUESTION_WORDS)])
        yield json.dumps({"prompt": text.capitalize() + "?"})


def _zipf(rng: "np.random.Generator", count: int) -> "np.ndarray":
    """Word numbers: the n-th word about as often as 1 / n."""
    return (np.exp(rng.random(count) * np.log(WORDS + 1)) - 1).astype(np.int64)


def make(folder: Path, count: int, size: int) -> tuple[list[Path], Path]:
    """Two files of half the rows each and the benchmark's questions; files that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"part{part}-{count}x{size}.jsonl" for part in (1, 2)]
    for part, file in enumerate(files, 3):
        if not file.exists():
            with file.with_suffix(".tmp").open("w", encoding="utf-8", buffering=1 << 20) as out:
                out.writelines(rows(count // 2, size, part))
            file.with_suffix(".tmp").rename(file)
    bench = folder / "questions.jsonl"
    questions(bench)
    return files, bench
