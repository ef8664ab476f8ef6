"""Where rows come from and where they go: the one door every command uses.

    for row in read_rows(["a.jsonl", "b.parquet", "hf:org/name@revision:split", "-"], field_map=["answer=solution"], limit=100): ...
    with RowWriter("kept.jsonl") as writer: ...

Inputs are checked when `read_rows` is called, before anything heavy is loaded; rows come out one at a time, row 1 before row 2 is read.
"""

import difflib
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from r1cli.errors import Exit, R1Error
from r1cli.io import compress, jsonl
from r1cli.io.fields import FieldMap
from r1cli.io.jsonl import Item
from r1cli.io.pipes import copy_of
from r1cli.io.stdout import STDOUT, claim_stdout
from r1cli.io.writer import RowWriter, check_output
from r1cli.row import Row, require, with_id

__all__ = ["STDOUT", "RowReader", "RowWriter", "Source", "check_output", "claim_stdout", "read_rows"]


@dataclass
class Source:
    """One input: its name as given, how to open it, and what came out of it so far."""

    name: str
    open: Callable[[], Iterator[Item]]
    files: list[Path] = field(default_factory=list)  # what a manifest can hash; empty for stdin and data sets
    rows: int = 0
    bad: int = 0
    stream: Callable[[], IO[bytes]] | None = None  # the bytes of a pipe or a device


class RowReader:
    """An iterable of rows, each with an `id`.

    bad:       bad lines left out (with `skip_bad`; without it the first one is raised). Commands may add rows they could not use.
    first_bad: what was wrong with the first of them, "" if none
    where:     `file:line` of the latest row
    sources:   the inputs, with the rows each of them gave
    """

    def __init__(self, sources: list[Source], fields: FieldMap, limit: int | None, skip_bad: bool) -> None:
        self.sources = sources
        self.skip_bad = skip_bad
        self.bad = 0
        self.first_bad = ""
        self.where = ""
        self._fields = fields
        self._limit = limit

    def __iter__(self) -> Iterator[Row]:
        left = -1 if self._limit is None else self._limit
        for source in self.sources:
            if left == 0:
                return
            for item in source.open():
                row = self._accept(item, source)
                if row is None:
                    continue
                yield row
                left -= 1
                if left == 0:  # before the next row is waited for
                    return

    def having(self, field: str, *kinds: type) -> Iterator[Row]:
        """The rows that have a field of one of these kinds; others are an `R1Error` (exit 2), or left out and counted with `skip_bad`."""
        for row in self:
            try:
                require(row, field, *kinds)
            except R1Error as error:
                self.leave_out(error)
                continue
            yield row

    def _accept(self, item: Item, source: Source) -> Row | None:
        try:
            row = settled(item, self._fields)
        except R1Error as error:
            if not self.skip_bad:
                raise
            source.bad += 1
            self.leave_out(error)
            return None
        source.rows += 1
        self.where = row.where
        return row

    def leave_out(self, error: R1Error) -> None:
        """Count one more bad row; raises the error itself unless bad rows are to be skipped."""
        if not self.skip_bad:
            raise error
        self.bad += 1
        self.first_bad = self.first_bad or error.message


def settled(item: Item, fields: FieldMap) -> Row:
    """The row as commands see it: its fields renamed, with an id. A bad line is raised as the `R1Error` it is."""
    if isinstance(item, R1Error):
        raise item
    return with_id(fields.apply(item))


def read_rows(
    inputs: Sequence[str],
    *,
    field_map: Sequence[str] = (),
    limit: int | None = None,
    skip_bad: bool = False,
    say: Callable[[str], None] | None = None,
) -> RowReader:
    """The rows of these inputs, in their order.

    inputs:    files, folders, `hf:org/name@revision:split`, or `-` for stdin (also when there is none)
    field_map: `field=column` pairs; `field=outer.inner` reaches into objects
    limit:     stop after this many rows (None: all)
    skip_bad:  count bad lines in `.bad` instead of raising their `R1Error` (exit 2)
    say:       told what is fetched before it is
    """
    names = list(inputs) or ["-"]
    if names.count("-") > 1:
        raise R1Error("stdin (`-`) is named twice", hint="name it once", code=Exit.USAGE)
    return RowReader([source_of(name, say) for name in names], FieldMap(field_map), limit, skip_bad)


def source_of(name: str, say: Callable[[str], None] | None = None) -> Source:
    """One input by its name. Raises `R1Error` (exit 2) when there is nothing that could be read."""
    if name == "-":
        return _stdin()
    if name.startswith("hf:"):
        from r1cli.io import dataset

        return Source(name, dataset.opener(name, say))
    path = copy_of(name) or Path(name).expanduser()
    if not path.exists():
        raise missing(name, path)
    if path.is_dir():
        return _folder(name, path)
    if not path.is_file() or copy_of(name):  # /dev/stdin, /dev/fd/63 of <(...), a named pipe
        return Source(name, lambda: _read_device(path, name), stream=lambda: path.open("rb"))
    if path.name.startswith("data-") and path.suffix == ".arrow":
        raise R1Error(f"`{name}` is a part of a saved data set", hint=f"name its folder: {path.parent}", code=Exit.USAGE)
    return Source(name, _file(path), [path])


def _stdin() -> Source:
    if sys.stdin is None or sys.stdin.closed:
        raise R1Error("no input: stdin is closed", hint="name a file of rows", code=Exit.USAGE)
    if sys.stdin.isatty():
        raise R1Error("no input: stdin is a terminal", hint="name a file of rows, or pipe rows in; --help shows examples", code=Exit.USAGE)
    return Source("stdin", lambda: jsonl.read_pipe(_open_stdin(), "stdin"), stream=_open_stdin)


def _open_stdin() -> IO[bytes]:
    """The bytes of stdin. The buffer is our own: a reader thread that still waits in Python's at exit would abort the process."""
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except (OSError, ValueError):  # a test's stdin has none
        return sys.stdin.buffer


def _read_device(path: Path, name: str) -> Iterator[Item]:
    with path.open("rb") as raw:
        yield from jsonl.read_pipe(raw, name)


def _file(path: Path) -> Callable[[], Iterator[Item]]:
    kind = compress.kind_of(path.name)
    if kind is None:
        raise _unknown_kind(path)
    if kind[0] == compress.PARQUET:
        from r1cli.io import parquet

        return lambda: parquet.read_file(path)
    return lambda: jsonl.read_file(path, kind[1])


def _unknown_kind(path: Path) -> R1Error:
    """The error for a file whose suffix is none of ours. The hint is what makes rows of it, as far as the suffix tells what it is."""
    name = shlex.quote(str(path))
    hint = f"rename it to one of {compress.SUFFIXES}, or pipe JSON lines in: < {name}"
    what = "the suffix does not say what is in it"
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        what, sep = f"{suffix} cannot be read", ', sep="\\t"' if suffix == ".tsv" else ""
        old, new = (json.dumps(text, ensure_ascii=False) for text in (str(path), path.with_suffix(".jsonl").name))  # Python reads them, too
        made = f"from datasets import Dataset; Dataset.from_csv({old}{sep}).to_json({new})"
        hint = f"turn it into JSON lines: python -c {shlex.quote(made)}"
    elif suffix in (".gz", ".zst"):
        what = f"{suffix} alone does not say what is in it"
        other = shlex.quote(f"{path.with_suffix('')}.jsonl{suffix}")
        hint = f"JSON lines are named .jsonl{suffix}: mv {name} {other}, or pipe them in: < {name}"
    return R1Error(f"`{path}`: {what}", hint=hint, code=Exit.USAGE)


def _folder(name: str, path: Path) -> Source:
    """A folder that `datasets.save_to_disk` wrote, or one of row files, read in the order of their names."""
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        from r1cli.io import dataset

        return Source(name, dataset.opener(f"hf:{path.resolve()}", None))
    files = sorted(file for file in path.iterdir() if file.is_file() and compress.kind_of(file.name) and not file.name.startswith("."))
    files = [file for file in files if not file.name.endswith(".manifest.json") and file.name != "dataset_info.json"]
    splits = {split for file in files for split in ("train", "test", "validation", "valid", "dev") if file.name.startswith(split)}
    if len(splits) > 1:
        raise R1Error(
            f"`{name}` holds several splits: {', '.join(sorted(splits))}",
            hint=f"name one: {shlex.quote(f'hf:{path.resolve()}:{min(splits)}')}",
            code=Exit.USAGE,
        )
    if not files:
        raise R1Error(
            f"`{name}` is a folder without rows (looked for {compress.SUFFIXES})",
            hint="name a folder of row files, or a data set folder as hf:FOLDER:SPLIT",
            code=Exit.USAGE,
        )
    openers = [_file(file) for file in files]
    return Source(name, lambda: (item for opener in openers for item in opener()), files)


def missing(name: str, path: Path) -> R1Error:
    """The error for a path that is not there; the hint names the nearest file beside it, or where the path ends."""
    folder = path.parent
    while not folder.is_dir():
        folder = folder.parent
    look = f"look with: ls {shlex.quote(str(folder))}"
    if folder != path.parent:
        return R1Error(f"no such file: `{name}`", hint=f"there is no folder `{path.parent}`; {look}", code=Exit.USAGE)
    names = sorted(entry.name for entry in folder.iterdir())
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.65)
    if close:
        return R1Error(f"no such file: `{name}`", hint=f"did you mean `{path.with_name(close[0])}`?", code=Exit.USAGE)
    return R1Error(f"no such file: `{name}`", hint=look, code=Exit.USAGE)
