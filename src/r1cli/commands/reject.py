"""`r1 reject`: completion rows -> the rows that pass.

Scores every row, keeps those that pass, picks some of each prompt. Rows stream: a row comes out as soon as it is judged, unless
`--per-prompt` has to see all of them first.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from r1cli.commands import finish
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.stream import RowReader, RowWriter, read_rows
from r1cli.report.console import Progress
from r1cli.rewards.registry import parse_specs
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row, require
from r1cli.settings import RejectSettings
from r1cli.steps.keep import Dropped, judge_of, keep_rows
from r1cli.steps.pick import pick_rows
from r1cli.steps.sft_rows import to_sft


def run(settings: RejectSettings, context: Context) -> None:
    """Run the command. Raises `R1Error` for wrong settings before any row is read."""
    started = time.time()
    specs = parse_specs(settings.rewards, level=settings.sandbox_level, unsafe=settings.unsafe)
    judge = judge_of(settings.keep, specs)
    if settings.rejected is not None and settings.rejected == settings.out:
        raise R1Error("--out and --rejected name the same file", hint="give them two names", code=Exit.USAGE)
    reader = read_rows(settings.inputs, field_map=settings.map, limit=settings.limit, skip_bad=settings.skip_bad, say=context.console.info)
    sums = _Means()
    with ExitStack() as stack:
        scorer = stack.enter_context(Scorer(specs, workers=settings.reward_workers, timeout=settings.reward_timeout))
        others = None if settings.rejected is None else stack.enter_context(RowWriter(settings.rejected, force=settings.force))
        writer = stack.enter_context(RowWriter(settings.out, force=settings.force))
        progress = stack.enter_context(context.console.progress(None, "rows", "reject"))
        dropped = Dropped(None if others is None else others.write)
        scored = scorer.score(_with_completions(reader), on_bad=reader.leave_out if settings.skip_bad else None)
        kept = keep_rows(sums.watch(scored, progress), judge, dropped)
        picked = pick_rows(kept, settings.per_prompt, settings.pick, settings.seed, dropped)
        writer.write_all(to_sft(picked) if settings.to == "sft" else picked)
    counts = {"in": sums.rows, "out": writer.count, "dropped": dict(dropped.reasons), "bad": reader.bad}
    outputs = [settings.out, *([settings.rejected] if settings.rejected else [])]
    finish.write_manifest(settings.out, "reject", settings, reader.sources, outputs, counts, started)
    for line in scorer.warnings():
        context.console.warn(line)
    if sums.rows and not writer.count:
        context.console.warn("no row was kept")
    context.console.summary(_summary(settings, reader, sums, dropped, writer.count))


def _with_completions(reader: RowReader) -> Iterator[Row]:
    for row in reader:
        try:
            require(row, "completion", str)
        except R1Error as error:
            reader.leave_out(error)
            continue
        yield row


class _Means:
    """The means of the rewards of the rows that went by; rows without a value for a reward do not count in its mean."""

    def __init__(self) -> None:
        self.rows = 0
        self._sums: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()

    def watch(self, rows: Iterable[Row], progress: Progress) -> Iterator[Row]:
        for row in rows:
            self.rows += 1
            scores: dict[str, Any] = row["rewards"]
            for name, score in scores.items():
                if score is not None:
                    self._sums[name] += score
                    self._counts[name] += 1
            progress.advance()
            yield row

    def text(self) -> str:
        return ", ".join(f"{name} {self._sums[name] / count:.3f}" for name, count in self._counts.items())


def _summary(settings: RejectSettings, reader: RowReader, means: _Means, dropped: Dropped, kept: int) -> list[str]:
    lines = [f"reject: {means.rows} rows in, {kept} kept, {dropped.total()} dropped"]
    if means.rows:
        lines[0] += f"; mean {means.text()}"
    lines += finish.dropped_lines(dropped.reasons)
    lines += finish.bad_lines(reader)
    lines += finish.output_lines(settings.out, settings.rejected)
    if settings.to == "sft" and settings.out != "-" and kept:
        lines.append(f"next: r1 sft --model BASE -o RUN {settings.out}")
    return lines
