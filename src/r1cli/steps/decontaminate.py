"""Leave out training rows that share an n-gram with a benchmark's prompts.

DeepSeek-R1 (supplement, decontamination): rows with a 10-gram that also stands in an evaluation question are removed. A word here is a
run of letters, digits and underscores, lower-cased; a Chinese, Japanese or Korean character is a word of its own. Benchmark prompts
shorter than n words have no n-gram: they match a prompt that has exactly their words.

What it leaves out: paraphrases and translations, which no n-gram finds.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from r1cli.row import Row, messages_of
from r1cli.steps.keep import Dropped

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")
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
            words = words_of(_prompt_text(row))
            for gram in _grams(words, n) if len(words) >= n else [tuple(words)]:
                if gram:
                    self._where.setdefault(gram, row.where or str(row.get("id")))

    def find(self, row: Row) -> Overlap | None:
        """The first n-gram that the row shares with a benchmark prompt."""
        prompt = tuple(words_of(_prompt_text(row)))
        grams = itertools.chain([prompt], *(_grams(words_of(text), self.n) for text in _texts(row)))
        gram = next((gram for gram in grams if gram in self._where), None)
        return None if gram is None else Overlap(row.get("id"), row.where, self._where[gram], " ".join(gram))


def decontaminate_rows(rows: Iterable[Row], benchmark: Benchmark, dropped: Dropped) -> Iterator[Row]:
    """The rows that share nothing with the benchmark; the others are noted in `benchmark.overlaps`."""
    for row in rows:
        overlap = benchmark.find(row)
        if overlap is None:
            yield row
            continue
        benchmark.overlaps.append(overlap)
        benchmark.common[overlap.words] += 1
        dropped.add(row, f"shares {benchmark.n} words in a row with a benchmark")


def words_of(text: str) -> list[str]:
    """The lower-cased words of a text."""
    return _WORD.findall(text.lower())


def _grams(words: list[str], n: int) -> Iterator[Gram]:
    return zip(*(words[start:] for start in range(n)), strict=False)


def _prompt_text(row: Row) -> str:
    """What a row asks: its prompt, or what the user says in its messages."""
    prompt = row.get("prompt", row.get("messages", ""))
    return "\n".join(_content(message) for message in messages_of(prompt) if message.get("role") == "user")


def _texts(row: Row) -> Iterator[str]:
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
