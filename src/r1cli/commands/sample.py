"""`r1 sample`: prompt rows -> completion rows, each as soon as it ends.

r1 sample --model M -k 4 problems.jsonl | r1 reject --rewards accuracy,format > kept.jsonl
r1 sample --model M -k 16 problems.jsonl -o drawn.jsonl      # interrupted? the same line with --resume draws what is missing
"""

import time
from contextlib import ExitStack, closing
from pathlib import Path

from r1cli.commands import finish
from r1cli.commands.sampling import Pair, Totals, check_sampling, draw
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.hub import model_folder
from r1cli.io.jsonl import finished_pairs, read_file, repair_tail
from r1cli.io.stream import RowReader, RowWriter, read_rows
from r1cli.row import Row, seed_of
from r1cli.settings import SampleSettings

COUNTED_BYTES = 2**28  # inputs up to this size are read once more, to know how much there is to do


def run(settings: SampleSettings, context: Context) -> None:
    """Run the command. Settings, output and model folder are checked before any row is read."""
    started = time.time()
    check_sampling(settings, context.sources)
    model_folder(settings.model, settings.trust_remote_code, say=context.console.detail)
    output = RowWriter(settings.out, force=settings.force, append=True, resume=settings.resume)
    reader = _reader(settings, context)
    done = _already_there(settings)
    if settings.out.endswith(".jsonl"):
        context.on_interrupt()
    totals = Totals()
    on_bad = reader.leave_out if settings.skip_bad else None
    with ExitStack() as stack:
        writer = stack.enter_context(output)
        progress = stack.enter_context(context.console.progress(_to_do(settings, reader, done), "rows", "sample"))
        drawn = draw(reader, settings, context, skip=done, on_bad=on_bad, totals=totals, on_ready=progress.restart)
        for row in stack.enter_context(closing(drawn)):
            writer.write(row)
            progress.set(f"{totals.rate():,.0f} tok/s")
            progress.advance()
    finish.write_manifest(settings.out, "sample", settings, reader.sources, [settings.out], _counts(totals, done, reader), started)
    context.console.summary(_summary(settings, reader, totals, len(done)))


def _reader(settings: SampleSettings, context: Context) -> RowReader:
    reader = read_rows(settings.inputs, field_map=settings.map, limit=settings.limit, skip_bad=settings.skip_bad, say=context.console.info)
    if settings.out != "-" and any(file.resolve() == Path(settings.out).resolve() for source in reader.sources for file in source.files):
        raise R1Error(
            f"`{settings.out}` is input and output: rows are written as they come, over those not yet read",
            hint="give --out another name",
            code=Exit.USAGE,
        )
    return reader


def _already_there(settings: SampleSettings) -> frozenset[Pair]:
    """The pairs that `--resume` need not draw again. Refuses a file of another model or seed: the two would not be one sample."""
    if not settings.resume:
        return frozenset()
    if settings.force:
        raise R1Error("--resume keeps the output and --force replaces it", hint="leave one of them out", code=Exit.USAGE)
    if not settings.out.endswith(".jsonl"):
        raise R1Error(f"--resume needs a plain .jsonl file to continue, --out is `{settings.out}`", hint="-o FILE.jsonl", code=Exit.USAGE)
    if not Path(settings.out).exists():
        return frozenset()
    repair_tail(settings.out)
    first = next(read_file(Path(settings.out), ""), None)
    pairs = frozenset(finished_pairs(settings.out))
    if isinstance(first, Row):
        expected = {"model": settings.model, "seed": seed_of(settings.seed, first["id"], first["sample"])}
        for field, value in expected.items():
            if first.get(field) != value:
                raise R1Error(
                    f"`{settings.out}` was drawn with another --{field}",
                    code=Exit.USAGE,
                    hint=f"its first row has {field} {first.get(field)}; give --out another name, or start anew with --force",
                )
    return pairs


def _to_do(settings: SampleSettings, reader: RowReader, done: frozenset[Pair]) -> int | None:
    """Completions to draw; None when the input is a pipe, a data set or too big to be read twice."""
    files = [file for source in reader.sources for file in source.files]
    if not all(source.files for source in reader.sources) or sum(file.stat().st_size for file in files) > COUNTED_BYTES:
        return None
    again = read_rows(settings.inputs, field_map=settings.map, limit=settings.limit, skip_bad=True)
    return sum((row["id"], sample) not in done for row in again for sample in range(settings.samples))


def _counts(totals: Totals, done: frozenset[Pair], reader: RowReader) -> dict[str, int]:
    return {
        "in": sum(source.rows for source in reader.sources),
        "out": totals.rows,
        "before": len(done),
        "tokens": totals.tokens,
        "truncated": totals.cut,
        "too_long": totals.too_long,
        "bad": reader.bad,
    }


def _summary(settings: SampleSettings, reader: RowReader, totals: Totals, before: int) -> list[str]:
    prompts = sum(source.rows for source in reader.sources)
    line = f"sample: {prompts} prompts, {totals.rows} completions"
    if before:
        line += f" ({before} were there)"
    if totals.rows:
        line += f", {totals.tokens:,} tokens at {totals.rate():,.0f} tok/s ({totals.engine}), {totals.cut / totals.rows:.1%} truncated"
    lines = [line, *finish.bad_lines(reader), *finish.output_lines(settings.out)]
    if settings.out != "-" and totals.rows:
        lines.append(f"next: r1 reject {settings.out} -o kept.jsonl")
    return lines
