"""Parquet files: rows in by record batches, rows out through a spool.

A Parquet file fixes its column types before the first row, and rows say what they need only at the last one. So the writer spools rows to
an unnamed file as JSON lines, learns the columns on the way, and converts at the end: memory stays flat. `io.arrow` has the rules.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.io.arrow import Columns, rows_of
from r1cli.row import Row, dump

_READ_ROWS = 256  # rows decoded at a time
_GROUP_ROWS, _GROUP_BYTES = 10_000, 1 << 25  # a row group ends at the first of the two


def read_file(path: Path) -> Iterator[Row | R1Error]:
    """The rows of a Parquet file, decoded some hundred at a time."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path, page_checksum_verification=True) as file:
            yield from rows_of(file.iter_batches(batch_size=_READ_ROWS), file.schema_arrow, str(path))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise R1Error(
            f"{path}: not a readable Parquet file ({reason})",
            hint="the file is damaged or of another kind: write it again",
            code=Exit.USAGE,
        ) from None


class ParquetSink:
    """Rows on their way into one Parquet file: `write` them, then `close`, or `discard`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns = Columns()
        self._spool = tempfile.TemporaryFile("w+b", dir=path.parent)  # noqa: SIM115  closed by close() or discard()

    def write(self, row: dict[str, Any]) -> None:
        line = dump(row).encode("utf-8")  # refuses NaN before anything is counted
        self._columns.add(row)
        self._spool.write(line + b"\n")

    def close(self) -> None:
        """Convert the spool into the file."""
        from pyarrow.parquet import ParquetWriter

        schema = self._columns.schema()
        self._spool.seek(0)
        with self._spool, ParquetWriter(self._path, schema, compression="zstd", write_page_checksum=True) as file:
            group: list[dict[str, Any]] = []
            size = 0
            for line in self._spool:
                group.append(json.loads(line))
                size += len(line)
                if len(group) == _GROUP_ROWS or size > _GROUP_BYTES:
                    file.write_batch(self._columns.batch(group, schema))
                    group, size = [], 0
            if group:
                file.write_batch(self._columns.batch(group, schema))

    def discard(self) -> None:
        self._spool.close()
