"""`r1 mix` where something has to be decided about all rows together: an index of them, which rows are taken, and the rows themselves.

    index    worker processes read the inputs once and return an entry a row (`mix_index`)
    drop     limits, benchmark overlaps, duplicates, near-duplicates
    draw     counts, validation rows, order (`steps.draw`)
    write    the chosen rows are read again where they lie

Sources are worked through in the order of their names, so that the order in which they were given decides nothing.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from r1cli.commands.mix_index import Index, Job, Piece, Workers
from r1cli.errors import R1Error
from r1cli.io.arrow import Columns
from r1cli.io.compress import PARQUET, kind_of
from r1cli.io.jsonl import parse_line
from r1cli.io.lines import LineReader, Spool, plain_lines
from r1cli.io.stream import RowReader, RowWriter, settled
from r1cli.report.console import Console
from r1cli.settings import MixSettings
from r1cli.steps import dedupe, draw, near
from r1cli.steps.decontaminate import Benchmark
from r1cli.steps.keep import Dropped
from r1cli.steps.mix import Part, allot

_COLUMN_ROWS = 20_000  # rows a process looks through at a time


@dataclass
class Result:
    """What was written: rows of each part (in the order given), rows for validation, rows that could have been drawn; seconds a stage."""

    counts: list[int]
    validation: int
    not_drawn: int
    seconds: dict[str, float]


class Mixing:
    """One run. `parts` and `readers` belong together; `dropped` counts, and passes on, what is left out."""

    def __init__(
        self,
        settings: MixSettings,
        console: Console,
        parts: list[Part],
        readers: list[RowReader],
        benchmark: Benchmark | None,
        dropped: Dropped,
    ) -> None:
        self._settings, self._console, self._benchmark, self._dropped = settings, console, benchmark, dropped
        self._by_name = sorted(range(len(parts)), key=lambda number: str(parts[number]))
        self._parts = [parts[number] for number in self._by_name]
        self._readers = [readers[number] for number in self._by_name]
        self.seconds: dict[str, float] = {}
        self._index = Index()

    def run(self, writer: RowWriter, validation: RowWriter | None, held: int | float | None) -> Result:
        """Do it all. held: rows (int) or a share of the rows (float) for `validation`. Outputs are opened when their first row is there."""
        settings = self._settings
        job = Job(
            settings.map,
            settings.chars,
            settings.language,
            settings.dedupe != "none",
            settings.dedupe == "minhash",
            held is not None,
            settings.stratify,
            settings.unify_numbers,
            None if self._benchmark is None else self._benchmark.suspects(),
        )
        sizes = [file.stat().st_size for reader in self._readers for source in reader.sources for file in source.files]
        known = all(source.files for reader in self._readers for source in reader.sources)
        with ExitStack() as stack:
            workers = stack.enter_context(Workers(job, settings.num_processes, sum(sizes) if known else None))
            self._workers, self._examiner = workers, workers.examiner
            self._read(workers, stack.enter_context(Spool(settings.out)))
            self._lines = stack.enter_context(LineReader(self._index.paths))
            alive = self._drop()
            times, kept_back = self._draw(alive, held)
            return self._write(writer, validation, alive, times, kept_back)

    def _read(self, workers: Workers, spool: Spool) -> None:
        began = time.perf_counter()
        pieces: list[Piece] = []
        rows, line, last = 0, 0, -1
        with self._console.progress(None, "rows", "mix: read") as progress:
            for (_, _, _, number, file), piece in workers.run("examine", self._pieces(spool)):
                line, last = (line, last) if file == last else (0, file)
                self._accept(piece, number, file, line, rows)
                line += piece.lines
                rows += len(piece.entries)
                progress.advance(len(piece.entries))
                pieces.append(piece)
        self._index.join(pieces)
        for name in ("read", "decontaminate", "sketch"):
            spent = sum(piece.seconds[name] for piece in pieces)
            if spent:
                self.seconds[f"{name} (all processes)"] = spent
        self.seconds["index"] = time.perf_counter() - began

    def _pieces(self, spool: Spool) -> Iterator[tuple]:
        """(path, start, end, part, file) of everything there is to read."""
        for number, reader in enumerate(self._readers):
            for source in reader.sources:

                def on_bad(error: R1Error, reader: RowReader = reader, source: Any = source) -> None:
                    reader.leave_out(error)
                    source.bad += 1

                for lines in plain_lines(source, spool, on_bad):
                    self._index.files.append(lines)
                    for start, end in lines.pieces():
                        yield lines.path, start, end, number, len(self._index.files) - 1

    def _accept(self, piece: Piece, number: int, file: int, line: int, rows: int) -> None:
        """Give a piece its place among the others; a bad line of it stops the command, or is counted."""
        index, reader = self._index, self._readers[number]
        first = None if line else min([*piece.entries["offset"][:1].tolist(), *(offset for offset, *_ in piece.bad[:1])], default=None)
        for offset, length, relative in piece.bad:
            with open(index.files[file].path, "rb") as raw:  # noqa: PTH123
                raw.seek(offset)
                text = raw.read(length + 1)
            item = parse_line(text, f"{index.files[file].name}:{line + relative}", first=offset == first)
            try:
                assert item is not None
                settled(item, self._examiner.fields)
            except R1Error as error:
                reader.leave_out(error)
                reader.sources[0].bad += 1
        piece.entries["file"], piece.entries["part"] = file, number
        piece.entries["line"] += line
        reader.sources[0].rows += len(piece.entries)
        index.reasons.update((rows + position, reason) for position, reason in piece.dropped)
        index.suspects += [rows + position for position in piece.suspects]

    def _drop(self) -> Any:
        """Which rows may be drawn: (rows,) bool."""
        import numpy as np

        began = time.perf_counter()
        index = self._index
        alive = np.ones(len(index.entries), bool)
        alive[list(index.reasons)] = False
        reasons: dict[int, tuple[str, dict[str, Any]]] = {position: (reason, {}) for position, reason in index.reasons.items()}
        if self._benchmark is not None:
            suspects = [position for position in index.suspects if alive[position]]
            lines = (line for block in index.lines(self._lines, suspects) for line in block)
            for position, line in zip(suspects, lines, strict=True):
                overlap = self._benchmark.find(self._examiner.good_row(line, index.where(position)))
                if overlap is not None:
                    alive[position] = False
                    self._benchmark.keep(overlap)
                    reasons[position] = self._benchmark.reason, {"overlap": {"benchmark": overlap.benchmark, "words": overlap.words}}
        self.seconds["overlaps"] = time.perf_counter() - began
        for name, find in (("exact", self._equal), ("minhash", self._alike)):
            if self._settings.dedupe in (name, "minhash"):
                began = time.perf_counter()
                able = np.flatnonzero(alive)
                leaders = able[find(able)]
                gone = able[leaders != able]
                reason = dedupe.REASON if name == "exact" else near.REASON
                reasons |= {
                    row: (reason, {"repeats": leader}) for row, leader in zip(gone.tolist(), leaders[leaders != able].tolist(), strict=True)
                }
                alive[gone] = False
                self.seconds["duplicates" if name == "exact" else "near-duplicates"] = time.perf_counter() - began
        self._pass_on(reasons)
        return alive

    def _keys(self, able: Any) -> Any:
        return draw.ranks(draw.keys(self._index.entries["digest"][able], self._settings.seed, draw.LEADER))

    def _equal(self, able: Any) -> Any:
        return dedupe.first_of_equal(self._index.entries["content"][able], self._keys(able))

    def _alike(self, able: Any) -> Any:
        index = self._index
        return near.first_of_alike(
            index.sketches[able], index.bands[able], self._keys(able), self._settings.similarity, index.entries["wordless"][able]
        )

    def _pass_on(self, reasons: dict[int, tuple[str, dict[str, Any]]]) -> None:
        """Count the dropped rows; with `--rejected` each is written with its reason."""
        if not self._settings.rejected:
            for reason, _ in reasons.values():
                self._dropped.count(reason)
            return
        positions = sorted(reasons)
        lines = (line for block in self._index.lines(self._lines, positions) for line in block)
        for position, line in zip(positions, lines, strict=True):
            reason, more = reasons[position]
            more = {name: self._index.where(value) if name == "repeats" else value for name, value in more.items()}
            self._dropped.add(self._examiner.good_row(line, self._index.where(position)), reason, **more)

    def _draw(self, alive: Any, held: int | float | None) -> tuple[Any, Any]:
        """How often each row is taken, and which rows are for validation: (rows,) int64 and bool."""
        import numpy as np

        settings, entries = self._settings, self._index.entries
        began = time.perf_counter()
        able = [np.flatnonzero(alive & (entries["part"] == number)) for number in range(len(self._parts))]
        self._available = [len(rows) for rows in able]
        counts = allot(self._parts, self._available, settings.total, settings.max_repeat)
        times = np.zeros(len(entries), np.int64)
        choices = draw.keys(entries["digest"], settings.seed, draw.CHOICE)
        for rows, count in zip(able, counts, strict=True):
            times[rows] = draw.take(choices[rows], count, entries["stratum"][rows] if settings.stratify else None)
        kept_back = np.zeros(len(entries), bool)
        if held is not None:
            taken = np.flatnonzero(times)
            wanted = held if isinstance(held, int) else int(held * len(taken) + 0.5)
            if wanted >= len(taken) > 0:
                raise R1Error(f"--validation would take {wanted} of {len(taken)} rows and leave nothing to train on", hint="ask for fewer")
            splits = draw.keys(entries["digest"][taken], settings.seed, draw.SPLIT)
            strata = entries["stratum"][taken] if settings.stratify else None
            kept_back[taken] = draw.validation_rows(entries["prompt"][taken], splits, wanted, strata)
            times[kept_back] = 1  # a repeated row measures nothing new
        self.seconds["draw"] = time.perf_counter() - began
        return times, kept_back

    def _write(self, writer: RowWriter, validation: RowWriter | None, alive: Any, times: Any, kept_back: Any) -> Result:
        import numpy as np

        began = time.perf_counter()
        entries = self._index.entries
        train, back = self._ordered(np.where(kept_back, 0, times)), self._ordered(kept_back.astype(np.int64))
        with ExitStack() as outputs:  # files get their names when all is read: one of them may be an input
            self._write_rows(writer, train, outputs)
            if validation is not None:
                self._write_rows(validation, back, outputs)
        self.seconds["write"] = time.perf_counter() - began
        of_part = np.bincount(entries["part"][train], minlength=len(self._parts)) + np.bincount(
            entries["part"][back], minlength=len(self._parts)
        )
        counts = [0] * len(self._parts)
        for place, number in enumerate(self._by_name):
            counts[number] = int(of_part[place])
        return Result(counts, len(back), int(alive.sum() - (times > 0).sum()), self.seconds)

    def _ordered(self, times: Any) -> Any:
        """Positions in the order in which their rows are written."""
        import numpy as np

        if self._settings.shuffle:
            return draw.repeated(times, draw.keys(self._index.entries["digest"], self._settings.seed, draw.ORDER))
        given = np.array(self._by_name)
        order = np.argsort(given[self._index.entries["part"]], kind="stable")
        return np.repeat(order, times[order])

    def _write_rows(self, writer: RowWriter, positions: Any, outputs: ExitStack) -> None:
        entries = self._index.entries
        kind = kind_of(writer.out) if writer.out != "-" else None
        if kind and kind[0] == PARQUET:
            writer.columns = self._columns(positions)
        outputs.enter_context(writer)
        with self._console.progress(len(positions), "rows", "mix: write") as progress:
            done = 0
            for lines in self._index.lines(self._lines, positions):
                rewritten = entries["rewritten"][positions[done : done + len(lines)]]
                for number in rewritten.nonzero()[0].tolist():
                    lines[number] = self._examiner.line_of(lines[number])
                writer.write_lines(lines)
                done += len(lines)
                progress.advance(len(lines))

    def _columns(self, positions: Any) -> Columns:
        """What the chosen rows need as Parquet columns; their order follows that of the rows."""
        columns = Columns(floats=self._settings.unify_numbers)
        some = (self._index.entries[positions[i : i + _COLUMN_ROWS]] for i in range(0, len(positions), _COLUMN_ROWS))
        calls = ((self._index.paths, rows["file"], rows["offset"], rows["length"]) for rows in some)
        for _, part in self._workers.run("columns", calls):
            columns.update(part)
        return columns
