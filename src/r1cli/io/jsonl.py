"""JSON lines: bytes in, rows out, and the mending of a file whose writer was killed.

Lines end at `\\n` and nowhere else (U+2028 may stand inside a string). A byte order mark and blank lines are passed over. A bad line is
handed on as the `R1Error` that describes it: the reader of the stream decides whether it stops or counts.
"""

import io
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from r1cli.errors import Exit, R1Error
from r1cli.io import compress
from r1cli.row import Row, parse

Item = Row | R1Error
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_file(path: Path, compression: str) -> Iterator[Item]:
    """The rows of a JSONL file, one at a time."""
    with path.open("rb") as raw:
        yield from read_stream(compress.reader(raw, compression), str(path))


def read_pipe(raw: IO[bytes], name: str) -> Iterator[Item]:
    """The rows of a stream that cannot seek; compression is told from its first bytes, Parquet is refused."""
    yield from read_stream(plain_stream(raw, name), name)


def plain_stream(raw: IO[bytes], name: str) -> IO[bytes]:
    """The JSON lines of a stream that cannot seek, decompressed if its first bytes say so. Parquet is an `R1Error`."""
    stream = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw)  # type: ignore[type-var]
    magic = stream.peek(4)[:4]
    if magic == compress.PARQUET_MAGIC:
        raise R1Error(f"{name}: Parquet cannot be read from a pipe", hint="name the file: r1 COMMAND FILE.parquet", code=Exit.USAGE)
    return compress.reader(stream, compress.compression_of(magic))


def read_stream(stream: IO[bytes], name: str) -> Iterator[Item]:
    """The rows of a stream of bytes; `name` stands before the line number in messages."""
    number, first = 0, True
    lines = iter(stream)
    while True:
        number += 1
        try:
            line = next(lines)
        except StopIteration:
            return
        except (EOFError, zlib.error, OSError) as error:
            raise R1Error(
                f"{name}:{number}: cannot read on ({error})",
                hint="the file is damaged or cut off: fetch or write it again",
                code=Exit.USAGE,
            ) from None
        item = parse_line(line, f"{name}:{number}", first=first)
        if item is not None:
            first = False
            yield item


def parse_line(line: bytes, where: str, *, first: bool) -> Item | None:
    """The row of one line; None for a blank one, and the error that describes it for a bad one.

    first: nothing but blank lines is before it in its file. What makes a whole file unreadable is raised.
    """
    if first and line.startswith(_UTF16):
        raise R1Error(f"{where}: the file is UTF-16", hint="turn it into UTF-8: iconv -f UTF-16 -t UTF-8 IN > OUT", code=Exit.USAGE)
    if first:
        line = line.removeprefix(_BOM)
    whole = line.endswith(b"\n")
    line = line.removesuffix(b"\n").removesuffix(b"\r")
    if not line.strip():
        return None
    if first and _begins_array(line):  # --skip-bad would leave out all of it
        raise R1Error(
            f"{where}: this is one JSON array, not JSON lines",
            hint="one object a line: jq -c '.[]' IN > OUT.jsonl",
            code=Exit.USAGE,
        )
    try:
        return parse(line.decode("utf-8"), where)
    except UnicodeDecodeError as error:
        return R1Error(
            f"{where}: not UTF-8 (byte {error.start + 1} of the line)",
            hint="mend the line, or pass --skip-bad to count and leave out bad lines",
            code=Exit.USAGE,
        )
    except R1Error as error:
        if whole:
            return error
        return R1Error(
            f"{where}: the last line is cut off", hint="its writer was stopped: pass --skip-bad to leave the line out", code=Exit.USAGE
        )


def _begins_array(line: bytes) -> bool:
    """Whether a first line begins an array of objects, on that line or over several."""
    rest = line.strip()
    return rest.startswith(b"[") and rest[1:].lstrip()[:1] in (b"", b"{")


def repair_tail(path: str | Path) -> int:
    """Cut a torn last line off a plain JSONL file, so that whole rows can be appended. Returns the number of bytes removed.

    A last line that lacks only its newline gets it. A file that does not exist is left alone.
    """
    path = Path(path)
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = _last_line_start(file, size)
        file.seek(start)
        tail = file.read()
        if not tail:
            return 0
        try:
            parse(tail.decode("utf-8"))
        except (UnicodeDecodeError, R1Error):
            file.truncate(start)
            return len(tail)
        file.write(b"\n")
    return 0


def _last_line_start(file: IO[bytes], size: int) -> int:
    """The offset just after the last newline."""
    end = size
    while end > 0:
        begin = max(0, end - (1 << 16))
        file.seek(begin)
        newline = file.read(end - begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0


def finished_pairs(path: str | Path, counts: Callable[[Row], bool] = lambda row: True) -> set[tuple[str | int, int]]:
    """The `(id, sample)` of every whole row in a plain JSONL file: what `r1 sample --resume` need not draw again.

    counts: asked of each row; a pair of rows that do not count is not among them.
    Call `repair_tail` first. A row without the two fields is an `R1Error`: the file was not written by `r1 sample`.
    """
    path = Path(path)
    pairs: set[tuple[str | int, int]] = set()
    if not path.exists():
        return pairs
    for item in read_file(path, ""):
        if isinstance(item, R1Error):
            raise item
        row_id, sample = item.get("id"), item.get("sample")
        if not isinstance(row_id, str | int) or not isinstance(sample, int):
            raise R1Error(
                f"{item.where}: not a row of `r1 sample`: it has no `id` and `sample`",
                hint="give --out another name, or start anew with --force",
                code=Exit.USAGE,
            )
        if counts(item):
            pairs.add((row_id, sample))
    return pairs
