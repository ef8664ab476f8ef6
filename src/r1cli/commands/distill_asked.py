"""The prompts that `r1 distill` asks now. An earlier attempt may have read others, and its traces are still there."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from r1cli.errors import R1Error
from r1cli.io.stream import read_rows
from r1cli.row import Row, stable_id
from r1cli.settings import DistillSettings
from r1cli.steps.keep import Dropped
from r1cli.text.choices import shuffled

NOT_ASKED = "its prompt is not asked any more"


class Asked:
    """The rows of prompts.jsonl, by id and prompt: under an id of old may be another prompt now.

    others: traces that `holds` was shown and that are of none of them.
    """

    def __init__(self, prompts: Path, settings: DistillSettings) -> None:
        self.prompts = prompts
        self.others = 0
        self._known = {_key(_shown(row, settings)) for row in read_rows([str(prompts)])}

    def holds(self, trace: Row) -> bool:
        """Whether a trace is of one of them."""
        known = _key(trace) in self._known
        self.others += not known
        return known

    def among(self, traces: Iterable[Row], dropped: Dropped) -> Iterator[Row]:
        """The traces that are of one of them; the others are dropped."""
        for trace in traces:
            if _key(trace) in self._known:
                yield trace
            else:
                dropped.add(trace, NOT_ASKED)


def _key(row: Row) -> tuple[Any, str]:
    return row.get("id"), stable_id(row["prompt"]) if "prompt" in row else ""


def _shown(row: Row, settings: DistillSettings) -> Row:
    """The row as its trace has it: templates leave the prompt alone, --shuffle-choices does not."""
    if not settings.shuffle_choices or not row.get("choices") or row.get("answer") is None:
        return row
    try:
        return shuffled(row, settings.seed)
    except R1Error:  # whoever draws from it says so
        return row
