"""What can be known to be wrong before a GPU hour is spent: findings about a model's template and tokens, and about rows.

`r1 check` prints them all; `r1 grpo` and `r1 sft` stop at a failure and say the warnings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.rewards.audit import audit_golds
from r1cli.rewards.reward import RewardSpec
from r1cli.rewards.sets import applies
from r1cli.row import Row
from r1cli.text.prompts import PromptRenderer
from r1cli.text.templates import CHAT_TEMPLATES, CLOSE, OPEN

OK, WARN, FAIL = "ok", "warn", "fail"
SAID = "probe of what is said"
PROBE = "<think>\nprobe of the reasoning\n</think>\n\nprobe of the answer"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. level: ok, warn or fail; fix: what to do about it ("" when ok)."""

    name: str
    level: str
    text: str
    fix: str = ""


def check_model(
    tokenizer: Any, renderer: PromptRenderer, end_id: int, stops: frozenset[int] = frozenset(), *, several_turns: bool = True
) -> list[Finding]:
    """The prompt template and the end-of-turn token.

    stops: the tokens that end a completion when sampling (`engines.model_files.end_ids`). several_turns: whether rows show the model
    earlier assistant turns.
    """
    end = tokenizer.convert_ids_to_tokens(end_id)
    found = [_turn_end(tokenizer, renderer, end_id, stops)]
    if tokenizer.pad_token_id == end_id:
        found.append(
            Finding("padding", OK, f"the padding token is `{end}` too; padding is left out by position, so the end is still learnt")
        )
    if renderer.think_prefix:
        found.append(
            Finding("reasoning", OK, f"the prompt opens the reasoning ({renderer.think_prefix!r}); rewards know it from `think_prefix`")
        )
    if renderer.template in CHAT_TEMPLATES and not _keeps_reasoning(tokenizer):
        found.append(
            Finding(
                "chat history",
                WARN if several_turns else OK,
                "the chat template strips <think> from earlier assistant turns",
                "nothing to do for training (assistant text bypasses the template); in a chat the model sees no earlier reasoning",
            )
        )
    return found


def _turn_end(tokenizer: Any, renderer: PromptRenderer, end_id: int, stops: frozenset[int]) -> Finding:
    end = tokenizer.convert_ids_to_tokens(end_id)
    shown = turn_end(tokenizer) if renderer.template in CHAT_TEMPLATES else None
    if shown is None or shown in stops or shown == end_id:
        return Finding("end of turn", OK, f"completions end with `{end}`, and the loss covers it")
    name = tokenizer.convert_ids_to_tokens(shown)
    return Finding(
        "end of turn",
        WARN,
        f"the chat template ends a turn with `{name}`, sampling stops at `{end}`: a model that follows the template never stops",
        f"add {shown} to eos_token_id in generation_config.json",
    )


def turn_end(tokenizer: Any) -> int | None:
    """The special token that the chat template puts behind what an assistant says; None without a template or such a token."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    from jinja2.exceptions import TemplateError

    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": SAID}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False)
    except (TemplateError, KeyError, TypeError):  # the renderer says so where it matters
        return None
    behind = tokenizer(text.rpartition(SAID)[2], add_special_tokens=False)["input_ids"]
    special = {*tokenizer.all_special_ids, *(token for token, added in tokenizer.added_tokens_decoder.items() if added.special)}
    return next((token for token in behind if token in special), None)


def check_lessons(lessons: Sequence[tuple[list[int], list[int]]], texts: Sequence[str], end_id: int, think_prefix: str) -> list[Finding]:
    """Whether what is learnt ends once, and begins where the prompt stops.

    lessons: (prompt ids, completion ids) of assistant turns; texts: what the assistant wrote; think_prefix: what the prompt opens of it.
    """
    count = len(lessons)
    found = []
    early = sum(completion.index(end_id) < len(completion) - 1 for _, completion in lessons)
    if early:
        text = f"{early} of {count} answers hold the end-of-turn token in their text: the model would learn to stop there and to go on"
        found.append(Finding("early end", FAIL if 2 * early > count else WARN, text, "take it out of the rows; r1 adds it"))
    if think_prefix:
        twice = sum(text.lstrip().startswith(OPEN) and not text.startswith(think_prefix) for text in texts)
        none = sum(CLOSE not in text for text in texts)
        if twice:
            text = f"the prompt opens the reasoning with {think_prefix!r}, and {twice} of {count} answers open it again"
            found.append(Finding("reasoning twice", FAIL, text, f"begin these answers with {think_prefix!r}, or leave the tag out of them"))
        if none:
            text = f"the prompt opens the reasoning, and {none} of {count} answers never close it: the answer would be learnt as reasoning"
            fix = "leave these rows out, give them `</think>`, or take a template that opens nothing"
            found.append(Finding("no reasoning", FAIL if 2 * none > count else WARN, text, fix))
    return found or [Finding("answers", OK, f"{count} answers, each ends with one end-of-turn token that the loss covers")]


def check_padding(rows: Sequence[Sequence[Any]], pad_id: int) -> Finding:
    """Whether a batch of the shortest and the longest row learns all of their tokens and no padding, whatever the padding token is.

    rows: lists of `train.batches.Sample`.
    """
    from r1cli.train.batches import RowLayout, collate

    samples = sorted((sample for row in rows for sample in row), key=lambda sample: len(sample.completion_ids))
    pair = [samples[0], samples[-1]]
    batch = collate([RowLayout([], [sample]) for sample in pair], pad_id)
    wanted = [token for sample in batch.samples for token in sample.completion_ids]
    if batch.target_N.tolist() == wanted:
        return Finding("padding", OK, "padding is left out of the loss by position, and every end of turn is in it")
    return Finding(
        "padding", FAIL, "the loss covers padding, or misses tokens of the shortest and the longest row", "report this as a bug of r1"
    )


def context_of(config: Any) -> int | None:
    """Positions a model was made for, with a YaRN stretch that its configuration declares; None when it does not say."""
    text = getattr(config, "text_config", None) or config
    limit = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    if limit is not None and rope.get("rope_type", rope.get("type")) == "yarn" and rope.get("factor"):
        return max(limit, int(rope["factor"] * (rope.get("original_max_position_embeddings") or limit)))
    return limit


def _keeps_reasoning(tokenizer: Any) -> bool:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": PROBE}, {"role": "user", "content": "b"}]
    return "probe of the reasoning" in tokenizer.apply_chat_template(turns, tokenize=False)


def check_lengths(lengths: Sequence[int], max_prompt: int, max_completion: int, context_length: int | None) -> list[Finding]:
    """Prompt lengths in tokens against the limits and the model's context."""
    over = sum(length > max_prompt for length in lengths)
    text = f"{len(lengths)} prompts, {sum(lengths) / len(lengths):.0f} tokens on average, at most {max(lengths)}"
    found = [
        Finding("prompt length", WARN, f"{text}; {over} are longer than {max_prompt} and would be left out", "--max-prompt-length")
        if over
        else Finding("prompt length", OK, text)
    ]
    needed = min(max(lengths), max_prompt) + max_completion
    if context_length is not None and needed > context_length:
        found.append(
            Finding(
                "context",
                FAIL,
                f"prompt and completion need {needed} tokens, the model has {context_length}",
                "--max-completion-length or --max-prompt-length",
            )
        )
    return found


def check_golds(rows: Sequence[Row], timeout: float) -> list[Finding]:
    """Whether every gold answer can be compared with: one that cannot is scored 0 for every completion, right or wrong."""
    audit = audit_golds(rows, timeout=timeout)
    if audit.problems:
        fix = "mend these rows, take another column with --map answer=COLUMN, or set their `answer` to null"
        return [Finding("gold answers", FAIL, "; ".join(audit.lines()), fix)]
    note = f", {audit.null} declared null" if audit.null else ""
    return [Finding("gold answers", OK, f"all {audit.rows} can be compared with{note}; an answer that repeats its gold is scored 1")]


def rows_with_golds(specs: Sequence[RewardSpec], rows: Sequence[Row]) -> list[Row]:
    """The rows whose `answer` one of these rewards compares with."""
    comparing = [spec for spec in specs if spec.name in ("accuracy", "math")]
    return [row for row in rows if any(applies(spec.sets, row) for spec in comparing)]


def stop_or_warn(findings: Sequence[Finding], context: Context) -> None:
    """Say the warnings; raise `R1Error` (exit 2) with the first failure and its fix."""
    for finding in findings:
        if finding.level == WARN:
            context.console.warn(f"{finding.name}: {finding.text}")
    for finding in findings:
        if finding.level == FAIL:
            raise R1Error(f"{finding.name}: {finding.text}", hint=finding.fix, code=Exit.USAGE)
