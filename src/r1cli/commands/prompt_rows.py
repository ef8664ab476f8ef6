"""The prompt rows that `r1 sample` and `r1 eval` draw from: of one shard, each id once, and only those that the rewards can score.

A row without what a reward reads of it (`answer`, `tests`, `choices`) is found here, not when its completion has been paid for.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.io.stream import RowReader
from r1cli.rewards import registry
from r1cli.rewards.reward import RewardSpec
from r1cli.rewards.sets import applies
from r1cli.row import Row

PROBLEM = ("prompt", "choices", "answer", "tests")  # what a row asks, and what its answer is measured by
Check = Callable[[Row], None]
"""Raises the `R1Error` of a row that nothing should be drawn for."""


def examiner(specs: Sequence[RewardSpec]) -> Check:
    """Raises (exit 2) for a row of which no completion could be scored. A user's own rewards are not asked: only running them would tell.

    A gold that cannot be read is no error here: it is null, counts nothing and is said at the end.
    """
    rewards = [(spec, registry.make(spec)) for spec in specs if ":" not in spec.source]

    def examine(row: Row) -> None:
        for spec, reward in rewards:
            if applies(spec.sets, row):
                reward.examine(row)

    return examine


@dataclass
class Prompts:
    """The prompt rows of a command: of its shard, each id once, and only what `check` has nothing against.

    rewrites: the rows are completions, told apart by id and sample. taken: rows given so far. unusable: those of them that could not be
    drawn from all the same. repeated: rows left out because their id was there before.
    """

    reader: RowReader
    shard: tuple[int, int] | None = None
    check: Check | None = None
    rewrites: bool = False
    taken: int = 0
    unusable: int = 0
    repeated: int = 0
    _seen: dict[Any, bytes] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Row]:
        for row in self.reader:
            if not in_shard(row["id"], self.shard):
                continue
            try:
                if not self._is_new(row):
                    self.repeated += 1
                    continue
                if self.check is not None:
                    self.check(row)
            except R1Error as error:
                self.reader.leave_out(error)
                continue
            self.taken += 1
            yield row

    def leave_out(self, error: R1Error) -> None:
        """One of the rows given cannot be drawn from: as `RowReader.leave_out`."""
        self.reader.leave_out(error)
        self.unusable += 1

    def said(self) -> list[str]:
        """What to say about the rows that were there before."""
        return [f"{self.repeated} rows left out: their prompt and id were there before"] if self.repeated else []

    def _is_new(self, row: Row) -> bool:
        """Whether the id is new. Two problems under one id would share their seeds and their places in the output: an `R1Error`."""
        key = (row["id"], row.get("sample", 0)) if self.rewrites else row["id"]
        shown = row.get("completion") if self.rewrites else [row.get(name) for name in PROBLEM]
        digest = hashlib.blake2b(json.dumps(shown, sort_keys=True).encode(), digest_size=8).digest()
        if key not in self._seen:
            self._seen[key] = digest
            return True
        if self._seen[key] != digest:
            what = "completion" if self.rewrites else "prompt, answer, choices or tests"
            raise R1Error(
                f"{row.where}: row `{row['id']}` has the id of an earlier row and another {what}",
                code=Exit.USAGE,
                hint="give each its own `id`, or name the column of one (--map id=COLUMN): without, it is made of the prompt alone",
            )
        return False


def shard_of(text: str | None) -> tuple[int, int] | None:
    """`3/64` as (3, 64), counted from 1. Raises `R1Error` (exit 2)."""
    if text is None:
        return None
    part, slash, parts = text.partition("/")
    if not slash or not part.isdecimal() or not parts.isdecimal() or not 1 <= int(part) <= int(parts):
        raise R1Error(
            f"`--shard {text}` is not a part of a whole", hint="parts are counted from 1: --shard 1/64 to --shard 64/64", code=Exit.USAGE
        )
    return int(part), int(parts)


def in_shard(row_id: Any, shard: tuple[int, int] | None) -> bool:
    """Whether a prompt belongs to a shard: by its id alone, so that neither the order nor the length of the input matters."""
    if shard is None:
        return True
    digest = hashlib.blake2b(f"shard/{row_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shard[1] == shard[0] - 1
