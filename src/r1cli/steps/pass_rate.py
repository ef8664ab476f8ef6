"""The difficulty window: prompts that are neither too easy nor too hard for the model that answered them.

0.1..0.9     prompts of which between 10% and 90% of the completions are right, both ends included;  0.1..  and  ..0.9  are open
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.row import Row
from r1cli.steps.keep import Dropped
from r1cli.steps.spool import Spool

_SHARE = r"(?:\d+\.?\d*|\.\d+)"


@dataclass(frozen=True)
class Window:
    """A closed range of pass rates within [0, 1]."""

    low: float
    high: float

    def misses(self, rate: float | None) -> str | None:
        """Why a prompt of this pass rate (None: not one completion could be judged) is outside; None inside."""
        if rate is None:
            return "pass rate unknown: no completion of the prompt could be judged"
        if rate < self.low:
            return f"pass rate below {self.low:g}"
        return f"pass rate above {self.high:g}" if rate > self.high else None


def parse(text: str) -> Window:
    """`LOW..HIGH` as a window. Raises `R1Error` (exit 2) for anything else."""
    match = re.fullmatch(rf"({_SHARE}(?=\.\.))?\.\.({_SHARE})?", text.strip())
    low, high = (float(match[1] or 0), float(match[2] or 1)) if match and (match[1] or match[2]) else (1.0, 0.0)
    if not 0 <= low <= high <= 1:
        raise R1Error(f"`--pass-rate {text}` is not a range of shares", hint="for example --pass-rate 0.1..0.9", code=Exit.USAGE)
    return Window(low, high)


class PassRates:
    """How many of each prompt's completions were right. The reward `name` decides: right is `maximum`, null was not judged."""

    def __init__(self, name: str, maximum: float) -> None:
        self.name, self.maximum = name, maximum
        self._right: dict[Any, int] = {}
        self._judged: dict[Any, int] = {}

    def watch(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows, counted on their way."""
        for row in rows:
            scores = row["rewards"]
            score = scores[self.name] if scores.get(self.name) is not None else scores.get("judge")
            if score is not None:
                self._judged[row.get("id")] = self._judged.get(row.get("id"), 0) + 1
                self._right[row.get("id")] = self._right.get(row.get("id"), 0) + (score >= self.maximum)
            yield row

    def of(self, row_id: Any) -> float | None:
        """The share of right completions of a prompt, once every row has been counted."""
        judged = self._judged.get(row_id, 0)
        return self._right[row_id] / judged if judged else None


def within(rows: Iterable[Row], window: Window | None, rates: PassRates, dropped: Dropped) -> Iterator[Row]:
    """The rows of prompts inside the window, in input order once the input has ended; without a window every row at once."""
    if window is None:
        yield from rows
        return
    with Spool() as spool:
        for row in rows:
            spool.add(row)
        for number in range(len(spool)):
            row = spool.row(number)
            reason = window.misses(rates.of(row.get("id")))
            if reason is None:
                yield row
            else:
                dropped.add(row, reason)
