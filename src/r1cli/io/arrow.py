"""JSON values as Arrow columns and back, losing nothing.

The rule for a column that r1 writes: when all values of a field share one Arrow type, the column has that type; when they do not (a number
here and a string there, an integer beyond 64 bits, text with half a surrogate pair), the column is JSON text. Objects with different keys
become one type with all of them.
Arrow cannot tell a field that is null from a field that is not there: a field (or a key of an object) that is lacking in places and nowhere
null has nulls that mean "not there"; one that comes both ways is JSON text. The schema's metadata, under the key `r1`, says which columns
are which, so that reading gives back the rows that were written. Other tools see ordinary columns.

Values of other people's files that JSON has no word for: times become ISO 8601, decimals their digits, bytes base64; NaN and infinity
are refused.
"""

import base64
import datetime
import decimal
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.row import Row

METADATA_KEY = b"r1"
MIXED = "json"  # the shape of values that share no Arrow type
_DEEPEST = 16  # lists and objects nested deeper than this are JSON text
_MOST_KEYS = 100  # objects with more keys in all are JSON text: their keys are data
_EXACT = 2**53  # whole numbers below this are exact as floats
_LACKING, _NULL = "lacking", "null"
Shape = Any
"""None (only nulls so far) | "bool" | "int" | "long" (from 2**53) | "float" | "str" | MIXED | ("list", Shape) | ("object", {key: Shape}).
The shape of a key is wrapped, ("lacking", Shape) or ("null", Shape), where some objects lack it or have it as null."""


def shape_of(value: Any, depth: int = 0, floats: bool = False) -> Shape:
    """The shape of one JSON value; MIXED when no Arrow type holds it exactly. floats: see `merge`."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        if -_EXACT < value < _EXACT:
            return "int"
        return "long" if -(2**63) <= value < 2**63 else MIXED
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "str" if encodable(value) else MIXED
    if depth == _DEEPEST:
        return MIXED
    if isinstance(value, list):
        inner: Shape = None
        for item in value:
            inner = merge(inner, shape_of(item, depth + 1, floats), floats)
        return MIXED if inner == MIXED else ("list", inner)
    if not value or not all(key and encodable(key) for key in value):
        return MIXED
    shapes = {key: shape_of(item, depth + 1, floats) for key, item in value.items()}
    return MIXED if MIXED in shapes.values() else ("object", shapes)


def merge(one: Shape, other: Shape, floats: bool = False) -> Shape:
    """The shape that holds the values of both. floats: whole numbers may become floats beside others."""
    if one is None or one == other:
        return other
    if other is None:
        return one
    if isinstance(one, str) and isinstance(other, str):
        pair = {one, other}
        if pair == {"int", "long"}:
            return "long"
        return "float" if floats and pair == {"int", "float"} else MIXED
    if not isinstance(one, tuple) or not isinstance(other, tuple) or one[0] != other[0]:
        return MIXED
    if one[0] == "list":
        inner = merge(one[1], other[1], floats)
        return MIXED if inner == MIXED else ("list", inner)
    shapes = {key: _merge_keys(one[1].get(key, _LACKING), other[1].get(key, _LACKING), floats) for key in {**one[1], **other[1]}}
    return MIXED if MIXED in shapes.values() or len(shapes) > _MOST_KEYS else ("object", shapes)


def _merge_keys(one: Shape, other: Shape, floats: bool) -> Shape:
    """The shape of a key of two objects; `_LACKING` stands for the key that one of them has not."""
    (first, marks), (second, more) = _unwrapped(one), _unwrapped(other)
    marks |= more
    shape = merge(first, second, floats)
    if len(marks) == 2 or shape == MIXED:
        return MIXED
    return (marks.pop(), shape) if marks and shape is not None else shape


def _unwrapped(shape: Shape) -> tuple[Shape, set[str]]:
    """A key's shape and its marks: lacking in places, null in places."""
    if shape == _LACKING:
        return None, {_LACKING}
    if isinstance(shape, tuple) and shape[0] in (_LACKING, _NULL):
        return shape[1], {shape[0]}
    return shape, {_NULL} if shape is None else set()


def encodable(text: str) -> bool:
    """Whether a string is Unicode text: JSON may hold half a surrogate pair, UTF-8 may not."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@dataclass
class Columns:
    """What the rows seen so far need as columns: `add` every row, then ask for the `schema` and for `batch`es.

    floats: a field of whole and other numbers becomes a column of floats, not of JSON text; 1 is then read back as 1.0.
    """

    rows: int = 0
    floats: bool = False
    _shapes: dict[str, Shape] = field(default_factory=dict)
    _present: dict[str, int] = field(default_factory=dict)
    _nulls: set[str] = field(default_factory=set)

    def add(self, row: dict[str, Any]) -> None:
        self.rows += 1
        for name, value in row.items():
            self._present[name] = self._present.get(name, 0) + 1
            if value is None:
                self._nulls.add(name)
            if self._shapes.get(name) != MIXED:
                self._shapes[name] = merge(self._shapes.get(name), shape_of(value, floats=self.floats), self.floats)

    def update(self, other: "Columns") -> None:
        """Take in what other rows need; the fields of those that came first stay in front."""
        self.rows += other.rows
        self._nulls |= other._nulls
        for name, shape in other._shapes.items():
            self._present[name] = self._present.get(name, 0) + other._present[name]
            self._shapes[name] = merge(self._shapes.get(name), shape, self.floats)

    def schema(self) -> Any:
        """The Arrow schema, with the metadata that `rows_of` reads."""
        import pyarrow as pa

        as_text = self._as_text()
        columns = self._column_names()
        fields = [(columns[name], pa.string() if name in as_text else _arrow_type(shape)) for name, shape in self._shapes.items()]
        note = {
            "json": [columns[name] for name in self._shapes if name in as_text],
            "absent": [columns[name] for name, count in self._present.items() if count < self.rows],
            "names": {column: name for name, column in columns.items() if name != column},
        }
        lacking = {columns[name]: tree for name, shape in self._shapes.items() if name not in as_text and (tree := _lacking(shape))}
        if lacking:
            note["keys"] = lacking
        return pa.schema(fields, metadata={METADATA_KEY: json.dumps(note).encode("ascii")})

    def batch(self, rows: list[dict[str, Any]], schema: Any) -> Any:
        """Rows as one Arrow record batch of `schema`."""
        import pyarrow as pa

        as_text = self._as_text()
        arrays = []
        for name, column in zip(self._shapes, schema, strict=True):
            if name in as_text:
                values = [json.dumps(row[name], allow_nan=False) if name in row else None for row in rows]
            else:
                values = [row.get(name) for row in rows]
            arrays.append(pa.array(values, type=column.type))
        return pa.record_batch(arrays, schema=schema)

    def _as_text(self) -> set[str]:
        both_ways = {name for name in self._nulls if self._present[name] < self.rows}
        return both_ways | {name for name, shape in self._shapes.items() if shape == MIXED}

    def _column_names(self) -> dict[str, str]:
        """Field name -> column name: the same, except for names that Parquet cannot hold."""
        names: dict[str, str] = {}
        for number, name in enumerate(self._shapes):
            column = name if name and encodable(name) else f"field_{number}"
            while column != name and column in self._shapes:
                column += "_"
            names[name] = column
        return names


def _arrow_type(shape: Shape) -> Any:
    import pyarrow as pa

    if isinstance(shape, tuple) and shape[0] == "list":
        return pa.list_(_arrow_type(shape[1]))
    if isinstance(shape, tuple):
        return pa.struct([(key, _arrow_type(_unwrapped(inner)[0])) for key, inner in shape[1].items()])
    return {"bool": pa.bool_(), "int": pa.int64(), "long": pa.int64(), "float": pa.float64()}.get(shape, pa.string())


def _lacking(shape: Shape) -> dict[str, Any]:
    """Which keys some objects lack: {key: {"lacking": True} and what lies in it}, {} when there are none. Lists are passed through."""
    if isinstance(shape, tuple) and shape[0] == "list":
        return _lacking(shape[1])
    tree: dict[str, Any] = {}
    if isinstance(shape, tuple):
        for key, wrapped in shape[1].items():
            inner, marks = _unwrapped(wrapped)
            branch = {"lacking": _LACKING in marks, "keys": _lacking(inner)}
            if branch["lacking"] or branch["keys"]:
                tree[key] = branch
    return tree


def _without_lacking(value: Any, tree: dict[str, Any]) -> Any:
    """A value read from a column without the keys that its objects did not have when they were written."""
    if isinstance(value, list):
        return [_without_lacking(item, tree) for item in value]
    if not isinstance(value, dict):
        return value
    fields = {}
    for key, item in value.items():
        branch = tree.get(key)
        if branch is None:
            fields[key] = item
        elif item is not None or not branch["lacking"]:
            fields[key] = _without_lacking(item, branch["keys"])
    return fields


def rows_of(batches: Iterable[Any], schema: Any, name: str) -> Iterator[Row | R1Error]:
    """The rows of Arrow record batches (or tables); a row that JSON cannot hold comes out as the error that says so."""
    note = json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))
    as_text, absent, names, keys = set(note.get("json", ())), set(note.get("absent", ())), note.get("names", {}), note.get("keys", {})
    if len(set(schema.names)) < len(schema.names):
        raise R1Error(f"{name}: two columns have the same name", hint="rename one of them", code=Exit.USAGE)
    columns = [(names.get(f.name, f.name), f.name in as_text, f.name in absent, not _is_json(f.type), keys.get(f.name)) for f in schema]
    number = 0
    for batch in batches:
        lists = [column.to_pylist() for column in batch.columns]
        for values in zip(*lists, strict=True):
            number += 1
            fields = {}
            try:
                for (target, text, skip_null, foreign, tree), value in zip(columns, values, strict=True):
                    if value is None and skip_null:
                        continue
                    if text and value is not None:
                        value = json.loads(value)
                    value = _jsonable(value) if foreign else value
                    fields[target] = value if tree is None else _without_lacking(value, tree)
            except ValueError as error:
                yield R1Error(
                    f"{name}:{number}: column `{target}`: {error}",
                    hint="mend the value, or pass --skip-bad to count and leave out bad rows",
                    code=Exit.USAGE,
                )
                continue
            yield Row(fields, where=f"{name}:{number}")


def _is_json(kind: Any) -> bool:
    """Whether every value of an Arrow type is a JSON value as `to_pylist` gives it."""
    import pyarrow.types as t

    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        return _is_json(kind.value_type)
    if t.is_struct(kind):
        return all(_is_json(inner.type) for inner in kind)
    return t.is_null(kind) or t.is_boolean(kind) or t.is_integer(kind) or t.is_string(kind) or t.is_large_string(kind)


def _jsonable(value: Any) -> Any:
    """A Python value of an Arrow column as a JSON value. Raises `ValueError` for NaN, infinity and what has no JSON form."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not JSON")
        return value
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        if value and all(isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) for item in value):
            return {key: _jsonable(item) for key, item in value}  # an Arrow map
        return [_jsonable(list(item) if isinstance(item, tuple) else item) for item in value]
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    raise ValueError(f"a value of type {type(value).__name__} has no JSON form")
