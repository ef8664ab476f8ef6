"""A model as the judge of `r1 reject`: the command's settings become a sampler, and the sampler a callable that answers prompt rows."""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from types import SimpleNamespace

from r1cli.commands.sampling import open_sampler
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.row import Row
from r1cli.settings import RejectSettings
from r1cli.steps import condition
from r1cli.steps.judge import Judge


def check_judge(settings: RejectSettings, sources: dict[str, str]) -> None:
    """Refuse flags of the judge that do nothing, before anything is loaded. Raises `R1Error` (exit 2)."""
    if settings.judge_when is not None:
        condition.parse(settings.judge_when)
    if settings.judge is None:
        for name in ("judge_when", "judge_margin", "judge_temperature", "judge_length"):
            if sources.get(name) in ("flag", "env"):
                raise R1Error(f"--{name.replace('_', '-')} does nothing without --judge", hint="--judge MODEL", code=Exit.USAGE)
    elif settings.pairs and settings.judge_when is not None:
        raise R1Error("--judge-when chooses rows to grade, and with --pairs the judge compares pairs", hint="leave one of them out",
                      code=Exit.USAGE)


@contextmanager
def open_judge(settings: RejectSettings, context: Context) -> Iterator[Judge | None]:
    """The judge, loaded; None without `--judge`."""
    if settings.judge is None:
        yield None
        return
    wants = None if settings.judge_when is None else condition.parse(settings.judge_when)
    with open_sampler(_sampling(settings), context, model=settings.judge) as sampler:

        def ask(questions: Iterable[Row]) -> Iterator[Row]:
            with closing(sampler.draw(questions, samples=1, seed=settings.seed)) as drawn:
                for each in drawn:
                    yield each.row

        yield Judge(ask, fits=sampler.fits, wants=wants)


def _sampling(settings: RejectSettings) -> SimpleNamespace:
    """The command's settings as those of a sampler."""
    shared = {name: getattr(settings, name) for name in settings.__dataclass_fields__}
    return SimpleNamespace(**shared, template="chat", system=None, think_prefix=False, temperature=settings.judge_temperature,
                           max_completion_length=settings.judge_length, stop=[])
