"""How well the language reward's word counts agree with hand counts, and how fast they are.

    python bench/language_agreement.py SEGMENTS.jsonl

Rows: {group, text, language, english_words, chinese_units}. For every group: the mean absolute error of the share of English words
against the hand count (segments whose hand count is 0 words of either kind in Latin script count as 0 English), and of Chinese units;
then microseconds a segment, and the time for a 2,000-word reasoning. Writes one JSON object to stdout, the table to stderr.
"""

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

from r1cli.text.language import _detect, count_words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("segments", type=Path)
    path = parser.parse_args().segments
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    errors: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for target, hand in (("en", row["english_words"]), ("zh", row["chinese_units"])):
            counted = count_words(row["text"], target)
            total = row["english_words"] + row["chinese_units"]
            if row["group"] in ("latin", "other"):  # the hand counts hold English and Chinese only: none of these words is in either
                error = counted.target / counted.words if counted.words else 0.0
            elif not total:
                error = float(counted.words > 0)
            else:
                error = abs(hand / total - counted.share)
            errors[row["group"]].append(error)
            if error > 1e-9:
                sys.stderr.write(f"  {target} {counted.target}/{counted.words}, by hand {hand}/{total}: {row['text']!r}\n")
    start = time.perf_counter()
    for row in rows * 20:
        count_words(row["text"], "en")
    warm = (time.perf_counter() - start) / (20 * len(rows))
    long_text = " ".join(row["text"] for row in rows if row["group"] == "en_long") * 17
    seconds = []
    for _ in range(5):
        _detect.cache_clear()
        start = time.perf_counter()
        counted = count_words(long_text, "en")
        seconds.append(time.perf_counter() - start)
    by_group = {group: round(statistics.mean(found), 4) for group, found in errors.items()}
    summary = {
        "segments": len(rows),
        "mean_absolute_error": by_group,
        "all": round(statistics.mean(error for found in errors.values() for error in found), 4),
        "microseconds_per_segment": round(warm * 1e6, 1),
        "long_text": {"words": counted.words, "share": round(counted.share, 4), "milliseconds": round(statistics.median(seconds) * 1e3, 2)},
    }
    for group, error in by_group.items():
        sys.stderr.write(f"{group:12s} {error:.4f}\n")
    sys.stdout.write(json.dumps(summary) + "\n")


if __name__ == "__main__":
    main()
