"""The prompts of `r1 grpo` that can be trained on, and the rest of its preflight: what needs a tokenizer."""

from collections.abc import Callable, Sequence
from typing import Any

from r1cli.commands.gold_reward import check_gold_reward
from r1cli.commands.grpo_prompts import Stages
from r1cli.commands.preference import rule_rewards
from r1cli.commands.preflight import Finding, check_lengths, check_model, check_unused_tokens, context_of, stop_or_warn
from r1cli.commands.training import end_of_turn
from r1cli.engines.model_files import end_ids
from r1cli.errors import Exit, R1Error
from r1cli.grpo_settings import GrpoSettings
from r1cli.guard import Context
from r1cli.io.stream import RowReader
from r1cli.model_folder import load_tokenizer
from r1cli.row import Row, require
from r1cli.shared_settings import Changing
from r1cli.text.conversation import check_known, prompt_ids
from r1cli.text.prompts import PromptRenderer
from r1cli.train.model import check_vocabulary, load_config


def usable_prompts(
    stages: Stages, settings: GrpoSettings, context: Context, folder: str, reader: RowReader, *, again: bool = False
) -> tuple[Stages, int]:
    """(the stages with the prompt rows that fit `max_prompt_length`, and leave room for a completion in `max_model_len`; tokens of the
    longest). Those that do not are counted and named.

    What else the preflight finds is said; a failure stops the run here, before weights are loaded.
    reader: counts the bad ones that it leaves out;  again: what is to be said of the model was said already
    """
    tokenizer = load_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
    end_id = end_of_turn(folder, tokenizer)
    renderer = PromptRenderer(tokenizer, template=settings.template, system=settings.system, think_prefix=settings.think_prefix)
    config = load_config(folder, trust_remote_code=settings.trust_remote_code)
    beyond = check_vocabulary(folder, tokenizer, config)
    stages = keep_known(stages, renderer, tokenizer, beyond, reader, context.console.warn)
    most, because = settings.max_prompt_length, f"--max-prompt-length {settings.max_prompt_length}"
    room = settings.max_model_len - longest_completion(settings) if settings.max_model_len else most
    if room < most:
        most, because = room, f"what --max-model-len {settings.max_model_len} leaves beside --max-completion-length: {room}"
    fitting, longest = keep_fitting(stages, renderer, most, because, context.console.warn)
    rows = [row for _, rows in fitting for row in rows]
    about_model = check_model(
        tokenizer, renderer, end_id, end_ids(folder, tokenizer), several_turns=any(map(has_history, rows)), sampled=True
    )
    about_it = [] if again else [*about_model, *check_unused_tokens(tokenizer, beyond)]
    stop_or_warn([*about_it, *_findings(rows, longest, settings, renderer, context_of(config))], context)
    return fitting, longest


def _findings(rows: Sequence[Row], longest: int, settings: GrpoSettings, renderer: PromptRenderer, limit: int | None) -> list[Finding]:
    """What the preflight has to say about lengths, in a model with `limit` positions, and about rewards."""
    found = check_lengths([longest], settings.max_prompt_length, longest_completion(settings), limit)
    rules = rule_rewards(settings)
    return found + check_gold_reward(rows, rules, settings.template, renderer.think_prefix, settings.reward_timeout) if rules else found


def longest_completion(settings: GrpoSettings) -> int:
    """The largest of the length limits that are in force at one step or another."""
    return max(value for _, value in Changing(settings.max_completion_length).switches())


def keep_known(
    stages: Stages, renderer: PromptRenderer, tokenizer: Any, beyond: frozenset[int], reader: RowReader, warn: Callable[[str], None]
) -> Stages:
    """The stages without the prompts that hold a token of `beyond`, which the model has no embedding for: its lookup fails on a CPU, and
    ends the process on a GPU. Such a prompt is an error (exit 2) that names its row. Where bad rows are left out, `reader` counts it and
    `warn` says so."""
    if not beyond:  # nearly every model: nothing is rendered twice
        return stages
    before = reader.bad
    known = [(start, [row for row in rows if _is_known(row, renderer, tokenizer, beyond, reader)]) for start, rows in stages]
    if any(rows and not left for (_, rows), (_, left) in zip(stages, known, strict=True)):
        raise R1Error(
            f"no prompts left: {reader.bad} bad ones left out, the first: {reader.first_bad}",
            hint="mend that row; where all are like it, the tokenizer is not this model's: give the model's own",
            code=Exit.USAGE,
        )
    if reader.bad > before:
        warn(f"{reader.bad - before} bad prompts left out, the first: {reader.first_bad}")
    return known


def _is_known(row: Row, renderer: PromptRenderer, tokenizer: Any, beyond: frozenset[int], refused: RowReader) -> bool:
    try:
        check_known(row, prompt_ids(row, require(row, "prompt", str, list), renderer), tokenizer, beyond)
    except R1Error as error:
        refused.leave_out(error)
        return False
    return True


def keep_fitting(
    stages: Sequence[tuple[int, Sequence[Row]]], renderer: PromptRenderer, most: int, because: str, warn: Callable[[str], None]
) -> tuple[list[tuple[int, list[Row]]], int]:
    """(the stages with the prompts of at most `most` tokens, tokens of the longest); `because` says in words what `most` is."""
    fitting, longest, left_out = [], 0, 0
    for start, rows in stages:
        lengths = [len(prompt_ids(row, require(row, "prompt", str, list), renderer)) for row in rows]
        kept = [(row, length) for row, length in zip(rows, lengths, strict=True) if length <= most]
        if not kept:
            place = f" at step {start}" if start else ""
            why = f"{len(rows)} read, all longer than {because}" if rows else "the input is empty"
            flag = because.partition(" ")[0] if because.startswith("--") else "--max-model-len"
            way = "lower --max-completion-length" if because.startswith("what the engine's") else f"raise {flag}"
            room = f"{way}: the shortest prompt has {min(lengths)} tokens" if lengths else ""
            hint = room or 'give prompt rows: {"prompt": ..., "answer": ...}'
            raise R1Error(f"no prompts to train on{place}: {why}", hint=hint, code=Exit.USAGE)
        fitting.append((start, [row for row, _ in kept]))
        longest = max(longest, *(length for _, length in kept))
        left_out += len(rows) - len(kept)
    if left_out:
        warn(f"{left_out} prompts left out: longer than {because} tokens")
    return fitting, longest


def has_history(row: Row) -> bool:
    """Whether the prompt shows the model an earlier assistant turn."""
    return not isinstance(row["prompt"], str) and any(message.get("role") == "assistant" for message in row["prompt"])
