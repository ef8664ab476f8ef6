"""`r1 mix`: row files with weights or exact counts -> one shuffled, deduplicated, decontaminated data set.

Rows are filtered first and counted after, so that `FILE:100` gives 100 rows. `steps.mix` decides how many, which and in which order;
without a shuffle, weights and counts there is nothing to decide, and rows stream through.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict

from r1cli.commands import finish
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.stream import RowWriter, read_rows
from r1cli.report.console import Progress
from r1cli.row import Row
from r1cli.settings import MixSettings
from r1cli.steps.decontaminate import Benchmark, decontaminate_rows
from r1cli.steps.dedupe import dedupe_rows
from r1cli.steps.keep import Dropped
from r1cli.steps.mix import Mixture, Part, allot, check_parts, part_of

_OVERLAPS_KEPT = 1000  # in the manifest
_SUSPICIOUS_SHARE = 0.5  # one phrase that makes up so many of the overlaps is a template rather than a leak


def run(settings: MixSettings, context: Context) -> None:
    """Run the command. Raises `R1Error` for wrong settings before any row is read."""
    started = time.time()
    console = context.console
    parts = [part_of(text) for text in settings.inputs or ["-"]]
    check_parts(parts, settings.total)
    if sum(part.name == "-" for part in parts) > 1:
        raise R1Error("stdin (`-`) is named twice", hint="name it once", code=Exit.USAGE)
    readers = [read_rows([part.name], field_map=settings.map, skip_bad=settings.skip_bad, say=console.info) for part in parts]
    benchmark = _benchmark(settings)
    dropped = Dropped()
    with ExitStack() as stack:
        writer = stack.enter_context(RowWriter(settings.out, force=settings.force))
        progress = stack.enter_context(console.progress(None, "rows", "mix"))
        seen: set[bytes] = set()
        sources = [_counted(reader, progress) for reader in readers]
        if settings.dedupe == "exact":
            sources = [dedupe_rows(rows, seen, dropped) for rows in sources]
        if benchmark is not None:
            sources = [decontaminate_rows(rows, benchmark, dropped) for rows in sources]
        counts, not_drawn = _write(writer, sources, parts, settings, stack)
    inputs = [source for reader in readers for source in reader.sources]
    figures = {
        "in": sum(source.rows for source in inputs),
        "out": writer.count,
        "dropped": dict(dropped.reasons),
        "not_drawn": not_drawn,
        "of_each": [{"name": part.name, "rows": count} for part, count in zip(parts, counts, strict=True)],
    }
    overlaps = [] if benchmark is None else [asdict(overlap) for overlap in benchmark.overlaps[:_OVERLAPS_KEPT]]
    finish.write_manifest(settings.out, "mix", settings, inputs, [settings.out], figures, started, overlaps=overlaps)
    _warn_of_templates(benchmark, context)
    console.summary(
        [
            f"mix: {figures['in']} rows in, {writer.count} out, {dropped.total()} dropped, {not_drawn} not drawn",
            "of each: " + ", ".join(f"{part.name} {count}" for part, count in zip(parts, counts, strict=True)),
            *finish.dropped_lines(dropped.reasons),
            *finish.bad_lines(*readers),
            *finish.output_lines(settings.out),
        ]
    )


def _write(
    writer: RowWriter, sources: list[Iterator[Row]], parts: list[Part], settings: MixSettings, stack: ExitStack
) -> tuple[list[int], int]:
    """Write the mixture; the rows each part gave, and how many could have been drawn but were not."""
    if not settings.shuffle and all(part.count is None and part.weight is None for part in parts):
        counts = []
        for rows in sources:
            before = writer.count
            writer.write_all(rows)
            counts.append(writer.count - before)
        return counts, 0
    mixture = stack.enter_context(Mixture(len(parts), settings.seed))
    for index, rows in enumerate(sources):
        mixture.add(index, rows)
    counts = allot(parts, mixture.available, settings.total)
    writer.write_all(mixture.rows(counts, settings.shuffle))
    return counts, sum(mixture.available) - sum(counts)


def _counted(rows: Iterable[Row], progress: Progress) -> Iterator[Row]:
    for row in rows:
        progress.advance()
        yield row


def _benchmark(settings: MixSettings) -> Benchmark | None:
    """The n-grams of --decontaminate, read before any row is: a benchmark without prompts must not pass for a clean one."""
    if not settings.decontaminate:
        return None

    def prompts() -> Iterator[Row]:
        for row in read_rows(settings.decontaminate):
            if "prompt" not in row and "messages" not in row:
                raise R1Error(
                    f"{row.where}: a row of --decontaminate has no `prompt`; it has {', '.join(row)}",
                    hint="rename its column first: jq -c '.prompt = .question' IN > OUT.jsonl",
                    code=Exit.USAGE,
                )
            yield row

    return Benchmark(prompts(), settings.ngram)


def _warn_of_templates(benchmark: Benchmark | None, context: Context) -> None:
    if benchmark is None or not benchmark.overlaps:
        return
    for overlap in benchmark.overlaps[:_OVERLAPS_KEPT]:
        context.console.detail(f"{overlap.row}: row `{overlap.row_id}` shares with {overlap.benchmark}: {overlap.words}")
    words, count = benchmark.common.most_common(1)[0]
    if count > 1 and count >= _SUSPICIOUS_SHARE * len(benchmark.overlaps):
        context.console.warn(f"{count} of {len(benchmark.overlaps)} overlaps are the same words, perhaps a prompt template: {words}")
