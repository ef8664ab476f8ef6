"""Preference rows as token sequences, for `r1 rm`: the template, the view, and what is left out and why."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from r1cli.commands.preflight import OK, WARN, Finding
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.model_folder import load_tokenizer
from r1cli.rm_settings import RmSettings
from r1cli.steps.pairs import uneven
from r1cli.text.preferences import Judged, Reply
from r1cli.text.reply import ReplyRenderer
from r1cli.train.preference import Example
from r1cli.train.reward_model import scored_ids

RAW = "{% for message in messages %}{{ message['content'] }}{% endfor %}{{ eos_token }}"
UNBALANCED = "to balance the lengths of chosen and rejected"
SHORTEN = "shorten them, or take a model with a longer context"
EQUAL, NO_SUMMARY = "both sides are equal", "a reply has no summary: its reasoning does not end, or nothing follows it"

FIXES = {EQUAL: "a pair needs two different replies", NO_SUMMARY: "--view full", UNBALANCED: "leave out --balance-lengths"}
"""What is to be done when a reason leaves nothing; any other reason is a row's length."""


@dataclass(slots=True)
class Prepared:
    """The rows that can be used, their sequences, the tokens of their replies; rows left out by reason, and the first of each."""

    rows: list[Judged] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    lengths: list[tuple[int, ...]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def balance(self) -> None:
        """Leave out pairs until the replies' mean lengths are even."""
        gone = uneven([(chosen, rejected) for chosen, rejected in self.lengths])
        for place in sorted(gone):
            self.leave_out(self.rows[place], UNBALANCED)
        kept = [place for place in range(len(self.rows)) if place not in gone]
        self.rows = [self.rows[place] for place in kept]
        self.examples = [self.examples[place] for place in kept]
        self.lengths = [self.lengths[place] for place in kept]

    def leave_out(self, row: Judged, reason: str) -> None:
        self.left_out[reason] += 1
        self.first.setdefault(reason, f"`{row.row.get('id')}`")


def scoring_tokenizer(tokenizer: Any, template: str, folder: str) -> Any:
    """The tokenizer as the reward model will carry it: with a padding token, and with the template it was trained with.

    Whoever scores with the model renders conversations with that template; `raw` is written as one.
    """
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise R1Error(
            f"the tokenizer of `{folder}` has neither a padding nor an end-of-sequence token",
            hint="set pad_token in its tokenizer_config.json",
            code=Exit.USAGE,
        )
    if template == "raw":
        bos = tokenizer.bos_token_id
        begins = bos is not None and list(tokenizer("a")["input_ids"])[:1] == [bos]
        tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + RAW
    elif not getattr(tokenizer, "chat_template", None):
        raise R1Error(
            f"the tokenizer of `{folder}` has no chat template",
            hint="--template raw puts prompt and completion together as they are",
            code=Exit.USAGE,
        )
    return tokenizer


def prepared(
    rows: Sequence[Judged], settings: RmSettings, tokenizer: Any, folder: str, *, balance: bool = False, held_out: bool = False
) -> Prepared:
    """Rows as examples. A row is used whole or not at all: nothing is cut. Raises `R1Error` (exit 2) when nothing is left.

    balance: leave out pairs until the mean lengths of chosen and rejected are even (`steps.pairs.uneven`). held_out: they are measured by.
    """
    renderer = ReplyRenderer(tokenizer, name=f"`{folder}`")
    limit, name = _limit(settings, folder)
    found = Prepared()
    for row in rows:
        texts = [_text(reply, settings, tokenizer) for reply in row.replies]
        if row.is_pair and texts[0] == texts[1] and row.replies[0].prompt == row.replies[1].prompt:
            found.leave_out(row, EQUAL)
            continue
        if settings.view == "summary" and not all(texts):
            found.leave_out(row, NO_SUMMARY)
            continue
        sides = [renderer.ids(reply.prompt or "", text) for reply, text in zip(row.replies, texts, strict=True)]
        if max(map(len, sides)) > limit:
            found.leave_out(row, f"longer than {name}")
            continue
        found.rows.append(row)
        found.examples.append(Example(tuple(scored_ids(side, tokenizer.pad_token_id) for side in sides), row.target))
        found.lengths.append(tuple(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts))
    if balance:
        found.balance()
    if not found.examples:
        reasons = "; ".join(f"{count} left out: {reason}" for reason, count in found.left_out.items())
        hint = "; ".join(FIXES.get(reason, "raise --max-length" if limit == settings.max_length else SHORTEN) for reason in found.left_out)
        what, other = ("held-out rows", "; or another --held-out") if held_out else ("rows", "")
        raise R1Error(f"no {what} to use: {len(rows)} read, {reasons}", hint=hint + other, code=Exit.USAGE)
    return found


def _text(reply: Reply, settings: RmSettings, tokenizer: Any) -> str:
    text = reply.summary() if settings.view == "summary" else reply.text
    return text.removesuffix(tokenizer.eos_token) if settings.template == "raw" and tokenizer.eos_token else text


def _limit(settings: RmSettings, folder: str) -> tuple[int, str]:
    """(most tokens of a sequence, what says so): --max-length, or the model's context when that is shorter."""
    context = _context_length(folder, settings.trust_remote_code)
    if context is not None and context < settings.max_length:
        return context, f"the model's context of {context} tokens"
    return settings.max_length, f"--max-length {settings.max_length} tokens"


def _context_length(folder: str, trust_remote_code: bool) -> int | None:
    from transformers import AutoConfig

    return getattr(AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code), "max_position_embeddings", None)


def check_scoring(rows: Sequence[Judged], folder: str, template: str, trust_remote_code: bool, most: int) -> list[Finding]:
    """Findings of `r1 check` about preference rows under a model's template: where the score is read, and lengths against the context and
    --max-length (`most`)."""
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    shared = tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token
    tokenizer = scoring_tokenizer(tokenizer, template, folder)
    renderer = ReplyRenderer(tokenizer, name=f"`{folder}`")
    note = "; it ends sequences too, so the score is read at the last other token" if shared else ""
    found = [Finding("padding", OK, f"the padding token is `{tokenizer.pad_token}`{note}")]
    lengths = [max(len(renderer.ids(reply.prompt or "", reply.text)) for reply in row.replies) for row in rows]
    text = f"prompt and completion have {sum(lengths) / len(lengths):.0f} tokens on average, at most {max(lengths)}"
    context = _context_length(folder, trust_remote_code)
    limit = most if context is None else min(most, context)
    over = sum(length > limit for length in lengths)
    if over:
        what = f"--max-length {most}" if limit < (context or most + 1) else f"the model's context of {context}"
        long = f"{text}; {over} rows are longer than {what} and would be left out"
        fix = "raise --max-length" if limit < (context or most + 1) else SHORTEN
        return [*found, Finding("length", WARN, long, fix)]
    return [*found, Finding("length", OK, text)]


def say_left_out(found: Prepared, context: Context, what: str = "") -> None:
    """One warning a reason."""
    for reason, count in found.left_out.items():
        context.console.warn(f"{count} {what}rows left out: {reason} (the first: {found.first[reason]})")
