"""What moved when rows were scored again: `r1 reject --compare OLD`, after a reward has changed.

A row is the same row when `id` and `sample` are the same. OLD is a file of scored rows, which is read once (about 300 bytes of each row
stay in memory), or the input itself, whose rows then bring their old scores with them (nothing stays in memory).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.row import Row, require

OWN = "input"
SAME = 1e-9  # scores that differ by less have not moved
_SHOWN = 3
_CHANGES_KEPT = 100  # in the manifest
Scores = dict[str, float | None]


@dataclass
class Moves:
    """compared: rows that had old scores. moved: those of which a score or the verdict changed. unknown: rows without old scores.

    changes: (reward, from, to) -> rows. verdicts: (kept before, kept now) -> rows, for rows whose old scores say it.
    missing: rewards that the old scores do not have -> rows. first: the first rows that moved, in words.
    """

    keeps: Callable[[Row], bool]
    old: dict[Any, Scores] | None = None
    compared: int = 0
    moved: int = 0
    unknown: int = 0
    changes: Counter[tuple[str, float | None, float | None]] = field(default_factory=Counter)
    verdicts: Counter[tuple[bool, bool]] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    first: list[str] = field(default_factory=list)
    _carried: dict[str, Scores] = field(default_factory=dict)

    def before(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows on their way to be scored; the scores they carry are remembered until `after` has seen them."""
        for row in rows:
            if self.old is None and isinstance(row.get("rewards"), dict):
                self._carried[row.where] = row["rewards"]
            yield row

    def after(self, row: Row) -> dict[str, Any] | None:
        """Compare a row that has just been scored; what moved as a JSON value, None when nothing did."""
        old = self._carried.pop(row.where, None) if self.old is None else self.old.pop(_key(row), None)
        if old is None:
            self.unknown += 1
            return None
        self.compared += 1
        new: Scores = row["rewards"]
        self.missing.update(name for name in new if name not in old)
        changed = {name: [old[name], score] for name, score in new.items() if name in old and not _same(old[name], score)}
        self.changes.update((name, was, now) for name, (was, now) in changed.items())
        note: dict[str, Any] = {"rewards": changed} if changed else {}
        if all(name in old for name in new):
            was, now = self.keeps(row.with_fields(rewards={**new, **old})), self.keeps(row)
            self.verdicts[was, now] += 1
            note |= {"kept": [was, now]} if was != now else {}
        if note:
            self.moved += 1
            if len(self.first) < _SHOWN:
                self.first.append(_in_words(row, note))
        return note or None

    def counts(self) -> dict[str, Any]:
        """The figures for a manifest."""
        return {
            "compared": self.compared,
            "moved": self.moved,
            "not_in_old": self.unknown,
            "only_in_old": len(self.old or ()),
            "changes": [
                {"reward": name, "from": was, "to": now, "rows": rows} for (name, was, now), rows in self.changes.most_common(_CHANGES_KEPT)
            ],
            "kept_to_dropped": self.verdicts[True, False],
            "dropped_to_kept": self.verdicts[False, True],
        }

    def lines(self) -> list[str]:
        """At most three lines for the summary."""
        head = f"compared: {self.moved} of {self.compared} rows moved"
        if self.verdicts:
            head += f"; {self.verdicts[False, True]} now kept, {self.verdicts[True, False]} now dropped"
        others = [f"{self.unknown} have no old scores"] * bool(self.unknown) + [f"{len(self.old or ())} are only in OLD"] * bool(self.old)
        others += [f"`{name}` is new for {rows}" for name, rows in self.missing.items()]
        lines = [head + "".join(f"; {text}" for text in others)]
        if self.changes:
            lines.append("moves: " + ", ".join(_change(self.changes, name) for name in dict.fromkeys(name for name, _, _ in self.changes)))
        return lines + (["for example " + "; ".join(self.first)] if self.first else [])


def index(rows: Iterable[Row]) -> dict[Any, Scores]:
    """The scores of OLD by row. Raises `R1Error` (exit 2) for a row without scores, and for one that is there twice."""
    found: dict[Any, Scores] = {}
    for row in rows:
        key = _key(row)
        scores = require(row, "rewards", dict)
        if key in found:
            raise R1Error(
                f"{row.where}: row `{row.get('id')}`, sample {row.get('sample')} is there twice in --compare",
                hint="compare with one file of one scoring",
                code=Exit.USAGE,
            )
        found[key] = scores
    return found


def _key(row: Row) -> Any:
    return row.get("id"), row.get("sample")


def _same(one: float | None, other: float | None) -> bool:
    return one is other or (one is not None and other is not None and abs(one - other) < SAME)


def _change(changes: Counter[tuple[str, float | None, float | None]], name: str) -> str:
    """`accuracy 0 to 1: 7, 1 to 0: 2`, or `length up 30, down 12` when the values are many."""
    own = {(was, now): rows for (reward, was, now), rows in changes.items() if reward == name}
    if len(own) <= _SHOWN:
        return f"{name} " + ", ".join(f"{_value(was)} to {_value(now)}: {rows}" for (was, now), rows in own.items())
    up = sum(rows for (was, now), rows in own.items() if (was or 0.0) < (now or 0.0))
    return f"{name} up {up}, down {sum(own.values()) - up}"


def _value(score: float | None) -> str:
    return "null" if score is None else f"{score:g}"


def _in_words(row: Row, note: dict[str, Any]) -> str:
    moved = ", ".join(f"{name} {_value(was)} to {_value(now)}" for name, (was, now) in note.get("rewards", {}).items())
    verdict = "" if "kept" not in note else "now kept" if note["kept"][1] else "now dropped"
    return f"`{row.get('id')}`/{row.get('sample')}: " + ", ".join(part for part in (moved, verdict) if part)
