"""Rows to train on at four bytes a token, for data sets that are held whole: a list of Python's integers takes 36."""

from array import array
from collections.abc import Iterable, Sequence

from r1cli.train.batches import Sample

Turn = tuple[list[int], list[int]]  # prompt ids, completion ids


class StoredTurns(Sequence[Turn]):
    """(prompt ids, completion ids) one after the other, each made anew when it is asked for."""

    def __init__(self) -> None:
        self._ids = array("i")
        self._ends = array("q", [0])  # of a prompt and of a completion in turn, in `_ids`

    def append(self, turn: Turn) -> None:
        for ids in turn:
            self._ids.extend(ids)
            self._ends.append(len(self._ids))

    def __len__(self) -> int:
        return len(self._ends) // 2

    def __getitem__(self, number: int) -> Turn:  # type: ignore[override]
        if not 0 <= number < len(self):
            raise IndexError(number)
        begin, middle, end = self._ends[2 * number : 2 * number + 3]
        return self._ids[begin:middle].tolist(), self._ids[middle:end].tolist()


class StoredRows(Sequence[list[Sample]]):
    """Rows of samples, each made anew when it is asked for. A sample's index is the number of its row. turns: those of all rows."""

    def __init__(self) -> None:
        self.turns = StoredTurns()
        self._first = array("q", [0])  # turn of each row

    def append(self, turns: Iterable[Turn]) -> None:
        """Add a row: one (prompt ids, completion ids) for each of its samples."""
        for turn in turns:
            self.turns.append(turn)
        self._first.append(len(self.turns))

    def __len__(self) -> int:
        return len(self._first) - 1

    def __getitem__(self, number: int) -> list[Sample]:  # type: ignore[override]
        if not 0 <= number < len(self):
            raise IndexError(number)
        return [Sample(number, *self.turns[turn]) for turn in range(self._first[number], self._first[number + 1])]
