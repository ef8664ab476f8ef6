"""`r1 mix`: row files with weights or exact counts -> one shuffled, deduplicated, decontaminated data set.

Rows are filtered first and counted after, so that `FILE:100` gives 100 rows. Without a shuffle, counts and anything else that needs all
rows together, rows stream through (`_stream`); otherwise they are indexed and read again (`mix_whole`).
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from r1cli.commands import finish
from r1cli.commands.useless_flags import refuse_useless
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.stream import RowReader, RowWriter, check_output, read_rows
from r1cli.report.console import Progress
from r1cli.row import Row
from r1cli.settings import MixSettings
from r1cli.steps import near
from r1cli.steps.decontaminate import Benchmark, decontaminate_rows
from r1cli.steps.dedupe import dedupe_rows
from r1cli.steps.keep import Dropped, keep_rows
from r1cli.steps.limits import limits_of
from r1cli.steps.mix import Part, check_parts, part_of

_OVERLAPS_KEPT = 1000  # in the manifest
_TOLD_SECONDS = 10.0  # of a run that says where its time went
_SUSPICIOUS_SHARE = 0.5  # one phrase that makes up so many of the overlaps is a template rather than a leak


def run(settings: MixSettings, context: Context) -> None:
    """Run the command. Raises `R1Error` for wrong settings before any row is read."""
    started = time.time()
    console = context.console
    parts = [part_of(text) for text in settings.inputs or ["-"]]
    held = _check(settings, parts)
    refuse_useless(settings, context.sources)
    readers = [read_rows([part.name], field_map=settings.map, skip_bad=settings.skip_bad, say=console.info) for part in parts]
    against = read_rows(settings.decontaminate, say=console.info) if settings.decontaminate else None
    benchmark = None if against is None else _benchmark(against, settings.ngram)
    with ExitStack() as stack:
        others = None if settings.rejected is None else stack.enter_context(RowWriter(settings.rejected, force=settings.force))
        dropped = Dropped(None if others is None else others.write)
        writer = RowWriter(settings.out, force=settings.force)
        validation = None if settings.validation_out is None else RowWriter(settings.validation_out, force=settings.force)
        seconds: dict[str, float] = {}
        if _streams(settings, parts):
            counts, not_drawn, held_back = _stream(writer, readers, benchmark, dropped, settings, context), 0, 0
        else:
            from r1cli.commands.mix_whole import Mixing

            result = Mixing(settings, console, parts, readers, benchmark, dropped).run(writer, validation, held)
            counts, not_drawn, held_back, seconds = result.counts, result.not_drawn, result.validation, result.seconds
    inputs = [source for reader in readers for source in reader.sources]
    of_each = [{"name": part.name, "rows": count} for part, count in zip(parts, counts, strict=True)]
    figures = {
        "in": sum(source.rows for source in inputs),
        "out": writer.count,
        "validation": held_back,
        "dropped": dict(dropped.reasons),
        "not_drawn": not_drawn,
        "bad": sum(reader.bad for reader in readers),
        "of_each": of_each,
    }
    outputs = [out for out in (settings.out, settings.validation_out, settings.rejected) if out is not None]
    overlaps = [] if benchmark is None else [asdict(overlap) for overlap in benchmark.overlaps[:_OVERLAPS_KEPT]]
    finish.write_manifest(
        settings.out,
        "mix",
        settings,
        inputs,
        outputs,
        figures,
        started,
        overlaps=overlaps,
        roles={"decontaminate": against.sources if against is not None else ()},
        stages={name: round(spent, 3) for name, spent in seconds.items()},
    )
    _warn_of_templates(benchmark, context)
    console.summary(_summary(settings, figures, dropped, seconds, readers))


def _check(settings: MixSettings, parts: list[Part]) -> int | float | None:
    """Refuse what does not fit together; the rows to hold back, as a count (int) or a share (float)."""
    check_parts(parts, settings.total)
    if sum(part.name == "-" for part in parts) > 1:
        raise R1Error("stdin (`-`) is named twice", hint="name it once", code=Exit.USAGE)
    limits_of(settings.chars, settings.language)
    if settings.dedupe == "minhash":
        near.check_package()
    named = [out for out in (settings.out, settings.validation_out, settings.rejected) if out is not None]
    if len(set(named)) < len(named):
        raise R1Error("two outputs have the same name", hint="--out, --validation-out and --rejected are three files", code=Exit.USAGE)
    for out in named:
        check_output(out, force=settings.force)
    if (settings.validation is None) != (settings.validation_out is None):
        raise R1Error("--validation and --validation-out belong together", hint="--validation 2% --validation-out FILE", code=Exit.USAGE)
    if settings.validation is None:
        return None
    number = settings.validation.removesuffix("%")
    try:
        share = float(number) / 100 if settings.validation.endswith("%") else int(number)
    except ValueError:
        share = -1
    if share < 0 or (isinstance(share, float) and not share < 1):
        raise R1Error(
            f"`--validation {settings.validation}` is neither a number of rows nor a share", hint="write 1000 or 2%", code=Exit.USAGE
        )
    return share


def _streams(settings: MixSettings, parts: list[Part]) -> bool:
    """Whether a row can be written before the next one is read."""
    whole = settings.shuffle or settings.dedupe == "minhash" or settings.unify_numbers or settings.validation is not None
    return not whole and all(part.whole for part in parts)


def _stream(
    writer: RowWriter, readers: list[RowReader], benchmark: Benchmark | None, dropped: Dropped, settings: MixSettings, context: Context
) -> list[int]:
    """Write the rows as they come; how many there were of each reader."""
    counts: list[int] = []
    seen: set[bytes] = set()
    with writer, context.console.progress(None, "rows", "mix") as progress:
        for reader in readers:
            before = writer.count
            rows = _counted(reader, progress)
            for judge in limits_of(settings.chars, settings.language):
                rows = keep_rows(rows, judge, dropped)
            if benchmark is not None:
                rows = decontaminate_rows(rows, benchmark, dropped)
            writer.write_all(dedupe_rows(rows, seen, dropped) if settings.dedupe == "exact" else rows)
            counts.append(writer.count - before)
    return counts


def _counted(rows: Iterable[Row], progress: Progress) -> Iterator[Row]:
    for row in rows:
        progress.advance()
        yield row


def _summary(
    settings: MixSettings, figures: dict[str, Any], dropped: Dropped, seconds: dict[str, float], readers: list[RowReader]
) -> list[str]:
    held = f" and {figures['validation']} for validation" if settings.validation is not None else ""
    lines = [
        f"mix: {figures['in']} rows in, {figures['out']} out{held}, {dropped.total()} dropped, {figures['not_drawn']} not drawn",
        "of each: " + ", ".join(f"{part['name']} {part['rows']}" for part in figures["of_each"]),
        *finish.dropped_lines(dropped.reasons),
        *finish.bad_lines(*readers),
    ]
    if sum(seconds.values()) >= _TOLD_SECONDS:
        lines.append("seconds: " + ", ".join(f"{name} {spent:.1f}" for name, spent in seconds.items() if spent >= 0.05))
    return [*lines, *finish.output_lines(settings.out, settings.validation_out, settings.rejected)]


def _benchmark(rows: RowReader, n: int) -> Benchmark:
    """The n-grams of --decontaminate, read before any row is: a benchmark without prompts must not pass for a clean one."""

    def prompts() -> Iterator[Row]:
        for row in rows:
            if row.get("prompt") is None and row.get("messages") is None:
                raise R1Error(
                    f"{row.where}: a row of --decontaminate has no `prompt`; it has {', '.join(row)}",
                    hint="rename its column first: jq -c '.prompt = .question' IN > OUT.jsonl",
                    code=Exit.USAGE,
                )
            yield row

    return Benchmark(prompts(), n)


def _warn_of_templates(benchmark: Benchmark | None, context: Context) -> None:
    if benchmark is None or not benchmark.overlaps:
        return
    for overlap in benchmark.overlaps[:_OVERLAPS_KEPT]:
        context.console.detail(f"{overlap.row}: row `{overlap.row_id}` shares with {overlap.benchmark}: {overlap.words}")
    words, count = benchmark.common.most_common(1)[0]
    if count > 1 and count >= _SUSPICIOUS_SHARE * len(benchmark.overlaps):
        context.console.warn(f"{count} of {len(benchmark.overlaps)} overlaps are the same words, perhaps a prompt template: {words}")
