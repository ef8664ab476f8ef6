"""Parquet files: rows in by record batches, rows out through a spool.

A Parquet file fixes its column types before the first row, and rows say what they need only at the last one. So the writer spools rows to
an unnamed file as JSON lines, learns the columns on the way, and converts at the end: memory stays flat. `io.arrow` has the rules.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r1cli.errors import Exit, R1Error, first_line
from r1cli.io.arrow import Columns, rows_of
from r1cli.row import Row, dump, parse

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
        reason = first_line(error)
        raise R1Error(
            f"{path}: not a readable Parquet file ({reason})",
            hint="the file is damaged or of another kind: write it again",
            code=Exit.USAGE,
        ) from None


class ParquetSink:
    """Rows on their way into one Parquet file: `write` them, then `close`, or `discard`.

    columns: what the rows need, when it is known before; then nothing is spooled.
    """

    def __init__(self, path: Path, columns: Columns | None = None) -> None:
        self._groups = None if columns is None else _Groups(path, columns)
        self._path = path
        self._columns = Columns()
        self._spool = None if columns is not None else tempfile.TemporaryFile("w+b", dir=path.parent)  # noqa: SIM115  closed below

    def write(self, row: dict[str, Any]) -> None:
        line = dump(row).encode("utf-8")  # refuses NaN before anything is counted
        if self._spool is None:
            self.write_lines([line])
            return
        self._columns.add(row)
        self._spool.write(line + b"\n")

    def write_lines(self, lines: list[bytes]) -> None:
        """Write rows given as their lines of JSON."""
        for line in lines:
            row = parse(line.decode("utf-8"))
            if self._groups is not None:
                self._groups.add(row, len(line) + 1)
            else:
                self.write(row)

    def close(self) -> None:
        """Convert what waits into the file."""
        if self._spool is not None:
            self._groups = _Groups(self._path, self._columns)
            self._spool.seek(0)
            with self._spool:
                for line in self._spool:
                    self._groups.add(parse(line[:-1].decode("utf-8")), len(line))
        assert self._groups is not None
        self._groups.close()

    def discard(self) -> None:
        if self._spool is not None:
            self._spool.close()
        if self._groups is not None:
            self._groups.discard()


class _Groups:
    """Row groups of one file. Where they end follows from the rows alone."""

    def __init__(self, path: Path, columns: Columns) -> None:
        from pyarrow.parquet import ParquetWriter

        self._columns = columns
        self._schema = columns.schema()
        self._file = ParquetWriter(path, self._schema, compression="zstd", write_page_checksum=True)
        self._rows: list[dict[str, Any]] = []
        self._size = 0

    def add(self, row: dict[str, Any], size: int) -> None:
        """Take in a row whose line has `size` bytes."""
        self._rows.append(row)
        self._size += size
        if len(self._rows) == _GROUP_ROWS or self._size > _GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        try:
            if self._rows:
                self._flush()
        finally:
            self._file.close()

    def discard(self) -> None:
        self._file.close()

    def _flush(self) -> None:
        self._file.write_batch(self._columns.batch(self._rows, self._schema))
        self._rows, self._size = [], 0
