"""What every engine does: token ids in, completions out, in the order in which they end.

An engine knows nothing of rows: the command renders prompts to token ids (so that the sampler and the trainer see the same tokens)
and turns completions into rows.
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to sample. temperature 0 is greedy; top_p 1 and top_k 0 are off. `stop` strings end a completion and are kept in its text."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to draw. `key` comes back with it and is the caller's own (for instance `(row number, sample)`).

    prompt: for an engine without a tokenizer (`tokenizer` is None), instead of the tokens: text, or messages for the server's template
    """

    key: Any
    prompt_ids: list[int]
    seed: int
    prompt: str | list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """What one request gave.

    token_ids:     generated tokens, the end-of-sequence token included when the model wrote it; [] when a server does not say
    text:          the same without special tokens
    finish_reason: "stop" or "length"; "refused" when a server will not answer this prompt, and `text` then says why
    logprobs:      log-probability of each generated token under the sampling distribution (temperature applied), when asked for
    num_tokens:    tokens generated, where a server says how many but not which
    """

    key: Any
    token_ids: list[int]
    text: str
    finish_reason: str
    logprobs: list[float] | None = None
    num_tokens: int | None = None


SEQUENCES = 64  # at the same time, where nobody says how many


def never() -> bool:
    """Nobody asks to end."""
    return False


class Engine(Protocol):
    """A sampler over one set of weights.

    stopping: asked before every step, or about once a second: once it is true, `sample` ends early, without the completions that still run
    """

    name: str  # "vllm", "transformers" or "server"
    model: str  # what was loaded: the path or the hub name
    tokenizer: Any
    max_model_len: int
    stopping: Callable[[], bool]

    def sample(self, requests: Iterable[Request], params: SamplingParams) -> Generator[Completion, None, None]:
        """Completions in the order in which they end; each request gives exactly one, unless `stopping`. Closing the iterator aborts what
        is running.

        A prompt that leaves no room for `max_tokens` is the caller's error: it is refused with an `R1Error`, never cut.
        """
        ...

    def load_weights(self, weights: Iterable[tuple[str, "torch.Tensor"]]) -> None:
        """Take over new weights, named as in the Hugging Face checkpoint; what was cached under the old ones is dropped."""
        ...

    def rest(self) -> None:
        """Give memory to somebody else until the next `load_weights`, where the engine was loaded with `sleep`; else nothing."""
        ...

    def close(self) -> None:
        """Free the model and end every process the engine started."""
        ...
