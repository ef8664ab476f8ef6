"""Inputs as plain files of JSON lines, cut into pieces that processes can read side by side, and read again line by line in any order.

A plain .jsonl file is read where it is. What cannot be read at a byte offset (compressed files, Parquet, data sets, pipes) is copied once
into a folder for temporary files: decompressed, or as one line a row. Line numbers stay those of the input.
"""

import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from r1cli.errors import Exit, R1Error, of_disk
from r1cli.io import compress
from r1cli.io.jsonl import plain_stream
from r1cli.io.stream import Source
from r1cli.row import Row, dump

PIECE = 8 << 20  # bytes
_TAIL = 1 << 16
_OPEN_FILES = 256  # at a time
_BLOCK = 24 << 20  # bytes of rows that are read together, in the order in which they lie


@dataclass(frozen=True)
class Lines:
    """A plain file of lines. name: what stands before a line's number in messages."""

    name: str
    path: str
    size: int

    def pieces(self) -> Iterator[tuple[int, int]]:
        """(start, end) of pieces: each owns the lines that begin in it."""
        return ((start, min(start + PIECE, self.size)) for start in range(0, self.size, PIECE))


class Spool:
    """A folder for copies of inputs, made when it is first needed and removed at the end. A context manager.

    out: the file that the command writes; the folder is beside it, where there must be room anyway. `-`: where TMPDIR says.
    """

    def __init__(self, out: str) -> None:
        self._parent = None if out == "-" or not Path(out).resolve().parent.is_dir() else Path(out).resolve().parent
        self._folder: Path | None = None
        self._made = 0

    def copy(self, blocks: Iterable[bytes], name: str) -> Lines:
        """These bytes as a file of lines. A folder that is full is an `R1Error`."""
        try:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix=".r1-", suffix=".tmp", dir=self._parent))
            self._made += 1
            path = self._folder / f"{self._made}.jsonl"
            with path.open("wb", buffering=1 << 20) as copy:
                copy.writelines(blocks)
        except OSError as error:
            where = self._parent or tempfile.gettempdir()
            raise R1Error(
                f"cannot write temporary files in `{where}`: {error.strerror or error}",
                hint=of_disk(error, ", or name another place: " + ("--out" if self._parent else "TMPDIR=FOLDER r1 ...")),
            ) from None
        return Lines(name, str(path), path.stat().st_size)

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def plain_lines(source: Source, spool: Spool, on_bad: Callable[[R1Error], None]) -> Iterator[Lines]:
    """The input as files of lines. on_bad: told of rows that cannot be turned into JSON (NaN in Parquet); it raises, or passes by."""
    for file in source.files:
        kind, compression = compress.kind_of(file.name) or (compress.JSONL, "")
        if kind == compress.JSONL and not compression:
            yield Lines(str(file), str(file), file.stat().st_size)
        elif kind == compress.JSONL:
            with file.open("rb") as raw:
                yield spool.copy(_blocks(compress.reader(raw, compression), str(file)), str(file))
        else:
            from r1cli.io.parquet import read_file

            yield spool.copy(_as_lines(read_file(file), on_bad), str(file))
    if source.stream is not None:
        with source.stream() as raw:
            yield spool.copy(_blocks(plain_stream(raw, source.name), source.name), source.name)
    elif not source.files:
        yield spool.copy(_as_lines(source.open(), on_bad), source.name)


def _blocks(stream: IO[bytes], name: str) -> Iterator[bytes]:
    lines = 0
    while True:
        try:
            block = stream.read(1 << 20)
        except (EOFError, zlib.error, OSError) as error:
            raise R1Error(
                f"{name}:{lines + 1}: cannot read on ({error})",
                hint="the file is damaged or cut off: fetch or write it again",
                code=Exit.USAGE,
            ) from None
        if not block:
            return
        lines += block.count(b"\n")
        yield block


def _as_lines(items: Iterable[Row | R1Error], on_bad: Callable[[R1Error], None]) -> Iterator[bytes]:
    for item in items:
        if isinstance(item, Row):
            yield dump(item).encode("utf-8") + b"\n"
        else:
            on_bad(item)
            yield b"\n"  # the rows after it keep their numbers


def read_piece(path: str, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of the lines that begin in a piece of a file; without their `\\n`."""
    with Path(path).open("rb") as file:
        file.seek(max(start - 1, 0))
        data = file.read(end - max(start - 1, 0))
        if not data.endswith(b"\n"):
            data += _rest_of_line(file)
    offset = max(start - 1, 0)
    lines = data.split(b"\n")
    del data
    if not lines[-1]:
        lines.pop()
    if start:  # the line that holds the byte before the piece is another's; it is b"" when the piece begins with a line
        offset += len(lines[0]) + 1
        lines = lines[1:]
    for line in lines:
        if offset >= end:
            return
        yield offset, line
        offset += len(line) + 1


def _rest_of_line(file: IO[bytes]) -> bytes:
    parts = []
    while block := file.read(_TAIL):
        newline = block.find(b"\n")
        if newline >= 0:
            parts.append(block[: newline + 1])
            break
        parts.append(block)
    return b"".join(parts)


class LineReader:
    """Lines of many files by offset and length, in any order. A context manager.

    They are read a block at a time, within a block in the order in which they lie on disk, and the disk is told of a block before it is
    read: a shuffled file is read about as fast as the disk allows, and memory holds two blocks.
    """

    def __init__(self, paths: list[str]) -> None:
        self._paths = paths
        self._open: dict[int, int] = {}

    def read(self, files: Any, offsets: Any, lengths: Any) -> Iterator[list[bytes]]:
        """The lines (files[i], offsets[i], lengths[i]) in this order, a block at a time. The three are integer arrays of one length."""
        import numpy as np

        if not len(offsets):
            return
        block_of = np.cumsum(lengths, dtype=np.int64) // _BLOCK
        starts = [0, *(np.flatnonzero(np.diff(block_of)) + 1).tolist(), len(offsets)]
        blocks = [(files[start:end], offsets[start:end], lengths[start:end]) for start, end in pairwise(starts)]
        with ThreadPoolExecutor(1) as ahead:  # one block is read while the one before it is used
            following = ahead.submit(self._block, *blocks[0])
            for block in blocks[1:]:
                ready, following = following.result(), ahead.submit(self._block, *block)
                yield ready
            yield following.result()

    def _block(self, files: Any, offsets: Any, lengths: Any) -> list[bytes]:
        import numpy as np

        order = np.lexsort((offsets, files))
        found: list[bytes] = [b""] * len(order)
        wanted = [(int(files[i]), int(lengths[i]), int(offsets[i]), i) for i in order.tolist()]
        if hasattr(os, "posix_fadvise"):
            for file, length, offset, _ in wanted:
                os.posix_fadvise(self._descriptor(file), offset, length, os.POSIX_FADV_WILLNEED)
        for file, length, offset, i in wanted:
            line = os.pread(self._descriptor(file), length, offset)
            if len(line) != length:
                raise R1Error("an input became shorter while it was read", hint="run again when nothing writes to it", code=Exit.USAGE)
            found[i] = line
        return found

    def _descriptor(self, file: int) -> int:
        descriptor = self._open.get(file)
        if descriptor is None:
            if len(self._open) == _OPEN_FILES:
                os.close(self._open.pop(next(iter(self._open))))
            descriptor = self._open[file] = os.open(self._paths[file], os.O_RDONLY)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        return descriptor

    def __enter__(self) -> "LineReader":
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.popitem()[1])
