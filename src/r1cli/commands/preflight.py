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

OK, WARN, FAIL = "ok", "warn", "fail"
PROBE = "<think>\nprobe of the reasoning\n</think>\n\nprobe of the answer"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. level: ok, warn or fail; fix: what to do about it ("" when ok)."""

    name: str
    level: str
    text: str
    fix: str = ""


def check_model(tokenizer: Any, renderer: PromptRenderer, end_id: int) -> list[Finding]:
    """The prompt template and the end-of-turn token."""
    end = tokenizer.convert_ids_to_tokens(end_id)
    found = [Finding("end of turn", OK, f"completions end with `{end}`, and the loss covers it")]
    if tokenizer.pad_token_id == end_id:
        found.append(
            Finding("padding", OK, f"the padding token is `{end}` too; padding is left out by position, so the end is still learnt")
        )
    if renderer.think_prefix:
        found.append(
            Finding("reasoning", OK, f"the prompt opens the reasoning ({renderer.think_prefix!r}); rewards know it from `think_prefix`")
        )
    if renderer.template in ("chat", "boxed") and not _keeps_reasoning(tokenizer):
        found.append(
            Finding(
                "chat history",
                WARN,
                "the chat template strips <think> from earlier assistant turns",
                "nothing to do for training (assistant text bypasses the template); in a chat the model sees no earlier reasoning",
            )
        )
    return found


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
