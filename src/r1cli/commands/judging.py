"""A model as the judge of `r1 reject`: the command's settings become a sampler, and the sampler a callable that answers prompt rows."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from types import SimpleNamespace
from typing import Any

from r1cli.commands.preference import rule_rewards
from r1cli.commands.sampling import Sampler, at_address, open_sampler, resolve_model
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.row import Row
from r1cli.settings import EvalSettings, RejectSettings
from r1cli.steps import condition
from r1cli.steps.judge import Judge

REFUSAL = "refusal"


def check_judge(settings: RejectSettings, sources: dict[str, str]) -> None:
    """Refuse flags of the judge that do nothing, before anything is loaded. Raises `R1Error` (exit 2)."""
    if settings.judge_when is not None:
        condition.parse(settings.judge_when)
    if settings.judge is None:
        for name in ("judge_when", "judge_margin", "judge_temperature", "judge_length"):
            if sources.get(name) in ("flag", "env"):
                raise R1Error(f"--{name.replace('_', '-')} does nothing without --judge", hint="--judge MODEL", code=Exit.USAGE)
        return
    if settings.pairs and settings.judge_when is not None:
        raise R1Error(
            "--judge-when chooses rows to grade, and with --pairs the judge compares pairs", hint="leave one of them out", code=Exit.USAGE
        )
    asked, model = at_address(settings, settings.judge)
    resolve_model(model, asked, lambda _: None)


@contextmanager
def open_judge(settings: RejectSettings | EvalSettings, context: Context) -> Iterator[Judge | None]:
    """The judge, loaded; None without `--judge`."""
    if settings.judge is None:
        yield None
        return
    when = getattr(settings, "judge_when", None)
    wants = None if when is None else condition.parse(when)
    sampling, model = _sampling(settings)
    with open_sampler(sampling, context, model=model) as sampler:
        yield Judge(lambda questions, unanswered: _replies(sampler, questions, unanswered, settings.seed), wants=wants)


def _replies(sampler: Sampler, questions: Iterable[Row], unanswered: Callable[[Row], None], seed: int) -> Iterator[Row]:
    tasks = ((question, [0]) for question in questions)
    with closing(sampler.draw_tasks(tasks, seed=seed, on_none=lambda question, _: unanswered(question))) as drawn:
        for each in drawn:
            yield each.row


def check_refusal_judge(settings: EvalSettings, sources: Mapping[str, str]) -> None:
    """The same for `r1 eval`, where a judge is for the refusal reward, and cannot be beside a model that is sampled here."""
    if settings.judge is None:
        for name in ("judge_temperature", "judge_length"):
            if sources.get(name) in ("flag", "env"):
                raise R1Error(f"--{name.replace('_', '-')} does nothing without --judge", hint="--judge MODEL", code=Exit.USAGE)
        return
    if REFUSAL not in (spec.name for spec in rule_rewards(settings)):
        raise R1Error("--judge tells refusals apart, and --rewards does not name `refusal`", hint="--rewards refusal", code=Exit.USAGE)
    if settings.model is not None:
        raise R1Error(
            "--judge and --model are two models, and one command samples from one of them",
            hint="r1 sample -m MODEL rows.jsonl -o drawn.jsonl, then r1 eval --rewards refusal --judge JUDGE drawn.jsonl",
            code=Exit.USAGE,
        )
    asked, model = at_address(settings, settings.judge)
    resolve_model(model, asked, lambda _: None)


def _sampling(settings: RejectSettings | EvalSettings) -> tuple[SimpleNamespace, str]:
    """The command's settings as those of a sampler, and its model."""
    asked, model = at_address(settings, settings.judge or "")
    shared = {name: getattr(asked, name) for name in asked.__dataclass_fields__}
    own: dict[str, Any] = {
        "template": "chat",
        "system": None,
        "think_prefix": False,
        "temperature": settings.judge_temperature,
        "top_p": 1.0,
        "top_k": 0,
        "max_completion_length": settings.judge_length,
        "stop": [],
    }
    return SimpleNamespace(**{**shared, **own}), model
