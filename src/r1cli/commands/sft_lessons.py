"""SFT rows as token sequences, and what the preflight has to say about them before weights are loaded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from r1cli.commands.preflight import (
    FAIL,
    Finding,
    check_lessons,
    check_model,
    check_padding,
    check_unused_tokens,
    context_of,
    places,
    stop_or_warn,
)
from r1cli.commands.training import end_of_turn
from r1cli.engines.model_files import end_ids
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.fields import FieldMap
from r1cli.io.stream import RowReader
from r1cli.model_folder import load_tokenizer
from r1cli.row import Row
from r1cli.text.conversation import Turn, answers, turns
from r1cli.text.prompts import PromptRenderer
from r1cli.train.model import check_vocabulary, load_config
from r1cli.train.stored_rows import StoredRows


@dataclass(frozen=True)
class Learner:
    """What rows are learnt with. beyond: tokens that the model has no embedding for (`train.model.check_vocabulary`)."""

    tokenizer: Any
    renderer: PromptRenderer
    end_id: int
    config: Any
    beyond: frozenset[int]


def learner_of(settings: Any, folder: str) -> Learner:
    """The learner of a model folder. Raises `R1Error` (exit 2) for a model that could not learn any row: without an end of turn or the
    chat template that is asked for, or with tokens that are not the model's."""
    tokenizer = load_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
    end_id = end_of_turn(folder, tokenizer)
    renderer = PromptRenderer(tokenizer, template=settings.template)
    config = load_config(folder, trust_remote_code=settings.trust_remote_code)
    return Learner(tokenizer, renderer, end_id, config, check_vocabulary(folder, tokenizer, config))


def checked(
    rows: Sequence[Row], settings: Any, context: Context, folder: str, reader: RowReader | None = None, *, held_out: bool = False
) -> StoredRows:
    """One list of samples a row, for those that are short enough; the others are counted and named. `settings` is those of sft or distill.

    Rows that the template refuses are left out with --skip-bad, said, and counted in `reader.bad`. held_out: say that it is held-out rows
    that are meant, and not what training rows have been told about the model. Raises `R1Error` (exit 2) for such a row without --skip-bad,
    and for what the preflight finds to be wrong.
    """
    kind = "held-out rows" if held_out else "rows"
    learner = learner_of(settings, folder)
    tokenizer, renderer, end_id, beyond = learner.tokenizer, learner.renderer, learner.end_id, learner.beyond
    refused = RowReader([], FieldMap(()), None, settings.skip_bad)  # of its own: distill reads its rows from a file it made
    lessons, kept, too_long = tokenised(rows, settings, renderer, tokenizer, end_id, refused, beyond=beyond, kind=kind)
    if refused.bad:
        context.console.warn(f"{refused.bad} bad {kind} left out, the first: {refused.first_bad}")
    if reader is not None:
        reader.bad += refused.bad
        reader.first_bad = reader.first_bad or refused.first_bad
    if too_long:
        names = ", ".join(f"`{row['id']}`" for row in too_long[:3]) + (" ..." if len(too_long) > 3 else "")
        context.console.warn(f"{len(too_long)} {kind} left out: longer than --max-length {settings.max_length} tokens ({names})")
    said = [(row, text) for row in kept for _, text in answers(row, last_only=_last_only(settings))]
    findings = lesson_findings(lessons.turns, said, renderer, end_id, context_of(learner.config))
    if held_out:
        findings = [replace(finding, name=f"held-out rows: {finding.name}") for finding in findings]
    else:
        several = any(len(answers(row)) > 1 for row in kept)
        about_it = check_model(tokenizer, renderer, end_id, end_ids(folder, tokenizer), several_turns=several)
        findings = [*about_it, *check_unused_tokens(tokenizer, beyond), *findings]
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end_id
    stop_or_warn([*findings, check_padding(lessons, pad_id)], context)
    return lessons


def tokenised(
    rows: Sequence[Row],
    settings: Any,
    renderer: PromptRenderer,
    tokenizer: Any,
    end_id: int,
    reader: RowReader,
    *,
    beyond: frozenset[int] = frozenset(),
    kind: str = "rows",
) -> tuple[StoredRows, list[Row], list[Row]]:
    """(one list of samples a row, those rows, the rows with a turn longer than `max_length`: they are left out whole, never cut).

    A row that cannot be tokenised is handed to `reader.leave_out`. beyond: as for `turns`; kind: what errors call the rows. Raises
    `R1Error` (exit 2) when no row is left.
    """
    lessons = StoredRows()
    kept: list[Row] = []
    too_long: list[Row] = []
    longest = 0
    for row in rows:
        try:
            learnt = turns(row, renderer, tokenizer, end_id, last_only=_last_only(settings), beyond=beyond)
        except R1Error as error:
            reader.leave_out(error)
            continue
        length = max(len(prompt) + len(completion) for prompt, completion in learnt)
        longest = max(longest, length)
        if length > settings.max_length:
            too_long.append(row)
        else:
            lessons.append(learnt)
            kept.append(row)
    if not lessons:
        use = "train" if kind == "rows" else "measure"
        bad = f", {reader.bad} bad, the first: {reader.first_bad}" if reader.bad else ""
        hint = f"raise --max-length (all rows: {longest})" if too_long else "give SFT rows (messages, or prompt and completion)"
        raise R1Error(
            f"no {kind} to {use} on: {len(rows)} read, {len(too_long)} longer than --max-length {settings.max_length}{bad}",
            hint=hint,
            code=Exit.USAGE,
        )
    return lessons, kept, too_long


def lesson_findings(
    learnt: Sequence[Turn], said: Sequence[tuple[Row, str]], renderer: PromptRenderer, end_id: int, limit: int | None
) -> list[Finding]:
    """What assistant turns begin and end with, and whether the longest fits the model's context of `limit`.

    learnt: the tokens of each turn; said: its row and its text.
    """
    rows, texts = [row for row, _ in said], [text for _, text in said]
    found = check_lessons(learnt, texts, rows, end_id, renderer.think_prefix, renderer.closed_think)
    lengths = [len(prompt) + len(completion) for prompt, completion in learnt]
    longest = max(lengths)
    if limit is not None and longest > limit:
        over = [row for row, length in zip(rows, lengths, strict=True) if length > limit]
        text = f"the longest row has {longest} tokens, the model was made for {limit} ({places(over)})"
        found.append(Finding("context", FAIL, text, f"--max-length {limit}"))
    return found


def _last_only(settings: Any) -> bool:
    return getattr(settings, "loss_on", None) == "completion"
