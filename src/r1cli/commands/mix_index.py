"""What worker processes do for `r1 mix`: read a piece of a file of lines and say of each row what deciding about it needs.

A row of 5 kB becomes an entry of about 80 bytes (and 192 more with `--dedupe minhash`); the rows themselves are read again when they are
written. `Workers` runs pieces in processes, or in this one when there is little to do; results come in the order of the pieces.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.io.arrow import Columns
from r1cli.io.fields import FieldMap
from r1cli.io.jsonl import parse_line
from r1cli.io.lines import LineReader, Lines, read_piece
from r1cli.io.stream import settled
from r1cli.row import Row, dump
from r1cli.steps import near
from r1cli.steps.decontaminate import Suspects, prompt_text, texts_of
from r1cli.steps.dedupe import canonical, content_of, digest
from r1cli.steps.grams import RowWords
from r1cli.steps.keep import Judge
from r1cli.steps.limits import limits_of

ENTRY = [
    ("offset", "u8"),
    ("length", "u4"),
    ("line", "u4"),
    ("file", "u4"),
    ("part", "u4"),
    ("digest", "u8", 2),
    ("content", "u8", 2),
    ("prompt", "u8"),
    ("stratum", "u8"),
    ("rewritten", "?"),
    ("wordless", "?"),
]  # line: its number, 1 for the first. rewritten: the row is not its line as it stands (its fields were renamed, or an id was added)
_BATCH_BYTES = 100_000  # rows whose words are hashed together
_SMALL = 32 << 20  # bytes of input for which processes do not pay


@dataclass(frozen=True)
class Job:
    """What is asked about every row; the same for all pieces."""

    field_map: list[str]
    chars: str | None = None
    languages: list[str] = field(default_factory=list)
    contents: bool = False
    sketches: bool = False
    prompts: bool = False
    stratify: str | None = None
    floats: bool = False
    suspects: Suspects | None = None


@dataclass
class Piece:
    """What one piece of a file held. Positions are those in `entries`."""

    lines: int
    entries: Any  # (rows,) of ENTRY
    bad: list[tuple[int, int, int]]  # (offset, length, line) of lines that are no rows
    dropped: list[tuple[int, str]]  # (position, reason)
    suspects: list[int]
    sketches: Any = None  # (rows, near.SLOTS) uint8
    bands: Any = None  # (rows, near.BANDS) uint32
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class Index:
    """Everything known of the rows, in the order of parts (by name), files and lines. arrays: see ENTRY."""

    files: list[Lines] = field(default_factory=list)
    entries: Any = None
    sketches: Any = None
    bands: Any = None
    reasons: dict[int, str] = field(default_factory=dict)  # of rows beyond the limits, by position
    suspects: list[int] = field(default_factory=list)

    def join(self, pieces: list[Piece]) -> None:
        """Take over the arrays of all pieces; the pieces let go of theirs."""
        import numpy as np

        sketches, bands = np.zeros((0, near.SLOTS), np.uint8), np.zeros((0, near.BANDS), np.uint32)
        kinds = {"entries": np.zeros(0, ENTRY), "sketches": sketches, "bands": bands}
        for name, none in kinds.items():
            setattr(self, name, np.concatenate([none, *(part for piece in pieces if (part := getattr(piece, name)) is not None)]))
            for piece in pieces:
                setattr(piece, name, None)

    @property
    def paths(self) -> list[str]:
        return [lines.path for lines in self.files]

    def where(self, position: int) -> str:
        """`file:line` of a row."""
        entry = self.entries[position]
        return f"{self.files[entry['file']].name}:{entry['line']}"

    def lines(self, reader: LineReader, positions: Any) -> Iterator[list[bytes]]:
        """The lines of rows as they stand in their files, a block at a time."""
        some = self.entries[positions]
        return reader.read(some["file"], some["offset"], some["length"])


class Examiner:
    """A job with what it needs at hand."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.fields = FieldMap(job.field_map)
        self._judges: list[Judge] = limits_of(job.chars, job.languages)

    def row_of(self, line: bytes, where: str, first: bool = False) -> Row | None:
        """The row of a line; None for a blank one. A bad one is its `R1Error`. first: as in `parse_line`."""
        item = parse_line(line + b"\n", where, first=first)
        return None if item is None else settled(item, self.fields)

    def good_row(self, line: bytes, where: str = "") -> Row:
        """The row of a line that is known to hold one; a byte order mark may stand in front."""
        row = self.row_of(line, where, first=True)
        assert row is not None
        return row

    def line_of(self, line: bytes) -> bytes:
        """A line of an input as the line of an output."""
        return dump(self.good_row(line)).encode("utf-8")

    def examine(self, path: str, start: int, end: int, *_: int) -> Piece:
        """The lines that begin in bytes start to end of a file."""
        import numpy as np

        began = time.perf_counter()
        piece = Piece(0, None, [], [], [])
        entries: list[tuple] = []
        batch: list[Row] = []
        size = 0
        parts: list[tuple[Any, Any, Any]] = []
        spent = {"decontaminate": 0.0, "sketch": 0.0}
        for offset, line in read_piece(path, start, end):
            piece.lines += 1
            try:
                row = self.row_of(line, "", first=not start and not entries and not piece.bad)
            except R1Error:
                piece.bad.append((offset, len(line), piece.lines))
                continue
            if row is None:
                continue
            entries.append(self._entry(row, line, offset, piece, len(entries)))
            if self._job.suspects is not None or self._job.sketches:
                batch.append(row)
                size += len(line)
                if size > _BATCH_BYTES:
                    self._words(batch, len(entries) - len(batch), piece, parts, spent)
                    batch, size = [], 0
        if batch:
            self._words(batch, len(entries) - len(batch), piece, parts, spent)
        piece.entries = np.array(entries, ENTRY)
        if parts:
            piece.sketches, piece.bands = (np.concatenate([part[column] for part in parts]) for column in (0, 1))
            piece.entries["wordless"] = np.concatenate([part[2] for part in parts])
        elif self._job.sketches:
            piece.sketches, piece.bands = np.zeros((0, near.SLOTS), np.uint8), np.zeros((0, near.BANDS), np.uint32)
        piece.seconds = {"read": time.perf_counter() - began - sum(spent.values()), **spent}
        return piece

    def _entry(self, row: Row, line: bytes, offset: int, piece: Piece, position: int) -> tuple:
        job = self._job
        reason = next(filter(None, (judge(row) for judge in self._judges)), None)
        if reason is not None:
            piece.dropped.append((position, reason))
        text = dump(row).encode("utf-8")
        line = line.removesuffix(b"\r")
        prompt = stratum = 0
        if job.prompts:
            asked = " ".join(prompt_text(row).lower().split())  # the same question in other spaces and cases is the same
            prompt = _number(digest(asked.encode("utf-8", "surrogatepass")) if asked else content_of(row))
        if job.stratify is not None:
            stratum = _number(digest(canonical(row.get(job.stratify))))
        content = _pair(content_of(row)) if job.contents else (0, 0)
        return (offset, len(line), piece.lines, 0, 0, _pair(digest(text)), content, prompt, stratum, text != line, False)

    def _words(self, rows: list[Row], first: int, piece: Piece, parts: list[tuple[Any, Any, Any]], spent: dict[str, float]) -> None:
        began = time.perf_counter()
        words = RowWords([list(texts_of(row)) for row in rows])
        if self._job.suspects is not None:
            piece.suspects += [first + position for position in self._job.suspects.among(rows, words)]
            spent["decontaminate"] += time.perf_counter() - began
            began = time.perf_counter()
        if self._job.sketches:
            parts.append(near.sketch(words))
            spent["sketch"] += time.perf_counter() - began

    def columns(self, paths: list[str], files: Any, offsets: Any, lengths: Any) -> Columns:
        """What these rows need as Parquet columns."""
        columns = Columns(floats=self._job.floats)
        with LineReader(paths) as reader:
            for lines in reader.read(files, offsets, lengths):
                for line in lines:
                    columns.add(self.good_row(line))
        return columns


def _pair(data: bytes) -> tuple[int, int]:
    return int.from_bytes(data[:8], "little"), int.from_bytes(data[8:16], "little")


def _number(data: bytes) -> int:
    return int.from_bytes(data[:8], "little")


class Workers:
    """Runs methods of an `Examiner` in processes. A context manager. processes: 0 is one a core; size: bytes of input, None if unknown."""

    def __init__(self, job: Job, processes: int, size: int | None) -> None:
        self._stack = ExitStack()
        self.examiner = Examiner(job)
        self.count = processes or (1 if size is not None and size < _SMALL else _cores())
        self._pool: ProcessPoolExecutor | None = None
        if self.count > 1:
            how = multiprocessing.get_context("forkserver")
            how.set_forkserver_preload([__name__])
            self._pool = ProcessPoolExecutor(self.count, mp_context=how, initializer=_start, initargs=(job,))

    def run(self, method: str, calls: Iterable[tuple]) -> Iterator[tuple[tuple, Any]]:
        """(arguments, result) of each call, in order; a few calls are under way at a time."""
        if self._pool is None:
            for call in calls:
                yield call, getattr(self.examiner, method)(*call)
            return
        waiting: deque[tuple[tuple, Future]] = deque()
        for call in calls:
            waiting.append((call, self._pool.submit(_work, method, call)))
            if len(waiting) > 2 * self.count:
                yield self._next(waiting)
        while waiting:
            yield self._next(waiting)

    @staticmethod
    def _next(waiting: deque[tuple[tuple, Future]]) -> tuple[tuple, Any]:
        call, future = waiting.popleft()
        try:
            return call, future.result()
        except BrokenProcessPool:
            raise R1Error(
                "a worker process was killed, perhaps for want of memory", hint="fewer of them: --num-processes 1", code=Exit.FAILED
            ) from None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_examiner: Examiner | None = None


def _start(job: Job) -> None:
    """In a worker: Ctrl-C is the parent's business, and a worker whose parent is gone ends."""
    global _examiner
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _examiner = Examiner(job)


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _work(method: str, call: tuple) -> Any:
    function: Callable[..., Any] = getattr(_examiner, method)
    return function(*call)
