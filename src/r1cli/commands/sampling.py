"""Rows in, completions out: what `sample`, `eval`, `distill` and `grpo` share of drawing from a model.

    with open_sampler(settings, context, model=folder) as sampler:
        for drawn in sampler.draw(rows, samples=4, seed=0): ...        # in the order in which completions end

Rendering happens here and nowhere else, so that the tokens a trainer learns on are those the engine saw. Nothing is left out in silence:
a prompt without room for its completion is counted in `too_long` and named in a warning.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from time import monotonic
from typing import Any

from r1cli.engines.protocol import Completion, Engine, Request, SamplingParams
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.hub import model_folder
from r1cli.row import Row, require, seed_of
from r1cli.text.choices import shuffled
from r1cli.text.prompts import PromptRenderer, check_template

Pair = tuple[Any, int]  # (id, sample)
STALE = ("rewards", "reward", "think_prefix")  # of an earlier completion of the row


@dataclass(frozen=True, slots=True)
class Drawn:
    """One completion with all a trainer needs of it.

    row:        the completion row, as `r1 sample` writes it
    number:     place of its prompt row in what was given to `draw`, from 0
    prompt_ids, token_ids: the tokens the engine saw and drew, the end token included
    logprobs:   of the drawn tokens, by the sampler; None unless asked for
    """

    row: Row
    number: int
    prompt_ids: list[int]
    token_ids: list[int]
    logprobs: list[float] | None


@dataclass
class Totals:
    """What was drawn so far; the clock starts when the model is ready."""

    rows: int = 0
    tokens: int = 0
    engine: str = ""
    cut: int = 0  # finish_reason "length"
    too_long: int = 0  # prompts left out
    started: float = field(default_factory=monotonic)
    latest: float = field(default_factory=monotonic)

    def add(self, row: Row) -> None:
        """Count one completion row."""
        self.latest = monotonic()
        self.rows += 1
        self.tokens += row["num_tokens"]
        self.cut += row["finish_reason"] == "length"

    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / max(1e-9, self.latest - self.started)


class Sampler:
    """An engine with a way to render prompts and a way to sample. `too_long`: prompts left out so far because they do not fit."""

    def __init__(self, engine: Engine, renderer: PromptRenderer, params: SamplingParams, *, model: str) -> None:
        self.engine = engine
        self.renderer = renderer
        self.params = params
        self.too_long = 0
        self._model = model

    def draw(
        self,
        rows: Iterable[Row],
        *,
        samples: int,
        seed: int,
        skip: frozenset[Pair] = frozenset(),
        on_bad: Callable[[R1Error], None] | None = None,
    ) -> Generator[Drawn, None, None]:
        """`samples` completions of each row, in the order in which they end; rows are read only a little further than they are used.

        seed:   with the row's id and the number of the sample it makes the seed of each completion, whatever else is drawn beside it
        skip:   pairs `(id, sample)` that are there already
        on_bad: receives the error of a row that cannot be rendered, which is then left out; without it the error is raised
        """
        waiting: dict[tuple[int, int], tuple[Row, list[int], int]] = {}

        def requests() -> Iterator[Request]:
            for number, row in enumerate(rows):
                wanted = [sample for sample in range(samples) if (row["id"], sample) not in skip]
                prompt_ids = self._prompt_ids(row, on_bad) if wanted else None
                if prompt_ids is None:
                    continue
                for sample in wanted:
                    request = Request((number, sample), prompt_ids, seed_of(seed, row["id"], sample))
                    waiting[request.key] = row, prompt_ids, request.seed
                    yield request

        with closing(self.engine.sample(requests(), self.params)) as completions:  # whatever ends the caller also aborts what runs
            for completion in completions:
                row, prompt_ids, row_seed = waiting.pop(completion.key)
                number, sample = completion.key
                drawn = self._completed(row, sample, row_seed, completion)
                yield Drawn(drawn, number, prompt_ids, completion.token_ids, completion.logprobs)

    def _prompt_ids(self, row: Row, on_bad: Callable[[R1Error], None] | None) -> list[int] | None:
        try:
            ids = self.renderer.ids(require(row, "prompt", str, list))
            if not ids:
                raise R1Error("the prompt is empty", hint="mend the row", code=Exit.USAGE)
        except R1Error as error:
            named = error if f"`{row['id']}`" in error.message else _of_row(row, error)
            if on_bad is None:
                raise named from None
            on_bad(named)
            return None
        if len(ids) + self.params.max_tokens > self.engine.max_model_len:
            self.too_long += 1
            return None
        return ids

    def _completed(self, row: Row, sample: int, seed: int, completion: Completion) -> Row:
        fields = {name: value for name, value in row.items() if name not in STALE}
        fields |= {
            "sample": sample,
            "completion": completion.text,
            "finish_reason": completion.finish_reason,
            "num_tokens": len(completion.token_ids),
            "model": self._model,
            "seed": seed,
        }
        if self.renderer.think_prefix:
            fields["think_prefix"] = self.renderer.think_prefix
        return Row(fields, where=row.where)

    def room(self) -> int:
        """Most tokens a prompt may have."""
        return self.engine.max_model_len - self.params.max_tokens

    def warning(self) -> str | None:
        """What to say about prompts that were left out; None when there are none."""
        if not self.too_long:
            return None
        return (
            f"{self.too_long} prompts left out: longer than the {max(0, self.room())} tokens that --max-completion-length "
            f"{self.params.max_tokens} leaves of {self.engine.max_model_len}"
        )


def check_sampling(settings: Any, sources: Mapping[str, str]) -> None:
    """Refuse flags that contradict each other, before anything is loaded. Raises `R1Error` (exit 2)."""
    check_template(settings.template, settings.system)
    if settings.temperature > 0:
        return
    if settings.samples > 1:
        raise R1Error(
            f"--samples {settings.samples} with --temperature 0 would draw the same completion {settings.samples} times",
            hint="--samples 1, or a temperature above 0 (R1 is evaluated at 0.6)",
            code=Exit.USAGE,
        )
    for name, off in (("top_p", 1.0), ("top_k", 0)):
        if getattr(settings, name) != off and sources.get(name) in ("flag", "env"):
            raise R1Error(f"--{name.replace('_', '-')} does nothing with --temperature 0", hint="leave one of them out", code=Exit.USAGE)


@contextmanager
def open_sampler(settings: Any, context: Context, *, model: str, logprobs: bool = False) -> Iterator[Sampler]:
    """Load `model` and what is around it by the command's settings (engine, prompt and sampling flags), and free it at a regular end.

    settings: any with the flags of `EngineSettings` and `PromptSettings`, and how to sample; top_p and top_k are off where there are none
    """
    from r1cli.engines.load import load_engine

    folder = model_folder(model, settings.trust_remote_code, say=context.console.info)
    params = SamplingParams(
        max_tokens=settings.max_completion_length,
        temperature=settings.temperature,
        top_p=getattr(settings, "top_p", 1.0),
        top_k=getattr(settings, "top_k", 0),
        stop=tuple(settings.stop),
        logprobs=logprobs,
    )
    context.console.detail(f"loading `{folder}`")
    engine = load_engine(
        folder,
        engine=settings.engine,
        dtype=settings.dtype,
        max_model_len=settings.max_model_len,
        batch_size=settings.batch_size,
        gpu_memory=settings.gpu_memory,
        kv_cache_gib=settings.kv_cache_gib,
        seed=settings.seed,
        trust_remote_code=settings.trust_remote_code,
        logprobs=logprobs,
        verbose=settings.verbose,
        say=context.console.warn,
    )
    yield _sampler(engine, settings, params, model)
    engine.close()  # only here: after an error or Ctrl-C the process ends, and freeing the model first would keep the user waiting


def _sampler(engine: Engine, settings: Any, params: SamplingParams, model: str) -> Sampler:
    renderer = PromptRenderer(engine.tokenizer, template=settings.template, system=settings.system, think_prefix=settings.think_prefix)
    sampler = Sampler(engine, renderer, params, model=model)
    if sampler.room() < 1:
        raise R1Error(
            f"--max-completion-length {params.max_tokens} leaves no room for a prompt in {engine.max_model_len} tokens",
            hint=f"--max-completion-length {engine.max_model_len // 2}",
            code=Exit.USAGE,
        )
    return sampler


def draw(
    rows: Iterable[Row],
    settings: Any,
    context: Context,
    *,
    model: str | None = None,
    skip: frozenset[Pair] = frozenset(),
    on_bad: Callable[[R1Error], None] | None = None,
    totals: Totals | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> Generator[Row, None, None]:
    """Completion rows of prompt rows, in the order in which they end.

    The model (`settings.model` by default) is loaded when the first row that needs it is there, and freed at the end: no rows, or none
    that are missing, load nothing. `totals` is filled on the way, `on_ready` is called once the model is loaded; the other arguments
    are those of `Sampler.draw`.
    """
    check_sampling(settings, context.sources)
    totals = totals if totals is not None else Totals()
    if getattr(settings, "shuffle_choices", False):
        rows = _shuffled_choices(rows, settings.seed, on_bad)
    wanted = (row for row in rows if any((row["id"], sample) not in skip for sample in range(settings.samples)))
    first = next(wanted, None)
    if first is None:
        return
    if on_bad is None:
        require(first, "prompt", str, list)  # the wrong column: better said now than when the model is loaded
    with open_sampler(settings, context, model=model or settings.model) as sampler:
        totals.started, totals.engine = monotonic(), sampler.engine.name
        on_ready()
        draws = sampler.draw(chain([first], wanted), samples=settings.samples, seed=settings.seed, skip=skip, on_bad=on_bad)
        try:
            with closing(draws):
                for drawn in draws:
                    totals.add(drawn.row)
                    yield drawn.row
        finally:
            totals.too_long = sampler.too_long
            if (warning := sampler.warning()) is not None:
                context.console.warn(warning)


def _shuffled_choices(rows: Iterable[Row], seed: int, on_bad: Callable[[R1Error], None] | None) -> Iterator[Row]:
    for row in rows:
        if not row.get("choices") or row.get("answer") is None:
            yield row
            continue
        try:
            changed = shuffled(row, seed)
        except R1Error as error:
            if on_bad is None:
                raise
            on_bad(error)
            continue
        yield changed


def _of_row(row: Row, error: R1Error) -> R1Error:
    name = f"{row.where}: " if row.where else ""
    return R1Error(f"{name}row `{row['id']}`: {error.message}", hint=error.hint, code=error.code)
