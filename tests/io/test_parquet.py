"""Parquet: what goes in comes out, whatever JSON it was; other people's files become JSON or say why not."""

import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1cli.errors import R1Error
from r1cli.io import parquet
from r1cli.io.arrow import Columns, merge, rows_of, shape_of
from r1cli.io.stream import RowWriter, read_rows

SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
TEXT = st.text(st.characters(), max_size=4)  # half surrogate pairs included
VALUES = st.recursive(SCALARS | TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8)
# few names and few kinds of value, so that columns agree often enough to have types of their own
UNIFORM = st.fixed_dictionaries(
    {"m": st.lists(st.fixed_dictionaries({"role": TEXT, "content": TEXT | st.none()}), max_size=2)},
    optional={
        "o": st.fixed_dictionaries(
            {"k": st.just(1)},
            optional={
                "x": TEXT,
                "y": st.fixed_dictionaries({}, optional={"z": st.booleans(), "w": st.lists(st.integers(0, 1))}).filter(bool),
            },
        ),
        "reward": st.floats(allow_nan=False, allow_infinity=False) | st.none(),
        "n": st.integers(-9, 9),
    },
)
NAMES = st.sampled_from(["a", "b", "", "a.b", "\ud800", "field_0"]) | TEXT
ROWS = st.lists(st.dictionaries(NAMES, VALUES, min_size=1, max_size=4) | UNIFORM, min_size=1, max_size=6)


def exact(rows: list[Any]) -> list[str]:
    """Rows as text that tells 1 from 1.0 and from true, and an absent field from a null one; the order of fields does not count."""
    return [json.dumps(row, sort_keys=True) for row in rows]


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_every_row_survives_the_trip_through_arrow(rows: list[dict[str, Any]]) -> None:
    columns = Columns()
    for row in rows:
        columns.add(row)
    schema = columns.schema()
    assert exact(list(rows_of([columns.batch(rows, schema)], schema, "t"))) == exact(rows)


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_every_row_survives_the_trip_through_a_file(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    rows = [{"id": number, **row} for number, row in enumerate(rows)]
    with RowWriter(path) as writer:
        writer.write_all(rows)
    assert exact(list(read_rows([str(path)]))) == exact(rows)


def test_fields_that_agree_get_real_columns(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "q"}]
    rows = [
        {"id": "a", "prompt": chat, "rewards": {"accuracy": 1.0, "format": None}, "sample": 0, "answer": None},
        {"id": "b", "prompt": [], "rewards": {"accuracy": None, "format": 0.5}, "sample": 1, "answer": "4", "seed": 2**53},
    ]
    with RowWriter(tmp_path / "a.parquet") as writer:
        writer.write_all(rows)
    schema = pq.read_schema(tmp_path / "a.parquet")
    reward = pa.struct([("accuracy", pa.float64()), ("format", pa.float64())])
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    assert [schema.field(name).type for name in ("id", "sample", "seed", "answer", "rewards")] == [
        pa.string(),
        pa.int64(),
        pa.int64(),
        pa.string(),
        reward,
    ]
    assert schema.field("prompt").type.value_type == message
    assert [dict(row) for row in read_rows([str(tmp_path / "a.parquet")])] == rows


def test_fields_that_do_not_agree_are_json_text_and_say_so(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": 1, "x": 1}, {"id": 2, "x": 1.5}, {"id": 3, "x": None}, {"id": 4}]
    with RowWriter(tmp_path / "a.parquet") as writer:
        writer.write_all(rows)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column("x").to_pylist() == ["1", "1.5", "null", None]
    assert json.loads(table.schema.metadata[b"r1"]) == {"json": ["x"], "absent": ["x"], "names": {}}


def test_objects_with_different_keys_are_one_type_and_come_back_as_they_were(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "id": 1,
            "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "name": "n"}],
            "rewards": {"a": 0.5},
        },
        {"id": 2, "messages": [{"role": "tool", "content": None, "calls": [{"f": 1}, {"f": 2, "g": "x"}]}], "rewards": {"b": None}},
    ]
    with RowWriter(tmp_path / "a.parquet") as writer:
        writer.write_all(rows)
    schema = pq.read_schema(tmp_path / "a.parquet")
    call = pa.struct([("f", pa.int64()), ("g", pa.string())])
    message = pa.struct([("role", pa.string()), ("content", pa.string()), ("name", pa.string()), ("calls", pa.list_(call))])
    assert schema.field("messages").type.value_type == message
    assert [dict(row) for row in read_rows([str(tmp_path / "a.parquet")])] == rows
    assert schema.field("rewards").type == pa.string(), "`b` is null in one row and lacking in the other"
    assert merge(("object", {"a": "int"}), ("object", {"b": "int"})) == ("object", {"a": ("lacking", "int"), "b": ("lacking", "int")})
    assert merge(shape_of({"a": 1}), shape_of({"a": None})) == ("object", {"a": ("null", "int")})
    many = shape_of({str(n): n for n in range(60)}), shape_of({str(n): n for n in range(60, 120)})
    assert merge(*many) == "json"


def test_numbers_may_be_unified(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": 1, "x": 1, "y": {"z": [1]}, "n": 2**60}, {"id": 2, "x": 0.5, "y": {"z": [0.5]}, "n": 0.5}]
    columns = Columns(floats=True)
    for row in rows:
        columns.add(row)
    with RowWriter(tmp_path / "a.parquet", columns=columns) as writer:
        writer.write_all(rows)
    schema = pq.read_schema(tmp_path / "a.parquet")
    assert (schema.field("x").type, schema.field("y").type) == (pa.float64(), pa.struct([("z", pa.list_(pa.float64()))]))
    assert schema.field("n").type == pa.string(), "2**60 is no float: the column keeps it as text"
    assert exact(list(read_rows([str(tmp_path / "a.parquet")]))) == exact(
        [{"id": 1, "x": 1.0, "y": {"z": [1.0]}, "n": 2**60}, {"id": 2, "x": 0.5, "y": {"z": [0.5]}, "n": 0.5}]
    )


def test_files_larger_than_a_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_GROUP_ROWS", 7)
    rows = [{"id": n, "late": [n] if n > 90 else None} for n in range(100)]
    with RowWriter(tmp_path / "a.parquet") as writer:
        writer.write_all(rows)
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 15
    reader = read_rows([str(tmp_path / "a.parquet")])
    assert [dict(row) for row in reader] == rows
    assert reader.where.endswith("a.parquet:100")


def test_no_rows_make_a_readable_file(tmp_path: Path) -> None:
    with RowWriter(tmp_path / "a.parquet"):
        pass
    assert list(read_rows([str(tmp_path / "a.parquet")])) == []


def test_values_without_a_json_form_get_the_usual_one(tmp_path: Path) -> None:
    when = datetime.datetime(2025, 1, 20, 8, 30, tzinfo=datetime.UTC)
    table = pa.table(
        {
            "id": pa.array([1], pa.uint8()),
            "when": pa.array([when], pa.timestamp("us", "UTC")),
            "day": [datetime.date(2025, 1, 20)],
            "cost": [decimal.Decimal("1.50")],
            "raw": [b"\xff\x00"],
            "small": pa.array([0.5], pa.float32()),
            "tags": pa.array([[("a", 1), ("b", 2)]], pa.map_(pa.string(), pa.int64())),
            "kind": pa.array(["x"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert [dict(row) for row in read_rows([str(tmp_path / "a.parquet")])] == [
        {
            "id": 1,
            "when": "2025-01-20T08:30:00+00:00",
            "day": "2025-01-20",
            "cost": "1.50",
            "raw": "/wA=",
            "small": 0.5,
            "tags": {"a": 1, "b": 2},
            "kind": "x",
        }
    ]


def test_nan_is_refused_with_row_and_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2], "score": [{"x": 0.5}, {"x": float("nan")}]}), tmp_path / "a.parquet")
    with pytest.raises(R1Error, match=r"a.parquet:2: column `score`: nan is not JSON"):
        list(read_rows([str(tmp_path / "a.parquet")]))
    reader = read_rows([str(tmp_path / "a.parquet")], skip_bad=True)
    assert [row["id"] for row in reader] == [1]
    assert reader.bad == 1


def test_a_damaged_file_is_an_error_even_in_the_middle(tmp_path: Path) -> None:
    with RowWriter(tmp_path / "a.parquet") as writer:
        writer.write_all({"id": n, "x": str(n)} for n in range(2000))
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[100:400] = b"\xff" * 300
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(R1Error, match="not a readable Parquet file"):
        list(read_rows([str(tmp_path / "a.parquet")]))


def test_shapes_by_hand() -> None:
    assert shape_of([1, None]) == ("list", "int")
    assert shape_of([1, 2.0]) == shape_of({}) == shape_of(2**63) == shape_of("\ud800") == shape_of({"": 1}) == "json"
    assert merge(("list", None), ("list", "str")) == ("list", "str")
    assert merge(("object", {"a": "int"}), ("object", {"a": "int", "b": None})) == "json"
    assert merge("bool", "int") == "json"
    assert merge(None, "bool") == "bool"
