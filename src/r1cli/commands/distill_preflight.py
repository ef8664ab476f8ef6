"""What `r1 distill` looks at before the teacher is asked for anything, with the checks of the commands that it is made of: the rewards
(`r1 reject`), the rows (`r1 grpo`), the student (`r1 sft`) and the held-out problems (`r1 eval`). A dry run looks at the same."""

import dataclasses
from collections.abc import Sequence

from r1cli.commands.before_run import check_asked
from r1cli.commands.preference import check_sets
from r1cli.commands.preflight import CLOSED_FIX, FAIL, WARN, Finding, check_closed, stop_or_warn
from r1cli.commands.row_check import check_rows
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.rewards.registry import parse_specs
from r1cli.rewards.reward import RewardSpec
from r1cli.row import Row
from r1cli.settings import DistillSettings
from r1cli.steps.keep import judge_of
from r1cli.text.prompts import PromptRenderer

KEEPING = (
    "add a reward that tells right from wrong, such as accuracy; by a condition of yours: r1 sample, r1 reject --keep CONDITION, r1 sft"
)


def rewards_of(settings: DistillSettings) -> list[RewardSpec]:
    """`--rewards`. Raises `R1Error` (exit 2) for what cannot be read."""
    return parse_specs(settings.rewards, level=settings.sandbox_level, unsafe=settings.unsafe)


def check_keeping(specs: Sequence[RewardSpec]) -> None:
    """Refuse (`R1Error`, exit 2) rewards that do not tell which traces pass: the flags alone say so."""
    try:
        judge_of("passing", specs)
    except R1Error as error:  # its own way out is a flag of `r1 reject`
        raise R1Error(error.message, hint=KEEPING, code=error.code) from None


def check_student(settings: DistillSettings, context: Context, folder: str) -> None:
    """Refuse (`R1Error`, exit 2) a student that could not learn any trace; say of its template what is known without one."""
    from r1cli.commands.sft_lessons import learner_of
    from r1cli.engines.model_files import refuse_classifier
    from r1cli.engines.precision import resolve_dtype
    from r1cli.train.model import check_weights

    refuse_classifier(folder)
    resolve_dtype(settings.dtype)
    learner = learner_of(settings, folder)
    check_weights(folder)
    stop_or_warn(_closed(settings, learner.renderer), context)


def _closed(settings: DistillSettings, renderer: PromptRenderer) -> list[Finding]:
    """About a template that closes the reasoning: a failure where what passes has reasoning, as `checked` would say of the traces."""
    found = check_closed(renderer)
    reasons = any(spec.source == "format" and spec.options["think"] == "think" and not spec.sets for spec in rewards_of(settings))
    if not found or not reasons or settings.plain is not None:
        return found
    closed = renderer.closed_think
    text = f"what passes `format` opens reasoning behind a prompt that ends with {closed!r}: the template turns reasoning off"
    return [Finding("reasoning twice", FAIL, text, CLOSED_FIX)]


def no_rows() -> R1Error:
    return R1Error("no rows: the input is empty", hint='give prompt rows: {"prompt": ..., "answer": ...}', code=Exit.USAGE)


def check_prompts(settings: DistillSettings, context: Context, rows: Sequence[Row], *, drawn: bool = False) -> None:
    """Refuse (`R1Error`, exit 2) rows whose traces could not be judged, or none at all.

    drawn: what is drawn is drawn, and a gold that cannot be read only costs the traces of its prompt: that is said. So are rows that
    --skip-bad leaves out when they are scored.
    """
    if not rows:
        raise no_rows()
    specs = rewards_of(settings)
    check_sets(specs, rows)
    check_asked(specs, rows)
    found = check_rows(specs, rows, settings.reward_timeout)
    golds = _left_out(found.golds) if drawn else found.golds
    stop_or_warn([*golds, *(_left_out(found.fields) if settings.skip_bad else found.fields)], context)


def check_problems(settings: DistillSettings, context: Context, problems: Sequence[Row]) -> None:
    """Refuse (`R1Error`, exit 2) rows of --eval that the student could not be scored on.

    A run that is resumed keeps its golds, which decide what is learnt too: those that cannot be read are said.
    """
    specs = rewards_of(settings)
    check_asked(specs, problems)
    found = check_rows(specs, problems, settings.reward_timeout, f"--eval {settings.eval}")
    stop_or_warn([*(_left_out(found.golds) if settings.resume else found.golds), *found.fields], context)


def _left_out(findings: Sequence[Finding]) -> list[Finding]:
    return [dataclasses.replace(finding, level=WARN) if finding.level == FAIL else finding for finding in findings]
