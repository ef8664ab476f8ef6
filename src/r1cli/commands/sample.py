"""`r1 sample`: prompt rows -> completion rows, each as soon as it ends.

r1 sample --model M -k 4 problems.jsonl | r1 reject --rewards accuracy,format > kept.jsonl
r1 sample --model M -k 16 problems.jsonl -o drawn.jsonl --resume     # killed at any moment? the same line draws what is missing
r1 sample --model M -k 4 --until correct=4 --max 64 problems.jsonl   # more only for the prompts that need it
r1 sample --model NAME --url https://... --template rewrite drawn.jsonl -o readable.jsonl
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1cli.commands import finish
from r1cli.commands.adaptive import Adaptive, Goal, goal_of
from r1cli.commands.prompt_rows import Prompts, examiner, in_shard, shard_of
from r1cli.commands.sample_file import SampleFile
from r1cli.commands.sampler import Pair, Task, Totals, missing
from r1cli.commands.sampling import check_sampling, draw_tasks, resolve_model
from r1cli.commands.useless_flags import refuse_useless
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.stream import RowReader, RowWriter, read_rows
from r1cli.rewards.registry import parse_specs
from r1cli.rewards.reward import RewardSpec
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row
from r1cli.settings import SampleSettings

COUNTED_BYTES = 2**28  # inputs up to this size are read once more, to know how much there is to do


def run(settings: SampleSettings, context: Context) -> None:
    """Run the command. Settings, output and model folder are checked before any row is read."""
    started = time.time()
    check_sampling(settings, context.sources)
    refuse_useless(settings, context.sources)
    specs = _specs(settings)
    goal = None if settings.until is None else goal_of(settings.until, specs, step=settings.samples, most=settings.max)
    _check_alone(settings)
    resolve_model(settings.model, settings, context.console.detail)
    output = RowWriter(settings.out, force=settings.force, append=True, resume=settings.resume)
    reader = _reader(settings, context)
    check = examiner(specs) if specs else None
    prompts = Prompts(reader, shard_of(settings.shard), check, rewrites=settings.template == "rewrite")
    job = Job(settings, context, specs, goal, prompts)
    with SampleFile(settings) as file:
        job.take_over(file)
        if file.continues:
            context.on_interrupt()
        job.draw(output, file.drawn_by)
        counts = job.counts()
        finish.write_manifest(settings.out, "sample", settings, reader.sources, [settings.out], counts, started, drawn_with=file.drawn_with)
    context.console.summary(job.summary())


@dataclass
class Job:
    """One run of the command: what it draws, and what came of it."""

    settings: SampleSettings
    context: Context
    specs: list[RewardSpec]
    goal: Goal | None
    prompts: Prompts
    totals: Totals = field(default_factory=Totals)
    done: set[Pair] = field(default_factory=set)  # there already
    scored: dict[Any, dict[int, bool]] = field(default_factory=dict)  # the same with --until: id -> sample -> whether it counts
    plan: Adaptive | None = None

    def take_over(self, file: SampleFile) -> None:
        """Read what an earlier attempt left."""
        for row in file.rows():
            self.done.add((row["id"], row["sample"]))
            if self.goal is not None:
                self.scored.setdefault(row["id"], {})[row["sample"]] = self.goal.judge(row)

    def draw(self, output: RowWriter, on_weights: Callable[[str], None]) -> None:
        """Draw what is missing, score it if asked, write it as it comes. on_weights: see `sampling.draw`."""
        settings, console = self.settings, self.context.console
        if self.goal is not None:
            self.plan = Adaptive(self.prompts, self.goal, self.scored)
        tasks = self._tasks() if self.plan is None else self.plan.tasks()
        with ExitStack() as stack:
            writer = stack.enter_context(output)
            progress = stack.enter_context(console.progress(self._to_do(), "rows", "sample"))
            rows: Any = draw_tasks(
                tasks,
                settings,
                self.context,
                totals=self.totals,
                on_weights=on_weights,
                on_ready=progress.restart,
                on_bad=self.prompts.leave_out if settings.skip_bad else None,
                on_none=self.plan.none if self.plan is not None else _nobody,
            )
            scorer = stack.enter_context(Scorer(self.specs, settings.reward_workers, settings.reward_timeout)) if self.specs else None
            if scorer is not None:
                rows = scorer.score(rows)
            if self.plan is not None:
                stack.callback(self.plan.stop)
            for row in stack.enter_context(closing(rows)):
                writer.write(row)
                if self.plan is not None:
                    self.plan.scored(row)
                progress.set(f"{self.totals.rate():,.0f} tok/s")
                progress.advance()
        for line in [*(scorer.warnings() if scorer is not None else []), *self.prompts.said()]:
            console.warn(line)

    def _tasks(self) -> Iterator[Task]:
        done = frozenset(self.done)
        for row in self.prompts:
            if self.settings.template == "rewrite":
                sample = row.get("sample", 0)
                yield row, [] if (row["id"], sample) in done else [sample]
            else:
                yield row, missing(row, self.settings.samples, done)

    def _to_do(self) -> int | None:
        """Completions to draw; None when nobody knows, or the input is a pipe, a data set or too big to be read twice.

        Raises the `R1Error` of a row that rewards could not score: of a file it is known before the first completion is drawn.
        """
        settings, prompts = self.settings, self.prompts
        size = sum(file.stat().st_size for source in prompts.reader.sources for file in source.files)
        if not all(source.files for source in prompts.reader.sources) or size > COUNTED_BYTES:
            return None
        counts = self.goal is None and not prompts.rewrites
        if not counts and prompts.check is None:
            return None
        ids = set()
        for row in read_rows(settings.inputs, field_map=settings.map, limit=settings.limit, skip_bad=True):
            if in_shard(row["id"], prompts.shard) and self._drawable(row):
                ids.add(row["id"])
        return sum((row_id, sample) not in self.done for row_id in ids for sample in range(settings.samples)) if counts else None

    def _drawable(self, row: Row) -> bool:
        try:
            if self.prompts.check is not None:
                self.prompts.check(row)
        except R1Error:
            if not self.settings.skip_bad:
                raise
            return False
        return True

    def drawn_from(self) -> int:
        """Prompts that a completion was drawn of, or was there of: not those that were left out on the way."""
        return self.prompts.taken - self.prompts.unusable - self.totals.too_long

    def counts(self) -> dict[str, int]:
        """For the manifest."""
        totals, prompts = self.totals, self.prompts
        found = {
            "in": sum(source.rows for source in prompts.reader.sources),
            "prompts": self.drawn_from(),
            "repeated": prompts.repeated,
            "out": totals.rows,
            "before": len(self.done),
            "tokens": totals.tokens,
            "truncated": totals.cut,
            "too_long": totals.too_long,
            "refused": totals.refused,
            "bad": prompts.reader.bad,
        }
        return found | ({"reached": self.plan.reached, "given_up": self.plan.given_up} if self.plan is not None else {})

    def summary(self) -> list[str]:
        """The lines at the end."""
        settings, totals = self.settings, self.totals
        line = f"sample: {self.drawn_from()} prompts, {totals.rows} completions"
        if self.done:
            line += f" ({len(self.done)} were there)"
        if totals.rows:
            line += f", {totals.tokens:,} tokens at {totals.rate():,.0f} tok/s ({totals.engine}), {totals.cut / totals.rows:.1%} truncated"
        lines = [line]
        if self.plan is not None:
            lines.append(f"{settings.until}: {self.plan.reached} prompts reached it, {self.plan.given_up} did not")
        lines += [*finish.bad_lines(self.prompts.reader), *finish.output_lines(settings.out)]
        if settings.out != "-" and totals.rows:
            lines.append(f"next: r1 reject {settings.out} -o kept.jsonl")
        return lines


def _nobody(row: Row, sample: int) -> None:
    """Nobody waits for this completion."""


def _specs(settings: SampleSettings) -> list[RewardSpec]:
    """The rewards to score with; none when nobody asked."""
    if settings.max is not None and settings.until is None:
        raise R1Error("--max without --until bounds nothing", hint="--until correct=4, or --samples for a fixed number", code=Exit.USAGE)
    rewards = settings.rewards or ("accuracy" if settings.until is not None else "")
    return [] if not rewards else parse_specs(rewards, level=settings.sandbox_level, unsafe=settings.unsafe)


def _check_alone(settings: SampleSettings) -> None:
    """Refuse what makes no sense together with a rewrite, or with greedy sampling."""
    if settings.until is not None and settings.temperature == 0:
        raise R1Error(
            "--until with --temperature 0 would draw the same completion again and again", hint="--temperature 0.6", code=Exit.USAGE
        )
    if settings.template == "rewrite" and (settings.samples > 1 or settings.until is not None):
        raise R1Error("--template rewrite makes one row of each completion", hint="leave out --samples and --until", code=Exit.USAGE)


def _reader(settings: SampleSettings, context: Context) -> RowReader:
    reader = read_rows(settings.inputs, field_map=settings.map, limit=settings.limit, skip_bad=settings.skip_bad, say=context.console.info)
    if settings.out != "-" and any(file.resolve() == Path(settings.out).resolve() for source in reader.sources for file in source.files):
        raise R1Error(
            f"`{settings.out}` is input and output: rows are written as they come, over those not yet read",
            hint="give --out another name",
            code=Exit.USAGE,
        )
    return reader
