"""From a command's settings to completions: which engine, which prompts, which parameters. The rows are made in `sampler.py`.

with open_sampler(settings, context, model=folder) as sampler:
    for drawn in sampler.draw(rows, samples=4, seed=0): ...        # in the order in which completions end
for row in draw(rows, settings, context): ...                      # the same as rows; loads the model for the first of them
"""

import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from r1cli.commands.few_shot import read_examples
from r1cli.commands.sampler import Drawn, Pair, Sampler, Task, Totals, missing
from r1cli.engines.protocol import Engine, SamplingParams
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.hub import model_folder
from r1cli.model_folder import fingerprint
from r1cli.row import Row, require
from r1cli.text.choices import shuffled
from r1cli.text.prompts import PromptRenderer, WordRenderer
from r1cli.text.templates import check_template

__all__ = [
    "Drawn",
    "Pair",
    "Sampler",
    "Totals",
    "at_address",
    "check_sampling",
    "draw",
    "draw_tasks",
    "open_sampler",
    "resolve_model",
    "uses_server",
]

ALONE, BESIDE_A_TRAINER = 0.9, 0.3  # shares of a GPU that vLLM takes where nobody says


def uses_server(settings: Any) -> bool:
    """Whether completions come from servers."""
    return settings.engine == "server" or (settings.engine == "auto" and bool(settings.url))


def resolve_model(model: str, settings: Any, say: Callable[[str], None]) -> str:
    """The folder of a model; for servers a name that is no folder stays what the servers call it."""
    if uses_server(settings) and (not model or not Path(model).expanduser().is_dir()):
        return model
    return model_folder(model, settings.trust_remote_code, say=say)


S = TypeVar("S")


def at_address(settings: S, model: str) -> tuple[S, str]:
    """(settings, model) for a model that may be named by its server's address: what that server serves, whatever it calls it."""
    if not model.startswith(("http://", "https://")):
        return settings, model
    values: Any = settings
    if values.url:
        raise R1Error(
            f"`{model}` is the address of a server, and --url is another",
            code=Exit.USAGE,
            hint="name the model as that server does, and leave the address to --url",
        )
    return dataclasses.replace(values, url=[model], engine="server"), ""


def check_sampling(settings: Any, sources: Mapping[str, str]) -> None:
    """Refuse flags that contradict each other, before anything is loaded. Raises `R1Error` (exit 2)."""
    check_template(settings.template, settings.system)
    _check_server(settings)
    if getattr(settings, "shots", None) is not None and settings.few_shot is None:
        raise R1Error("--shots without --few-shot shows nothing", hint="--few-shot FILE", code=Exit.USAGE)
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


def check_address(settings: Any) -> None:
    """Refuse (`R1Error`, exit 2) an engine that contradicts --url, or lacks it."""
    if settings.engine == "server" and not settings.url:
        raise R1Error("--engine server needs the address of one", hint="--url http://127.0.0.1:8000/v1", code=Exit.USAGE)
    if settings.url and settings.engine not in ("auto", "server"):
        raise R1Error(
            f"--engine {settings.engine} draws in this process, --url from a server", hint="leave one of them out", code=Exit.USAGE
        )


def _check_server(settings: Any) -> None:
    check_address(settings)
    if settings.api_key_env is not None and not settings.url:
        raise R1Error("--api-key-env without --url has no server to send the key to", hint="--url https://...", code=Exit.USAGE)
    if uses_server(settings) and getattr(settings, "num_processes", 1) > 1:
        raise R1Error(
            "--num-processes starts engines on this machine, --url draws from servers", hint="several --url share the work", code=Exit.USAGE
        )


@contextmanager
def open_sampler(settings: Any, context: Context, *, model: str, folder: str | None = None, logprobs: bool = False) -> Iterator[Sampler]:
    """Load `model` and what is around it by the command's settings (engine, prompt and sampling flags), and free it at a regular end.

    settings: any with the flags of `EngineSettings` and `PromptSettings`, and how to sample; what a command has no flag for is off
    folder: what `resolve_model` has made of the model, where that is known
    """
    keep = getattr(settings, "logprobs", False)
    params = SamplingParams(
        max_tokens=settings.max_completion_length,
        temperature=settings.temperature,
        top_p=getattr(settings, "top_p", 1.0),
        top_k=getattr(settings, "top_k", 0),
        stop=tuple(settings.stop),
        logprobs=logprobs or keep,
    )
    examples = read_examples(settings.few_shot, settings.shots) if getattr(settings, "few_shot", None) else []
    folder = resolve_model(model, settings, context.console.info) if folder is None else folder
    engine = _engine(settings, context, folder, logprobs=params.logprobs)
    words: dict[str, Any] = {
        "template": settings.template,
        "system": settings.system,
        "think_prefix": settings.think_prefix,
        "examples": examples,
        "shots": getattr(settings, "shots", None),
    }
    renderer = WordRenderer(**words) if engine.tokenizer is None else PromptRenderer(engine.tokenizer, **words)
    sampler = Sampler(engine, renderer, params, model=model or engine.model, keep_logprobs=keep)
    if sampler.room() < 1:
        raise R1Error(
            f"--max-completion-length {params.max_tokens} leaves no room for a prompt in {engine.max_model_len} tokens",
            hint=f"--max-completion-length {engine.max_model_len // 2}",
            code=Exit.USAGE,
        )
    yield sampler
    engine.close()  # only here: after an error or Ctrl-C the process ends, and freeing the model first would keep the user waiting


def gpu_share(settings: Any) -> float:
    """The share of a GPU's memory that vLLM may take."""
    return settings.gpu_memory or (BESIDE_A_TRAINER if getattr(settings, "on_policy", False) else ALONE)


def _engine(settings: Any, context: Context, folder: str, *, logprobs: bool) -> Engine:
    from r1cli.engines.load import Remote, load_engine, usual_batch_size

    context.console.detail(f"loading `{folder}`")
    options: dict[str, Any] = {
        "engine": settings.engine,
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "batch_size": settings.batch_size or usual_batch_size("server" if uses_server(settings) else settings.engine),
        "gpu_memory": gpu_share(settings),
        "kv_cache_gib": settings.kv_cache_gib,
        "seed": settings.seed,
        "trust_remote_code": settings.trust_remote_code,
        "logprobs": logprobs,
        "verbose": settings.verbose,
        "sleep": getattr(settings, "engine_sleep", False),
    }
    if getattr(settings, "num_processes", 1) > 1:
        from r1cli.engines.parallel import ParallelEngine

        return ParallelEngine(folder, settings.num_processes, options)
    remote = Remote(
        urls=tuple(settings.url),
        api_key_env=settings.api_key_env,
        timeout=settings.request_timeout,
        retries=settings.retries,
        patience=settings.server_wait,
        weights=getattr(settings, "server_weights", "folder"),
    )
    return load_engine(folder, **options, say=context.console.warn, remote=remote)


def draw(
    rows: Iterable[Row],
    settings: Any,
    context: Context,
    *,
    model: str | None = None,
    skip: frozenset[Pair] = frozenset(),
    on_bad: Callable[[R1Error], None] | None = None,
    totals: Totals | None = None,
    on_weights: Callable[[str], None] | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> Generator[Row, None, None]:
    """Completion rows of prompt rows, in the order in which they end.

    The model (`settings.model` by default) is loaded when the first row that needs it is there, and freed at the end: no rows, or none
    that are missing, load nothing. `totals` is filled on the way, `on_weights` is given the fingerprint of the weights before they are
    loaded (not of a server's, nor of a hub name's), `on_ready` is called once they are; the other arguments are those of `Sampler.draw`.
    """
    tasks = ((row, missing(row, settings.samples, skip)) for row in rows)
    return draw_tasks(tasks, settings, context, model=model, on_bad=on_bad, totals=totals, on_weights=on_weights, on_ready=on_ready)


def draw_tasks(
    tasks: Iterable[Task],
    settings: Any,
    context: Context,
    *,
    model: str | None = None,
    on_bad: Callable[[R1Error], None] | None = None,
    on_none: Callable[[Row, int], None] = lambda row, sample: None,
    totals: Totals | None = None,
    on_weights: Callable[[str], None] | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> Generator[Row, None, None]:
    """The same for chosen samples of each row; see `Sampler.draw_tasks`."""
    check_sampling(settings, context.sources)
    totals = totals if totals is not None else Totals()
    wanted: Iterator[Task] = (task for task in tasks if task[1])
    if getattr(settings, "shuffle_choices", False):
        wanted = _shuffled_choices(wanted, settings.seed, on_bad, on_none)
    first = next(wanted, None)
    if first is None:
        return
    if on_bad is None:
        require(first[0], "prompt", str, list)  # the wrong column: better said now than when the model is loaded
    model = settings.model if model is None else model
    folder = resolve_model(model, settings, context.console.info)  # once: a run that trains on has another newest checkpoint soon
    if on_weights is not None and not uses_server(settings) and Path(folder).is_dir():
        on_weights(fingerprint(folder))
    with open_sampler(settings, context, model=model, folder=folder) as sampler:
        totals.started, totals.engine = monotonic(), sampler.engine.name
        on_ready()
        draws = sampler.draw_tasks(chain([first], wanted), seed=settings.seed, on_bad=on_bad, on_none=on_none)
        try:
            with closing(draws):
                for drawn in draws:
                    totals.add(drawn.row)
                    yield drawn.row
        finally:
            totals.too_long, totals.refused = sampler.too_long, sampler.refused
            for warning in sampler.warnings():
                context.console.warn(warning)


def _shuffled_choices(
    tasks: Iterable[Task], seed: int, on_bad: Callable[[R1Error], None] | None, on_none: Callable[[Row, int], None]
) -> Iterator[Task]:
    said: set[Any] = set()  # a row comes again in the next round of --until
    for row, samples in tasks:
        if not row.get("choices") or row.get("answer") is None:
            yield row, samples
            continue
        try:
            changed = shuffled(row, seed)
        except R1Error as error:
            if on_bad is None:
                raise
            if (row["id"], row.where) not in said:
                on_bad(error)
            said.add((row["id"], row.where))
            for sample in samples:  # --until waits for each
                on_none(row, sample)
            continue
        yield changed, samples
