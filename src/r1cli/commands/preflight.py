"""What can be known to be wrong before a GPU hour is spent: findings about a model's template and tokens, and about rows.

`r1 check` prints them all; `r1 grpo` and `r1 sft` stop at a failure and say the warnings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from r1cli.commands.template_probe import SAID, rendered, written_before
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.row import Row
from r1cli.text.conversation import opening_of
from r1cli.text.prompts import PromptRenderer
from r1cli.text.templates import CHAT_TEMPLATES, CLOSE, OPEN, opened

OK, WARN, FAIL = "ok", "warn", "fail"
CUT_FIX = "leave these rows out: r1 reject --filters truncated drops what was cut"
CLOSED_FIX = (
    "take another --template, such as r1-zero, or a chat template whose prompt ends with `<think>` or with no reasoning at all "
    "(chat_template.jinja in the model's folder)"
)
PROBE = "<think>\nprobe of the reasoning\n</think>\n\nprobe of the answer"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. level: ok, warn or fail; fix: what to do about it ("" when ok)."""

    name: str
    level: str
    text: str
    fix: str = ""


def check_model(
    tokenizer: Any,
    renderer: PromptRenderer,
    end_id: int,
    stops: frozenset[int] = frozenset(),
    *,
    several_turns: bool = True,
    sampled: bool = False,
) -> list[Finding]:
    """The prompt template and the end-of-turn token.

    stops: the tokens that end a completion when sampling (`engines.model_files.end_ids`). several_turns: whether rows show the model
    earlier assistant turns. sampled: what is learnt is the model's own, which writes whatever its template would.
    """
    end = tokenizer.convert_ids_to_tokens(end_id)
    found = [_turn_end(tokenizer, renderer, end_id, stops)]
    if renderer.template in CHAT_TEMPLATES:
        found += _turn_start(tokenizer, sampled)
    if sampled:
        found += check_closed(renderer)
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


def _turn_start(tokenizer: Any, sampled: bool) -> list[Finding]:
    """Whether an answer behind the prompt stands where the chat template would put it."""
    opening, rest = written_before(tokenizer)
    if not rest or (opening and sampled):
        return []
    if not opening:
        text = f"the chat template ends no prompt with {rest!r}, which it writes before what an assistant says: r1's answers lack it"
        return [Finding("start of turn", WARN, text, "let the template write it where `add_generation_prompt` is set")]
    text = f"the chat template writes {rest!r} between the prompt's {opening!r} and what an assistant says; SFT rows are learnt without it"
    return [Finding("start of turn", WARN, text, f"begin the answers with {rest!r}, as the model does; nothing to do if they do already")]


def check_closed(renderer: PromptRenderer) -> list[Finding]:
    """Whether the prompt leaves room for reasoning: none where it closes an empty one. Answers without reasoning are learnt as they are."""
    closed = renderer.closed_think
    if not closed:
        return []
    text = f"the prompt ends with {closed!r}: the template turns reasoning off, so completions have none of `format`'s form"
    return [Finding("reasoning", WARN, text, CLOSED_FIX)]


def turn_end(tokenizer: Any) -> int | None:
    """The special token that the chat template puts behind what an assistant says; None without a template or such a token."""
    text = rendered(tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": SAID}])
    behind = tokenizer(text.rpartition(SAID)[2], add_special_tokens=False)["input_ids"]
    special = {*tokenizer.all_special_ids, *(token for token, added in tokenizer.added_tokens_decoder.items() if added.special)}
    return next((token for token in behind if token in special), None)


def check_unused_tokens(tokenizer: Any, beyond: frozenset[int]) -> list[Finding]:
    """The tokens that the model has no embedding for (`train.model.check_vocabulary`), if any."""
    if not beyond:
        return []
    names = ", ".join(f"`{tokenizer.convert_ids_to_tokens(token)}`" for token in sorted(beyond)[:3]) + (", ..." if len(beyond) > 3 else "")
    text = f"the model's embedding has no row for {len(beyond)} special tokens of the tokenizer ({names})"
    return [Finding("vocabulary", WARN, text, "nothing to do, unless rows hold them")]


def check_lessons(
    lessons: Sequence[tuple[list[int], list[int]]],
    texts: Sequence[str],
    rows: Sequence[Row],
    end_id: int,
    think_prefix: str = "",
    closed_think: str = "",
) -> list[Finding]:
    """Whether what is learnt is finished, ends once, and begins where the prompt stops. What few answers do is a warning.

    lessons: (prompt ids, completion ids) of assistant turns; texts: what the assistant wrote; rows: the row of each turn; think_prefix:
    what the prompt opens of it; closed_think: the reasoning that the prompt has closed already.
    """
    whole = list({id(row): row for row in rows}.values())
    cut = [row.get("finish_reason") == "length" for row in whole]  # rows that do not say are taken as finished
    early = [completion.index(end_id) < len(completion) - 1 for _, completion in lessons]
    empty = [not text.removeprefix(think_prefix).strip() for text in texts]
    found = [
        *_share(cut, whole, "cut off", "rows were cut at the length limit, and would be learnt as finished", CUT_FIX),
        *_share(
            early,
            rows,
            "early end",
            "answers hold the end-of-turn token in their text: the model would learn to stop there and to go on",
            "take it out of the rows; r1 adds it",
        ),
        *_share(empty, rows, "empty answer", "answers are empty: the model would learn to end its turn at once", "leave these rows out"),
        *_reasoning(texts, rows, think_prefix, closed_think),
    ]
    return found or [Finding("answers", OK, f"{len(lessons)} answers, each ends with one end-of-turn token that the loss covers")]


def _reasoning(texts: Sequence[str], rows: Sequence[Row], think_prefix: str, closed_think: str) -> list[Finding]:
    """Whether answers open reasoning that the prompt has opened or closed, and close what is open."""
    opens = [text.lstrip().startswith(OPEN) for text in texts]
    if not think_prefix:
        alone = [_only_closes(text, row) for text, row in zip(texts, rows, strict=True)]
        never = [opening and CLOSE not in text for opening, text in zip(opens, texts, strict=True)]
        found = _share(
            never, rows, "open reasoning", "answers never close <think>: the model would learn to stop while it reasons", CUT_FIX
        )
        if closed_think and any(opens):  # wrong for every answer that reasons, however few they are
            text = f"answers open reasoning behind a prompt that ends with {closed_think!r}: the template turns reasoning off"
            found += _share(opens, rows, "reasoning twice", text, CLOSED_FIX, level=FAIL)
        text = "answers close reasoning that nothing opens: the model would learn to reason without the opening tag"
        fix = "put `<think>` in front of these answers, or what the prompt had opened into the field `think_prefix`"
        return found + _share(alone, rows, "reasoning without <think>", text, fix, level=WARN)  # no failure: a text may speak of the tag
    already = [(think_prefix, opening_of(row) or think_prefix) for row in rows]  # what training takes off
    twice = [opening and not text.startswith(prefixes) for opening, text, prefixes in zip(opens, texts, already, strict=True)]
    again = f"answers open the reasoning again that the prompt opens with {think_prefix!r}"
    none = "answers never close the reasoning that the prompt opens: the answer would be learnt as reasoning"
    fix = "leave these rows out, give them `</think>`, or take a template that opens nothing"
    return [
        *_share(twice, rows, "reasoning twice", again, f"begin these answers with {think_prefix!r}, or leave the tag out of them"),
        *_share([CLOSE not in text for text in texts], rows, "no reasoning", none, fix),
    ]


def _only_closes(text: str, row: Row) -> bool:
    """Whether an answer has `</think>` with no `<think>` before it, in itself or open in its row's own prompt."""
    before, closing, _ = text.partition(CLOSE)
    return bool(closing) and OPEN not in before and not (isinstance(row.get("prompt"), str) and opened(row["prompt"]))


def _share(hits: Sequence[bool], rows: Sequence[Row], name: str, text: str, fix: str, *, level: str = "") -> list[Finding]:
    """The finding about the rows that `hits` marks, none without a hit. level: by default a failure above half of them, else a warning."""
    hit = [row for row, is_hit in zip(rows, hits, strict=True) if is_hit]
    if not hit:
        return []
    level = level or (FAIL if 2 * len(hit) > len(rows) else WARN)
    return [Finding(name, level, f"{len(hit)} of {len(rows)} {text} ({places(hit)})", fix)]


def places(rows: Sequence[Row], most: int = 3) -> str:
    """Where the first of these rows stand, each named once: "a.jsonl:3, a.jsonl:7, a.jsonl:9, ..."; by id where a row has no place."""
    names = list(dict.fromkeys(row.where or f"row `{row.get('id')}`" for row in rows))
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def check_padding(rows: Sequence[Sequence[Any]], pad_id: int) -> Finding:
    """Whether a batch of the shortest and the longest row learns all of their tokens and no padding, whatever the padding token is.

    rows: lists of `train.batches.Sample`.
    """
    from r1cli.train.batches import RowLayout, collate

    pair = [of((sample for row in rows for sample in row), key=lambda sample: len(sample.completion_ids)) for of in (min, max)]
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
    text = rendered(tokenizer, turns)
    return not text or "probe of the reasoning" in text  # one that takes no second turn strips nothing


def check_lengths(
    lengths: Sequence[int], max_prompt: int, max_completion: int, context_length: int | None, rows: Sequence[Row] = ()
) -> list[Finding]:
    """Prompt lengths in tokens against the limits and the model's context. rows: those of the prompts, to name the long ones."""
    over = sum(length > max_prompt for length in lengths)
    named = f" ({places([row for row, length in zip(rows, lengths, strict=True) if length > max_prompt])})" if over and rows else ""
    text = f"{len(lengths)} prompts, {sum(lengths) / len(lengths):.0f} tokens on average, at most {max(lengths)}"
    found = [
        Finding("prompt length", WARN, f"{text}; {over} are longer than {max_prompt} and would be left out{named}", "--max-prompt-length")
        if over
        else Finding("prompt length", OK, text)
    ]
    needed = max((length for length in lengths if length <= max_prompt), default=0) + max_completion
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


def stop_or_warn(findings: Sequence[Finding], context: Context) -> None:
    """Say the warnings, each with its fix; raise `R1Error` (exit 2) with the first failure and its fix."""
    for finding in findings:
        if finding.level == WARN:
            context.console.warn(f"{finding.name}: {finding.text}" + (f" (fix: {finding.fix})" if finding.fix else ""))
    for finding in findings:
        if finding.level == FAIL:
            raise R1Error(f"{finding.name}: {finding.text}", hint=finding.fix, code=Exit.USAGE)
