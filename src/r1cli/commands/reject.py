"""`r1 reject`: completion rows -> the rows that pass, or preference pairs.

    score -> judge what no rule could -> compare with old scores -> keep, filter -> difficulty window -> pick -> rows, SFT rows
                                                                               \\-> pairs

Every step is a generator: a row comes out as soon as it is judged, unless `--per-prompt`, `--pass-rate` or `--pairs` has to see all of a
prompt first; rows then wait on disk. Every dropped row is counted under a reason.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from r1cli.commands import finish
from r1cli.commands.judging import check_judge, open_judge
from r1cli.commands.preference import all_rewards, check_unstaged, open_models, rule_rewards
from r1cli.commands.useless_flags import refuse_useless
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.stream import STDOUT, RowReader, RowWriter, read_rows
from r1cli.report.console import Progress
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row
from r1cli.settings import RejectSettings
from r1cli.steps import condition, moves, pass_rate, readability
from r1cli.steps.judge import Judge
from r1cli.steps.keep import Dropped, judge_of, keep_rows
from r1cli.steps.moves import Moves
from r1cli.steps.pairs import Pairing
from r1cli.steps.pick import pick_rows
from r1cli.steps.sft_rows import to_sft


def run(settings: RejectSettings, context: Context) -> None:
    """Run the command. Raises `R1Error` for wrong settings before any row is read."""
    started = time.time()
    rules = rule_rewards(settings)
    specs = all_rewards(settings)
    check_unstaged(settings)
    filters = readability.parse(settings.filters or "")
    keep = judge_of(settings.keep, specs)
    window = None if settings.pass_rate is None else pass_rate.parse(settings.pass_rate)
    plain = None if settings.plain is None else condition.parse(settings.plain)
    _check(settings, context)
    reader = read_rows(settings.inputs, field_map=settings.map, limit=settings.limit, skip_bad=settings.skip_bad, say=context.console.info)
    compared = _moves(settings, reader, keep)
    sums = _Means()
    rates = pass_rate.PassRates(specs[0].name, 1.0 if specs[0].maximum is None else specs[0].maximum)
    with ExitStack() as stack:
        models = stack.enter_context(open_models(settings, context))
        scorer = stack.enter_context(Scorer(rules, settings.reward_workers, settings.reward_timeout, models))
        writer, others, movers = _writers(settings, stack)
        judge = stack.enter_context(open_judge(settings, context))
        progress = stack.enter_context(context.console.progress(None, "rows", "reject"))
        dropped = Dropped(None if others is None else others.write)
        source = reader.having("completion", str)
        source = source if compared is None else compared.before(source)
        rows = scorer.score(source, on_bad=reader.leave_out if settings.skip_bad else None)
        rows = rows if judge is None or settings.pairs else judge.grade(rows)
        rows = sums.watch(rows, progress)
        rows = rows if window is None else rates.watch(rows)
        rows = rows if compared is None else _compared(rows, compared, movers)

        def reason(row: Row) -> str | None:
            return keep(row) or readability.reason_of(filters, row)

        if settings.pairs:
            made = stack.enter_context(_pairing(settings, dropped))
            for row in rows:
                made.add(row, reason(row))
            kept = made.rows(judge, settings.judge_margin)
        else:
            kept = pass_rate.within(keep_rows(rows, reason, dropped), window, rates, dropped)
            kept = pick_rows(kept, settings.per_prompt, settings.pick, settings.seed, dropped)
        writer.write_all(to_sft(kept, plain, reader.leave_out) if settings.to == "sft" else kept)
    counts: dict[str, Any] = {"in": sums.rows, "out": writer.count, "dropped": dict(dropped.reasons), "bad": reader.bad}
    counts |= {} if judge is None else {"judged": judge.asked, "verdicts_unreadable": judge.unreadable}
    counts |= {} if compared is None else {"compare": compared.counts()}
    outputs = [out for out in (settings.out, settings.rejected, settings.moved) if out]
    finish.write_manifest(settings.out, "reject", settings, reader.sources, outputs, counts, started)
    _warn(settings, context, scorer, sums, writer.count, filters)
    context.console.summary(_summary(settings, reader, sums, dropped, writer.count, judge, compared))


def _check(settings: RejectSettings, context: Context) -> None:
    """Refuse flags that contradict each other. Raises `R1Error` (exit 2)."""
    named: dict[str, str] = {}
    for flag, file in (("--out", settings.out), ("--rejected", settings.rejected), ("--moved", settings.moved)):
        if file is None:
            continue
        other = named.setdefault("-" if file in STDOUT else str(Path(file).resolve()), flag)
        if other != flag and file in STDOUT:  # a reader of the pipe could not tell the rows of one from those of the other
            raise R1Error(f"{other} and {flag} are both stdout", hint=f"give {flag} the name of a file", code=Exit.USAGE)
        if other != flag:
            raise R1Error(f"{other} and {flag} name the same file", hint="give them two names", code=Exit.USAGE)
    if settings.moved is not None and settings.compare is None:
        raise R1Error("--moved does nothing without --compare", hint="--compare OLD", code=Exit.USAGE)
    if settings.plain is not None and settings.to != "sft":
        raise R1Error("--plain does nothing without --to sft", hint="--to sft", code=Exit.USAGE)
    if settings.balance_lengths and not settings.pairs:
        raise R1Error("--balance-lengths does nothing without --pairs", hint="--pairs", code=Exit.USAGE)
    if settings.pairs:
        for flag, wrong in (
            ("--to sft", settings.to == "sft"),
            ("--pass-rate", settings.pass_rate is not None),
            (f"--pick {settings.pick}", settings.pick == "diverse"),
            (f"--pick {settings.pick} and --judge", settings.judge is not None and settings.pick != "random"),
        ):
            if wrong:
                raise R1Error(f"{flag} does not go with --pairs", hint="leave one of them out", code=Exit.USAGE)
    check_judge(settings, context.sources)
    refuse_useless(settings, context.sources)


def _writers(settings: RejectSettings, stack: ExitStack) -> tuple[RowWriter, RowWriter | None, RowWriter | None]:
    """Where kept, dropped and moved rows go."""
    others, movers = (
        None if out is None else stack.enter_context(RowWriter(out, force=settings.force)) for out in (settings.rejected, settings.moved)
    )
    return stack.enter_context(RowWriter(settings.out, force=settings.force)), others, movers


def _pairing(settings: RejectSettings, dropped: Dropped) -> Pairing:
    return Pairing(
        per_prompt=settings.per_prompt,
        how=settings.pick,
        seed=settings.seed,
        everything=settings.keep == "all",
        balance=settings.balance_lengths,
        dropped=dropped,
    )


def _moves(settings: RejectSettings, reader: RowReader, keep: Callable[[Row], str | None]) -> Moves | None:
    """What `--compare` compares with; the file is read here, before anything is scored."""
    if settings.compare is None:
        return None
    own = settings.compare == moves.OWN
    if not own:
        inputs = {file.resolve() for source in reader.sources for file in source.files}
        own = Path(settings.compare).resolve() in inputs
    return Moves(lambda row: keep(row) is None, None if own else moves.index(read_rows([settings.compare])))


def _compared(rows: Iterable[Row], compared: Moves, movers: RowWriter | None) -> Iterator[Row]:
    for row in rows:
        note = compared.after(row)
        if note is not None and movers is not None:
            movers.write(row.with_fields(moved=note))
        yield row


class _Means:
    """The means of the rewards of the rows that went by; rows without a value for a reward do not count in its mean.

    unended: rows that do not say how they ended.
    """

    def __init__(self) -> None:
        self.rows = self.unended = 0
        self._sums: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()

    def watch(self, rows: Iterable[Row], progress: Progress) -> Iterator[Row]:
        for row in rows:
            self.rows += 1
            self.unended += "finish_reason" not in row
            scores: dict[str, Any] = row["rewards"]
            for name, score in scores.items():
                if score is not None:
                    self._sums[name] += score
                    self._counts[name] += 1
            progress.advance()
            yield row

    def text(self) -> str:
        return ", ".join(f"{name} {self._sums[name] / count:.3f}" for name, count in self._counts.items())


def _warn(settings: RejectSettings, context: Context, scorer: Scorer, means: _Means, kept: int, filters: list[readability.Filter]) -> None:
    for line in scorer.warnings():
        context.console.warn(line)
    if means.unended and any(each.name == "truncated" for each in filters):
        context.console.warn(f"{means.unended} rows have no `finish_reason`: whether they were truncated is not known")
    if means.rows and not kept:
        context.console.warn("no pair was made" if settings.pairs else "no row was kept")


def _summary(
    settings: RejectSettings, reader: RowReader, means: _Means, dropped: Dropped, kept: int, judge: Judge | None, compared: Moves | None
) -> list[str]:
    what = f"{kept} pairs" if settings.pairs else f"{kept} kept"
    lines = [f"reject: {means.rows} rows in, {what}, {dropped.total()} dropped"]
    if means.text():
        lines[0] += f"; mean {means.text()}"
    if judge is not None:
        things = "pairs compared" if settings.pairs else "rows graded"
        lines.append(f"judge: {judge.asked} {things}, {judge.unreadable} verdicts could not be read")
    lines += compared.lines() if compared is not None else []
    lines += finish.dropped_lines(dropped.reasons)
    lines += finish.bad_lines(reader)
    lines += finish.output_lines(settings.out, settings.rejected, settings.moved)
    if settings.to == "sft" and settings.out != "-" and kept:
        lines.append(f"next: r1 sft --model BASE -o RUN {settings.out}")
    return lines
