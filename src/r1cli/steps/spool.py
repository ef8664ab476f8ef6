"""Rows that wait on disk until it is known which of them are wanted: 8 bytes of each stay in memory.

with Spool() as spool:
    number = spool.add(row)         # 0, 1, 2 ...
    spool.row(number)               # the row again, byte for byte, with its `where`
"""

import contextlib
import os
import tempfile
from array import array
from types import TracebackType
from typing import Self

from r1cli.errors import R1Error, of_disk
from r1cli.row import Row, dump, parse


class Spool:
    """A context manager around a temporary file without a name: it is gone with the process, however that ends."""

    def __init__(self) -> None:
        try:
            self._file = tempfile.TemporaryFile("wb+", buffering=1 << 16)  # noqa: SIM115  closed by __exit__
        except OSError as error:
            raise _no_room(error) from None
        self._starts = array("Q", [0])
        self._flushed = 0

    def __len__(self) -> int:
        return len(self._starts) - 1

    def add(self, row: Row) -> int:
        """Take in a row; its number."""
        line = row.where.encode("utf-8", "surrogateescape") + b"\0" + dump(row).encode("utf-8")
        try:
            self._file.write(line)
        except OSError as error:
            raise _no_room(error) from None
        self._starts.append(self._starts[-1] + len(line))
        return len(self) - 1

    def row(self, number: int) -> Row:
        """The row of this number."""
        start, end = self._starts[number], self._starts[number + 1]
        if end > self._flushed:
            try:
                self._file.flush()
            except OSError as error:
                raise _no_room(error) from None
            self._flushed = self._starts[-1]
        data = b""
        while len(data) < end - start:  # a read may be interrupted, and gives 2 GiB at most
            data += os.pread(self._file.fileno(), end - start - len(data), start + len(data))
        where, _, line = data.partition(b"\0")
        return parse(line.decode("utf-8"), where.decode("utf-8", "surrogateescape"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # a full disk refuses what is still buffered, which nobody wants any more
            self._file.close()


def _no_room(error: OSError) -> R1Error:
    return R1Error(
        f"the temporary folder `{tempfile.gettempdir()}` cannot be written: {error.strerror or error}",
        hint=of_disk(error, ", or name another folder: TMPDIR=/big/disk r1 ..."),
    )
