"""The rows that `r1 distill` reads: prompts for the teacher, or traces that exist."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from r1cli.commands.artefacts import Artefacts, hashes
from r1cli.commands.distill_preflight import check_prompts, no_rows
from r1cli.guard import Context
from r1cli.io.stream import RowReader, read_rows
from r1cli.row import Row
from r1cli.settings import DistillSettings


def reader_of(settings: DistillSettings, context: Context) -> RowReader:
    source = [settings.traces] if settings.traces else settings.inputs
    return read_rows(source, field_map=settings.map, limit=settings.limit, skip_bad=settings.skip_bad, say=context.console.info)


def asked_for(settings: DistillSettings) -> dict[str, object]:
    """What decides which prompts are read."""
    return {"inputs": hashes(settings.inputs or ["-"]), "map": settings.map, "limit": settings.limit}


def prompts_there(settings: DistillSettings, made: Artefacts) -> Path | None:
    """The prompts of an earlier attempt; a pipe that was read whole then need not be there again."""
    if settings.resume and not settings.force and made.changes("prompts.jsonl", asked_for(settings)) == []:
        return made.path / "prompts.jsonl"
    return None


def asked_rows(settings: DistillSettings, context: Context, prompts: Path | None, reader: RowReader | None) -> list[Row]:
    """The prompts, looked at before the teacher draws; [] where traces are given: they are scored as they are read.

    prompts: the file of an earlier attempt, None where the input is still to be read. Raises `R1Error` (exit 2) where there are none, of
    traces too where they can be read twice.
    """
    if settings.traces:
        again = reader_of(settings, context)
        if all(source.files for source in again.sources) and next(iter(again), None) is None:
            raise no_rows()
        return []
    rows = list(read_rows([str(prompts)]) if reader is None else usable(reader, context))
    check_prompts(settings, context, rows, drawn=reader is None)
    return rows


def listed(rows: Iterable[Row]) -> tuple[int, list[Row]]:
    found = list(rows)
    return len(found), found


def usable(reader: RowReader, context: Context) -> Iterator[Row]:
    yield from reader.having("prompt", str, list)
    if reader.bad:
        context.console.warn(f"{reader.bad} bad rows left out, the first: {reader.first_bad}")


def traced(reader: RowReader) -> tuple[int, list[Row]]:
    """(traces that can be scored, the rows that they are of, one for each id and gold), without their text: there may be many."""
    count, prompts = 0, dict[tuple[str, str], Row]()
    for row in reader.having("completion", str):
        count += 1
        rest = Row({name: value for name, value in row.items() if name != "completion"}, where=row.where)
        prompts.setdefault((str(row.get("id")), str(row.get("answer"))), rest)
    return count, list(prompts.values())
