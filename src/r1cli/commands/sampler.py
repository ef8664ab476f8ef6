"""Prompt rows in, completion rows out, over one engine: what `sample`, `eval`, `distill` and `grpo` share.

Rendering happens here and nowhere else, so that the tokens a trainer learns on are those the engine saw. Nothing is left out in silence:
a prompt without room for its completion, and one that a server refuses, is counted and named in a warning.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from r1cli.engines.openai_api import REFUSED
from r1cli.engines.protocol import Completion, Engine, Request, SamplingParams
from r1cli.errors import Exit, R1Error
from r1cli.row import Prompt, Row, require, seed_of
from r1cli.text.prompts import PromptRenderer, WordRenderer
from r1cli.text.rewriting import raw_fields, rewrite_prompt

Pair = tuple[Any, int]  # (id, sample)
Task = tuple[Row, list[int]]  # a prompt row, and which samples of it to draw
STALE = ("rewards", "reward", "think_prefix", "token_ids", "logprobs")  # of an earlier completion of the row
LOGPROB_DIGITS = 6  # beyond what the sums of an engine are exact to


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
    refused: int = 0  # completions a server refused
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
    """An engine with a way to render prompts and a way to sample.

    too_long: prompts left out so far because they do not fit;  refused: completions a server would not give, first_refusal: why
    """

    def __init__(
        self, engine: Engine, renderer: PromptRenderer | WordRenderer, params: SamplingParams, *, model: str, keep_logprobs: bool = False
    ) -> None:
        self.engine = engine
        self.renderer = renderer
        self.params = params
        self.too_long = 0
        self.refused = 0
        self.first_refusal = ""
        self._model = model
        self._keep_logprobs = keep_logprobs
        self._rewrites = renderer.template == "rewrite"

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
        tasks = ((row, missing(row, samples, skip)) for row in rows)
        return self.draw_tasks(list(tasks) if isinstance(rows, Sequence) else tasks, seed=seed, on_bad=on_bad)

    def draw_tasks(
        self,
        tasks: Iterable[Task],
        *,
        seed: int,
        on_bad: Callable[[R1Error], None] | None = None,
        on_none: Callable[[Row, int], None] = lambda row, sample: None,
    ) -> Generator[Drawn, None, None]:
        """The same for chosen samples of each row. `on_none(row, sample)` is told of each that will not come."""
        waiting: dict[tuple[int, int], tuple[Row, Request]] = {}
        gone: set[Any] = set()  # rows left out: one that comes again, in the next round of --until, is counted and named once

        def requests() -> Iterator[Request]:
            for number, (row, samples) in enumerate(tasks):
                rendered = self._rendered(row, on_bad, gone) if samples else None
                for sample in samples:
                    if rendered is None:
                        on_none(row, sample)
                        continue
                    ids, words = rendered
                    request = Request((number, sample), ids, seed_of(seed, row["id"], sample), words)
                    waiting[request.key] = row, request
                    yield request

        # of a list all requests are there at once: which of them share a batch, and so the last digits, do not hang on a thread's timing
        source = list(requests()) if isinstance(tasks, Sequence) else requests()
        with closing(self.engine.sample(source, self.params)) as completions:  # whatever ends the caller also aborts what runs
            for completion in completions:
                row, request = waiting.pop(completion.key)
                number, sample = completion.key
                if completion.finish_reason == REFUSED:
                    self.refused += 1
                    self.first_refusal = self.first_refusal or completion.text
                    on_none(row, sample)
                    continue
                drawn = self._completed(row, sample, request.seed, completion)
                yield Drawn(drawn, number, request.prompt_ids, completion.token_ids, completion.logprobs)

    def _rendered(self, row: Row, on_bad: Callable[[R1Error], None] | None, gone: set[Any]) -> tuple[list[int], Any] | None:
        """(token ids, text or messages for a server without them); None when the row is left out, and then it is in `gone`."""
        which = (row["id"], row.where)
        try:
            prompt: Prompt = rewrite_prompt(row) if self._rewrites else require(row, "prompt", str, list)
            if isinstance(self.renderer, WordRenderer):
                return [], self.renderer.words(prompt)
            ids = self.renderer.ids(prompt)
            if not ids:
                raise R1Error("the prompt is empty", hint="mend the row", code=Exit.USAGE)
        except R1Error as error:
            named = error if f"`{row['id']}`" in error.message else _of_row(row, error)
            if on_bad is None:
                raise named from None
            if which not in gone:
                on_bad(named)
            gone.add(which)
            return None
        if len(ids) + self.params.max_tokens > self.engine.max_model_len:
            self.too_long += which not in gone
            gone.add(which)
            return None
        return ids, None

    def _completed(self, row: Row, sample: int, seed: int, completion: Completion) -> Row:
        fields = {name: value for name, value in row.items() if name not in STALE}
        tokens = len(completion.token_ids) if completion.num_tokens is None else completion.num_tokens
        fields |= {
            "sample": sample,
            "completion": completion.text,
            "finish_reason": completion.finish_reason,
            "num_tokens": tokens,
            "model": self._model,
            "seed": seed,
        }
        if self.renderer.think_prefix:
            fields["think_prefix"] = self.renderer.think_prefix
        if self._rewrites:
            fields |= raw_fields(row)
        if self._keep_logprobs:
            fields["token_ids"] = completion.token_ids or None
            fields["logprobs"] = None if completion.logprobs is None else [round(value, LOGPROB_DIGITS) for value in completion.logprobs]
        return Row(fields, where=row.where)

    def fits(self, prompt: Prompt) -> bool:
        """Whether a completion has room after this prompt, as far as anybody here can tell: a server counts its tokens itself."""
        return isinstance(self.renderer, WordRenderer) or len(self.renderer.ids(prompt)) <= self.room()

    def room(self) -> int:
        """Most tokens a prompt may have."""
        return self.engine.max_model_len - self.params.max_tokens

    def warnings(self) -> list[str]:
        """What to say about prompts and completions that were left out."""
        said = []
        if self.too_long:
            said.append(
                f"{self.too_long} prompts left out: longer than the {max(0, self.room())} tokens that --max-completion-length "
                f"{self.params.max_tokens} leaves of {self.engine.max_model_len}"
            )
        if self.refused:
            said.append(f"{self.refused} completions missing: the server refused them, the first: {self.first_refusal}")
        return said


def missing(row: Row, samples: int, skip: frozenset[Pair]) -> list[int]:
    """The samples of a row that are not there yet."""
    return [sample for sample in range(samples) if (row["id"], sample) not in skip]


def _of_row(row: Row, error: R1Error) -> R1Error:
    name = f"{row.where}: " if row.where else ""
    return R1Error(f"{name}row `{row['id']}`: {error.message}", hint=error.hint, code=error.code)
