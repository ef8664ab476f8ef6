"""SFT rows as token sequences, and what the preflight has to say about them before weights are loaded."""

from collections.abc import Sequence
from typing import Any

from r1cli.commands.preflight import FAIL, Finding, check_lessons, check_model, check_padding, context_of, stop_or_warn
from r1cli.commands.training import end_of_turn
from r1cli.engines.model_files import end_ids
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.row import Row
from r1cli.text.conversation import Turn, answers, turns
from r1cli.text.prompts import PromptRenderer
from r1cli.train.batches import Sample
from r1cli.train.model import load_config, load_tokenizer


def checked(rows: Sequence[Row], settings: Any, context: Context, folder: str) -> list[list[Sample]]:
    """One list of samples a row, for those that are short enough; the others are counted and named. `settings` is those of sft or distill.

    Raises `R1Error` (exit 2) for what the preflight finds to be wrong.
    """
    tokenizer = load_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
    end_id = end_of_turn(folder, tokenizer)
    renderer = PromptRenderer(tokenizer, template=settings.template)
    lessons, too_long = tokenised(rows, settings, renderer, tokenizer, end_id)
    if too_long:
        names = ", ".join(f"`{row['id']}`" for row in too_long[:3]) + (" ..." if len(too_long) > 3 else "")
        context.console.warn(f"{len(too_long)} rows left out: longer than --max-length {settings.max_length} tokens ({names})")
    left_out = {id(row) for row in too_long}
    kept = [row for row in rows if id(row) not in left_out]
    turns_of = slice(-1, None) if _last_only(settings) else slice(None)
    texts = [text for row in kept for _, text in answers(row)[turns_of]]
    findings = check_model(
        tokenizer, renderer, end_id, end_ids(folder, tokenizer), several_turns=any(len(answers(row)) > 1 for row in kept)
    )
    limit = context_of(load_config(folder, trust_remote_code=settings.trust_remote_code))
    learnt = [(sample.prompt_ids, sample.completion_ids) for row in lessons for sample in row]
    findings += lesson_findings(learnt, texts, renderer, end_id, limit)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end_id
    stop_or_warn([*findings, check_padding(lessons, pad_id)], context)
    return lessons


def tokenised(
    rows: Sequence[Row], settings: Any, renderer: PromptRenderer, tokenizer: Any, end_id: int
) -> tuple[list[list[Sample]], list[Row]]:
    """(one list of samples a row, the rows with a turn longer than `max_length`: they are left out whole, never cut)."""
    lessons: list[list[Sample]] = []
    too_long: list[Row] = []
    for row in rows:
        learnt = turns(row, renderer, tokenizer, end_id)
        learnt = learnt[-1:] if _last_only(settings) else learnt
        if any(len(prompt) + len(completion) > settings.max_length for prompt, completion in learnt):
            too_long.append(row)
        else:
            lessons.append([Sample(len(lessons), prompt, completion) for prompt, completion in learnt])
    if not lessons:
        raise R1Error(
            f"no rows to train on: {len(rows)} read, {len(too_long)} longer than --max-length {settings.max_length}",
            hint="give SFT rows (messages, or prompt and completion)",
            code=Exit.USAGE,
        )
    return lessons, too_long


def lesson_findings(
    learnt: Sequence[Turn], texts: Sequence[str], renderer: PromptRenderer, end_id: int, limit: int | None
) -> list[Finding]:
    """What assistant turns (their tokens, their texts) begin and end with, and whether the longest fits the model's context of `limit`."""
    found = check_lessons(learnt, texts, end_id, renderer.think_prefix)
    longest = max(len(prompt) + len(completion) for prompt, completion in learnt)
    if limit is not None and longest > limit:
        text = f"the longest row has {longest} tokens, the model was made for {limit}"
        found.append(Finding("context", FAIL, text, f"--max-length {limit}"))
    return found


def _last_only(settings: Any) -> bool:
    return getattr(settings, "loss_on", None) == "completion"
