"""`--map field=column`: rows of other people's data under r1's field names.

A field takes the place of the column it is read from (the column is renamed). A dotted column reaches into objects: the field is then set
beside the object, which stays whole. A field that another column of that name held is replaced.
"""

from collections.abc import Sequence
from typing import Any

from r1cli.errors import Exit, R1Error, nearest
from r1cli.row import Row

_ABSENT = object()


class FieldMap:
    """The parsed pairs. Raises `R1Error` (exit 2) for a pair without two names and for two columns that claim the same field."""

    def __init__(self, pairs: Sequence[str]) -> None:
        self._column_of: dict[str, str] = {}
        for pair in pairs:
            name, equals, column = (part.strip() for part in pair.partition("="))
            if not (name and equals and column):
                raise R1Error(f"`--map {pair}` is not field=column", hint="for example --map answer=solution", code=Exit.USAGE)
            if self._column_of.setdefault(name, column) != column:
                raise R1Error(
                    f"`--map` gives field `{name}` two columns: `{self._column_of[name]}` and `{column}`",
                    hint="keep one of them",
                    code=Exit.USAGE,
                )

    def apply(self, row: Row) -> Row:
        """The row with its fields renamed; the row itself when there is nothing to do. A column it lacks is an `R1Error` (exit 2)."""
        moves = {name: column for name, column in self._column_of.items() if name != column}
        if not self._column_of:
            return row
        values = {name: _value(row, column) for name, column in self._column_of.items()}
        if not moves:
            return row
        renamed: dict[str, list[str]] = {}
        for name, column in moves.items():
            renamed.setdefault(column, []).append(name)
        fields: dict[str, Any] = {}
        for key, value in row.items():
            if key in renamed:
                fields.update((name, values[name]) for name in renamed[key])
            elif key not in moves:
                fields[key] = value
        fields.update((name, values[name]) for name in moves if name not in fields)
        fields.update((name, row[name]) for name, column in self._column_of.items() if name == column)
        return Row(fields, where=row.where)


def _value(row: Row, column: str) -> Any:
    if column in row:  # a column may have a dot in its name
        return row[column]
    value: Any = row
    for part in column.split("."):
        value = value.get(part, _ABSENT) if isinstance(value, dict) else _ABSENT
        if value is _ABSENT:
            where = f"{row.where}: " if row.where else ""
            raise R1Error(f"{where}row has no column `{column}` to map", hint=nearest(column, row), code=Exit.USAGE)
    return value
