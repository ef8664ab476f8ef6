"""Rows out: to the claimed stdout, or to a file that appears only when it is whole.

A file is written under another name beside its target and renamed at the end. So a reader never sees half a file, a command that fails or
is interrupted leaves what was there, and reading and writing the same file is safe. `append=True` is for long sampling: rows go straight
into a plain .jsonl file, line by line, and stay there whatever happens; `resume=True` goes on after the whole rows it holds.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

from r1cli.errors import Exit, R1Error, of_disk
from r1cli.io import compress
from r1cli.io.jsonl import repair_tail
from r1cli.io.stdout import claim_stdout, reader_left, watch_reader
from r1cli.row import dump

if TYPE_CHECKING:
    from r1cli.io.arrow import Columns


class Sink(Protocol):
    """Where rows go one after another; `close` makes them last, `discard` gives up."""

    def write(self, row: dict[str, Any]) -> None: ...
    def write_lines(self, lines: list[bytes]) -> None: ...
    def close(self) -> None: ...
    def discard(self) -> None: ...


class RowWriter:
    """A context manager that writes rows: `with RowWriter(out) as writer: writer.write(row)`.

    out:    `-` for stdout, or a file whose suffix says its kind (.jsonl, .jsonl.gz, .jsonl.zst, .parquet).
    force:  replace a file that exists; without it the file is refused (`R1Error`, exit 2) before anything is read.
    append: write straight into a plain .jsonl file, so that finished rows survive an interruption. Other kinds are written as always.
    resume: with `append`, keep the whole rows of the file and write after them; a torn last line is cut off.
    count:  rows written by this writer.
    columns: what a Parquet file's rows need, where it is known before the first one; without it rows wait in a temporary file.
    """

    def __init__(
        self, out: str | Path, *, force: bool = False, append: bool = False, resume: bool = False, columns: "Columns | None" = None
    ) -> None:
        self.out = str(out)
        self.count = 0
        self._force, self._append, self._resume = force, append, append and resume
        self.columns = columns
        self._sink: Sink | None = None
        self._kind = check_output(out, force=force, resume=self._resume)
        self._target = Path() if self.out == "-" else Path(out).resolve()
        self._temporary: Path | None = None

    def __enter__(self) -> Self:
        try:
            self._sink = self._open()
        except OSError as error:
            raise _cannot_write(self.out, error) from None
        return self

    def _open(self) -> Sink:
        if self.out == "-":
            return _StdoutSink()
        kind, compression = self._kind
        if self._target.exists() and not self._target.is_file():  # a device or a named pipe cannot be replaced
            return _BytesSink(self._target.open("wb", buffering=0), compression)
        self._target.parent.mkdir(parents=True, exist_ok=True)
        if self._append and (kind, compression) == (compress.JSONL, ""):
            if self._resume:
                repair_tail(self._target)
            return _BytesSink(self._target.open("ab" if self._resume else "wb", buffering=0), "")
        self._temporary = self._target.with_name(f".{self._target.name}.{os.getpid()}.tmp")
        if kind == compress.PARQUET:
            from r1cli.io.parquet import ParquetSink

            return ParquetSink(self._temporary, self.columns)
        return _BytesSink(self._temporary.open("wb"), compression)

    def write(self, row: dict[str, Any]) -> None:
        """Write one row. Raises `R1Error` for NaN and for a full disk; a reader that went away is `BrokenPipeError`."""
        assert self._sink is not None, "RowWriter is a context manager"
        try:
            with self._errors():
                self._sink.write(row)
        except (ValueError, TypeError) as error:
            raise R1Error(
                f"row `{row.get('id', self.count + 1)}` cannot be written: {error}", hint="numbers must be finite and values must be JSON"
            ) from None
        self.count += 1

    def write_lines(self, lines: list[bytes]) -> None:
        """Write rows that are lines of JSON already (UTF-8, without their newline): many at once, byte for byte."""
        assert self._sink is not None, "RowWriter is a context manager"
        with self._errors():
            self._sink.write_lines(lines)
        self.count += len(lines)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            reader_left()  # known from here on: no signal interrupts what is being closed
            raise
        except OSError as error:
            raise _cannot_write(self.out, error) from None

    def write_all(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write every row, each as soon as it is there."""
        for row in rows:
            self.write(row)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        sink, self._sink = self._sink, None
        assert sink is not None
        if kind is not None and self._temporary is not None:
            with contextlib.suppress(OSError):  # a full disk refuses what is still buffered: the error is already on its way
                sink.discard()
            self._temporary.unlink(missing_ok=True)
            return
        try:
            sink.close()
            if self._temporary is not None:
                self._temporary.replace(self._target)
        except BrokenPipeError:
            raise
        except OSError as failure:
            if self._temporary is not None:
                self._temporary.unlink(missing_ok=True)
            if kind is None:
                raise _cannot_write(self.out, failure) from None


def check_output(out: str | Path, *, force: bool = False, resume: bool = False, ways_out: str = "") -> tuple[str, str]:
    """`(format, compression)` of an output, or the `R1Error` (exit 2) a user should see before any work is done."""
    if str(out) == "-":
        return compress.JSONL, ""
    path = Path(out)
    if path.exists() and not path.is_file() and not path.is_dir():  # /dev/null, /dev/fd/63, a named pipe
        return compress.kind_of(path.name) or (compress.JSONL, "")
    kind = compress.kind_of(path.name)
    if path.is_dir():
        raise R1Error(f"`{out}` is a folder", hint=f"name a file in it: {path / 'rows.jsonl'}", code=Exit.USAGE)
    if kind is None:
        raise R1Error(f"`{out}`: the suffix does not say what to write", hint=f"use one of {compress.SUFFIXES}", code=Exit.USAGE)
    if resume and kind != (compress.JSONL, "") and path.exists():
        raise R1Error(
            f"`{out}` cannot be continued: only a plain .jsonl file can", hint="--force to start anew, or another --out", code=Exit.USAGE
        )
    if path.exists() and not force and not resume:
        raise R1Error(f"`{out}` exists", hint=ways_out or "--force to replace it, or another --out", code=Exit.USAGE)
    return kind


class _StdoutSink:
    """Lines on the stdout that `claim_stdout` keeps."""

    def __init__(self) -> None:
        self._stream = claim_stdout()
        if self._stream is None:
            raise R1Error("stdout is closed", hint="name a file with --out", code=Exit.USAGE)
        watch_reader()

    def write(self, row: dict[str, Any]) -> None:
        self._stream.write(dump(row) + "\n")

    def write_lines(self, lines: list[bytes]) -> None:
        self._stream.write(b"\n".join([*lines, b""]).decode("utf-8"))

    def close(self) -> None:
        self._stream.flush()

    discard = close


class _BytesSink:
    """Lines in a file, compressed or not; unbuffered files hold every row as soon as it is written."""

    def __init__(self, raw: IO[bytes], compression: str) -> None:
        self._raw = raw
        self._stream = compress.writer(raw, compression) if compression else raw

    def write(self, row: dict[str, Any]) -> None:
        self._write(dump(row).encode("utf-8") + b"\n")

    def write_lines(self, lines: list[bytes]) -> None:
        self._write(b"\n".join([*lines, b""]))

    def _write(self, data: bytes) -> None:
        written = self._stream.write(data)
        while written is not None and written < len(data) and self._stream is self._raw:  # an unbuffered write may be short
            data = data[written:]
            written = self._stream.write(data)

    def close(self) -> None:
        if self._stream is not self._raw:
            self._stream.close()
        self._raw.close()

    def discard(self) -> None:
        self._raw.close()


def _cannot_write(out: str, error: OSError) -> R1Error:
    where = "stdout" if out == "-" else f"`{out}`"
    reason = (error.strerror or str(error)).rpartition("] ")[2]  # pyarrow: "Error writing bytes to file. Detail: [errno 28] No space ..."
    return R1Error(f"cannot write {where}: {reason}", hint=of_disk(error, ", or name another place with --out"))
