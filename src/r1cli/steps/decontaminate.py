"""Leave out training rows that share an n-gram with a benchmark's prompts.

DeepSeek-R1 (supplement, decontamination): rows with a 10-gram that also stands in an evaluation question are removed. A word here is a
run of letters, digits and underscores, lower-cased; a Chinese, Japanese or Korean character is a word of its own. Benchmark prompts
shorter than n words have no n-gram: they match a prompt that has exactly their words.

What it leaves out: paraphrases and translations, which no n-gram finds.

`Benchmark.find` compares words and decides. `Suspects` compares hashes of many rows at once and passes by the rows that share none.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from r1cli.row import Row, messages_of
from r1cli.steps.grams import WORD, RowWords, words_of
from r1cli.steps.keep import Dropped

_TABLE_BITS = (16, 24)  # of the table of hashes: at least, at most
Gram = tuple[str, ...]


@dataclass(frozen=True)
class Overlap:
    """One dropped row and what it shares: where both stand, and the words."""

    row_id: object
    row: str
    benchmark: str
    words: str


class Benchmark:
    """The n-grams of benchmark prompts. overlaps: every row found so far; common: how many rows each n-gram has cost."""

    def __init__(self, prompts: Iterable[Row], n: int) -> None:
        self.n = n
        self.overlaps: list[Overlap] = []
        self.common: Counter[str] = Counter()
        self._where: dict[Gram, str] = {}
        for row in prompts:
            words = words_of(prompt_text(row))
            for gram in _grams(words, n) if len(words) >= n else [tuple(words)]:
                if gram:
                    self._where.setdefault(gram, row.where or str(row.get("id")))

    def find(self, row: Row) -> Overlap | None:
        """The first n-gram that the row shares with a benchmark prompt."""
        prompt = tuple(words_of(prompt_text(row)))
        grams = itertools.chain([prompt], *(_grams(words_of(text), self.n) for text in texts_of(row)))
        gram = next((gram for gram in grams if gram in self._where), None)
        return None if gram is None else Overlap(row.get("id"), row.where, self._where[gram], " ".join(gram))

    def suspects(self) -> "Suspects":
        """The same n-grams as hashes, for worker processes."""
        return Suspects(self._where, self.n)

    def keep(self, overlap: Overlap) -> None:
        """Remember an overlap."""
        self.overlaps.append(overlap)
        self.common[overlap.words] += 1

    @property
    def reason(self) -> str:
        return f"shares {self.n} words in a row with a benchmark"


class Suspects:
    """Which rows may share an n-gram with the benchmark: all that do, and by a collision of 64-bit hashes hardly any other."""

    def __init__(self, grams: Iterable[Gram], n: int) -> None:
        import numpy as np

        self._n = n
        grams = list(grams)
        self._short = {gram for gram in grams if len(gram) < n}
        whole = [" ".join(gram) for gram in grams if len(gram) == n]
        hashes = [RowWords([whole[i : i + 1000]]).windows(n)[0] for i in range(0, len(whole), 1000)]
        self._hashes = np.unique(np.concatenate(hashes)) if hashes else np.zeros(0, np.uint64)
        bits = min(max((64 * len(self._hashes)).bit_length(), _TABLE_BITS[0]), _TABLE_BITS[1])
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, bool)
        self._table[self._hashes >> self._shift] = True

    def among(self, rows: Sequence[Row], words: RowWords) -> list[int]:
        """The positions of suspect rows, in order. words: those of `texts_of` each row."""
        import numpy as np

        found = {number for number, row in enumerate(rows) if self._short and self._is_short(prompt_text(row))}
        grams, ends_B = words.windows(self._n)
        hits = np.flatnonzero(self._table[grams >> self._shift])
        if len(hits):
            places = np.searchsorted(self._hashes, grams[hits])
            hits = hits[self._hashes[np.minimum(places, len(self._hashes) - 1)] == grams[hits]]
        found.update(np.searchsorted(ends_B, hits, side="right").tolist())
        return sorted(found)

    def _is_short(self, prompt: str) -> bool:
        words = itertools.islice(WORD.finditer(prompt.lower()), self._n)
        return tuple(word[0] for word in words) in self._short


def decontaminate_rows(rows: Iterable[Row], benchmark: Benchmark, dropped: Dropped) -> Iterator[Row]:
    """The rows that share nothing with the benchmark; the others are noted in `benchmark.overlaps`."""
    for row in rows:
        overlap = benchmark.find(row)
        if overlap is None:
            yield row
            continue
        benchmark.keep(overlap)
        dropped.add(row, benchmark.reason, overlap={"benchmark": overlap.benchmark, "words": overlap.words})


def _grams(words: list[str], n: int) -> Iterator[Gram]:
    return zip(*(words[start:] for start in range(n)), strict=False)


def prompt_text(row: Row) -> str:
    """What a row asks: its prompt, or what the user says in its messages; "" when it has neither."""
    prompt = row.get("messages") if row.get("prompt") is None else row["prompt"]
    if not isinstance(prompt, str | list):
        return ""
    messages = [message for message in messages_of(prompt) if isinstance(message, dict)]
    return "\n".join(_content(message) for message in messages if message.get("role") == "user")


def texts_of(row: Row) -> Iterator[str]:
    """Every text of a row that a model would train on."""
    for name in ("prompt", "messages", "completion", "chosen", "rejected"):
        value = row.get(name)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (_content(message) for message in value)


def _content(message: object) -> str:
    """A message's text; typed parts (`[{"type": "text", "text": ...}]`) are joined."""
    content = message.get("content") if isinstance(message, dict) else message
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) if isinstance(part, dict) else str(part) for part in content)
    return content if isinstance(content, str) else ""
