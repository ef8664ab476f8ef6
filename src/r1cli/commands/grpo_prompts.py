"""The prompt rows of `r1 grpo`: which files, from which step on, at which shares.

problems.jsonl                          all rows count the same
math.jsonl=0.5 code.jsonl=0.5           half of every rollout is of each file, however many rows it has
--add general.jsonl=0.3@1300            joins at a step; the shares are then 0.5 : 0.5 : 0.3
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from r1cli.commands.held_out import held_out_rows
from r1cli.commands.preference import rule_rewards
from r1cli.errors import Exit, R1Error
from r1cli.grpo_settings import GrpoSettings
from r1cli.guard import Context
from r1cli.io.stream import RowReader, read_rows
from r1cli.rewards.reward import RewardSpec
from r1cli.row import Row, prompt_key
from r1cli.steps.keep import RULES
from r1cli.steps.mix import part_of

Stages = list[tuple[int, list[Row]]]
"""Prompt rows by the step from which on they take part."""


@dataclass(frozen=True)
class Source:
    """Files read together, the step from which on they take part, and their share (None: none is named anywhere)."""

    files: list[str]
    start: int
    share: float | None


def sources_of(settings: GrpoSettings) -> list[Source]:
    """What the inputs and `--add` name, in the order in which it joins. Raises `R1Error` (exit 2) for what cannot be read."""
    named = [(0, *_with_share(text)) for text in settings.inputs]
    added = sorted(((step, *_with_share(file)) for step, file in map(_file_at, settings.add)), key=lambda source: source[0])
    shares = [share for _, _, share in (*named, *added)]
    if all(share is None for share in shares):
        return [Source(list(settings.inputs), 0, None), *(Source([file], step, None) for step, file, _ in added)]
    without = next((file for _, file, share in (*named, *added) if share is None), None)
    if without is not None or not named:
        raise R1Error(
            f"`{without or '-'}` has no share, and other files have one", hint=f"give each a share: {without or '-'}=0.5", code=Exit.USAGE
        )
    if settings.limit is not None:
        raise R1Error("--limit does not go with shares: which file would it cut", hint="leave one of them out", code=Exit.USAGE)
    return [Source([file], step, share) for step, file, share in (*named, *added)]


def read_prompts(settings: GrpoSettings, context: Context) -> tuple[Stages, list[float] | None, list[RowReader]]:
    """(rows by stage, the share of each, their readers)."""
    stages: Stages = []
    readers = []
    sources = sources_of(settings)
    for source in sources:
        limit = None if source.start else settings.limit
        reader = read_rows(source.files, field_map=settings.map, limit=limit, skip_bad=settings.skip_bad, say=context.console.info)
        stages.append((source.start, list(with_prompts(reader))))
        readers.append(reader)
    shares = [source.share for source in sources if source.share is not None]
    return stages, shares or None, readers


def held_out_problems(settings: GrpoSettings, rows: Sequence[Row], context: Context) -> tuple[list[Row], RowReader | None]:
    """(the rows of `--held-out`, their reader). rows: all that are trained on.

    Raises `R1Error` (exit 2) when they overlap, or no rule can judge them.
    """
    found, reader = held_out_rows(settings, rows, with_prompts, lambda row: prompt_key(row["prompt"]), context.console.warn)
    if found and held_out_rule(settings) is None:
        raise R1Error(
            "--held-out measures the accuracy by a rule, and --rewards names none", hint=f"one of {', '.join(RULES)}", code=Exit.USAGE
        )
    return found, reader


def held_out_rule(settings: GrpoSettings) -> RewardSpec | None:
    """The reward that measures on `--held-out`, from step 0 and for rows of every set: the first of --rewards that judges by a rule."""
    rule = next((spec for spec in rule_rewards(settings) if spec.name in RULES), None)
    return None if rule is None else replace(rule, start=0, sets=())


def _with_share(text: str) -> tuple[str, float | None]:
    part = part_of(text)
    if part.weight is None:
        if part.count is not None or part.share is not None:
            raise R1Error(f"`{text}`: a number of rows is for `r1 mix`", hint=f"{part.name}=0.5 is a share of every step", code=Exit.USAGE)
        return text, None
    if part.weight <= 0:
        raise R1Error(f"`{text}`: a share is above 0", hint=f"{part.name}=0.5, or leave the file out", code=Exit.USAGE)
    return part.name, part.weight


def _file_at(text: str) -> tuple[int, str]:
    file, _, step = text.rpartition("@")
    if not file or not step.isdecimal() or int(step) < 1:
        raise R1Error(
            f"`--add` must be FILE@STEP, found `{text}`",
            hint="--add general.jsonl@1300, with a share general.jsonl=0.3@1300",
            code=Exit.USAGE,
        )
    return int(step), file


def with_prompts(reader: RowReader) -> Iterator[Row]:
    """The rows that have a prompt (`RowReader.having`)."""
    return reader.having("prompt", str, list)
