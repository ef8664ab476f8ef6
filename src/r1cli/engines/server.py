"""The engine on the other end of a wire: one or more OpenAI-compatible servers (`vllm serve`, SGLang, DeepSeek's and others' services).

With a local model folder, prompts are rendered and cut into tokens here, by the rules of every other engine, and tokens are sent. Without
one there is no tokenizer (`tokenizer` is None): requests carry text or messages, and the server's own template is used.

One request is one completion, so that a completion is a row as soon as it ends, and a server that dies costs what ran on it and no more.

Weights (`load_weights`, for `r1 grpo`): written as safetensors to a folder the servers can read, which they then load (`reload.py`), or
sent from GPU to GPU over NCCL (`nccl.py`).

Same seed, same rows? vLLM honours the seed of each request, but its sums depend in their last bits on what runs beside: in bfloat16 that
changes many a draw. Other servers promise less, or nothing: seeds are sent all the same.
"""

import queue
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx

from r1cli.engines import reload
from r1cli.engines.addresses import check_url, is_local
from r1cli.engines.detokenize import completion_text
from r1cli.engines.feed import Feed
from r1cli.engines.fleet import Fleet, Server
from r1cli.engines.model_files import as_in_files, end_ids, is_tied, owning, tensor_names
from r1cli.engines.nccl import NcclTransfer
from r1cli.engines.openai_api import REFUSED, Dialect, completion_of, is_too_long, request_body
from r1cli.engines.patience import Patience
from r1cli.engines.protocol import Completion, Request, SamplingParams, never
from r1cli.engines.refusal import Refusal
from r1cli.errors import Exit, R1Error, nearest
from r1cli.model_folder import load_tokenizer

if TYPE_CHECKING:
    import torch

UNKNOWN_LENGTH = 2**31  # of a model whose server does not tell: it will refuse what is too long
PROBE_SECONDS = 10.0


class ServerEngine:
    """See `protocol.Engine`. Load it with `load.load_engine`.

    model:     the model's folder (tokens are sent), or its name on the servers (text or messages are sent)
    folder:    the local folder, None when there is none
    weights:   how they get new ones, "folder" or "nccl"
    urls, key, timeout, retries, patience: those of `fleet.Fleet`;  batch_size: most requests a server gets at a time
    """

    name = "server"

    def __init__(
        self,
        model: str,
        folder: str | None,
        *,
        urls: list[str],
        key: str | None,
        batch_size: int,
        timeout: float,
        retries: int,
        patience: float,
        max_model_len: int | None,
        logprobs: bool,
        trust_remote_code: bool,
        say: Callable[[str], None] | None,
        weights: str = "folder",
    ) -> None:
        self._weights = weights
        self._transfer: NcclTransfer | None = None
        for url in urls:
            check_url(url)
            if key and say is not None and url.startswith("http://") and not is_local(url):
                say(f"the key goes to {url} unencrypted: https:// would protect it")
        self.model, self._folder, self._patience = model, folder, patience
        self._running: dict[Any, Request] = {}
        self._drawn = 0
        self.tokenizer: Any = None
        self._decoder: Any = None
        if folder is not None:  # two: callers render prompts on another thread, and a fast tokenizer that is used twice at a time raises
            self.tokenizer, self._decoder = (load_tokenizer(folder, trust_remote_code=trust_remote_code) for _ in range(2))
        self._fleet = Fleet(urls, key=key, at_once=batch_size, timeout=timeout, retries=retries, patience=patience)
        try:
            served, lengths = self._dialects(say)
        except BaseException:
            self._fleet.close()
            raise
        self._dialect = served
        self.stopping: Callable[[], bool] = never
        self.model = model or served.model
        self._wants_logprobs = logprobs
        self.max_model_len = min([*lengths, max_model_len or UNKNOWN_LENGTH])

    def _dialects(self, say: Callable[[str], None] | None) -> tuple[Dialect, list[int]]:
        """Wait for the servers and learn how they call the model. One that answers is enough; the others join when they do."""
        patience, trouble = Patience("a server", self._patience), ""
        found: dict[str, tuple[Dialect, int | None]] = {}
        while not found:
            for server in self._fleet.servers:
                try:
                    found[server.url] = self._probe(server)
                except httpx.HTTPError as error:
                    trouble = f"{server.url}: {' '.join(str(error).split()) or type(error).__name__}"
                    server.failed(trouble)
            if not found and not patience.again(trouble):
                raise R1Error(
                    f"no server answered within {self._patience:.0f} s ({trouble})",
                    hint="start one (vllm serve MODEL), or raise --server-wait",
                    code=Exit.ENVIRONMENT,
                )
        silent = [server.url for server in self._fleet.servers if server.url not in found]
        if silent and say is not None:
            say(f"{', '.join(silent)} did not answer: going on with the other servers until it does")
        dialects = {dialect for dialect, _ in found.values()}
        if len(dialects) > 1:
            raise R1Error(
                "the servers do not serve the same: " + ", ".join(f"{url} `{d.model}`" for url, (d, _) in found.items()),
                hint="one model and one kind of server in a run",
                code=Exit.USAGE,
            )
        return dialects.pop(), [length for _, length in found.values() if length]

    def _probe(self, server: Server) -> tuple[Dialect, int | None]:
        """How a server calls the model, and the longest sequence it takes (vLLM says so)."""
        answer = self._fleet.ask(server, "GET", "models", seconds=min(PROBE_SECONDS, self._patience))
        if answer.status_code in (401, 403):
            raise R1Error(
                f"{server.url} refuses the key: {answer.status_code}",
                code=Exit.ENVIRONMENT,
                hint="export the key and name its variable: --api-key-env NAME",
            )
        if answer.status_code >= 500 or answer.status_code == 429:
            raise httpx.ReadError(f"it answers {answer.status_code}")
        try:
            models = {str(entry["id"]): entry for entry in answer.json()["data"]} if answer.status_code == 200 else {}
        except (ValueError, KeyError, TypeError):
            models = {}
        name = self._served_name(server.url, models)
        entry = models.get(name, {})
        vllm = entry.get("owned_by") == "vllm"
        ends = tuple(sorted(end_ids(self._folder, self.tokenizer))) if self._folder is not None else ()
        return Dialect(name, vllm, ends), entry.get("max_model_len")

    def _served_name(self, url: str, models: dict[str, Any]) -> str:
        if not self.model and len(models) == 1:  # the server was named instead of the model
            return next(iter(models))
        if not self.model:
            raise R1Error(
                f"{url} serves {len(models)} models" if models else f"{url} does not say what it serves",
                code=Exit.USAGE,
                hint="name one of " + ", ".join(f"`{name}`" for name in models) + " and give the address as --url"
                if models
                else "name the model as the server does, and give the address as --url",
            )
        if not models or self.model in models:  # a service without a list of models: it will say so when it does not know this one
            return self.model
        if self._folder is None:
            raise R1Error(f"{url} does not serve `{self.model}`", hint=nearest(self.model, models), code=Exit.USAGE)
        if len(models) > 1:
            roots = [name for name, entry in models.items() if entry.get("root") == self._folder]
            if len(roots) != 1:
                raise R1Error(
                    f"{url} serves {len(models)} models, none of them called `{self.model}`",
                    code=Exit.USAGE,
                    hint="serve it as: vllm serve FOLDER --served-model-name FOLDER",
                )
            return roots[0]
        return next(iter(models))

    def sample(self, requests: Iterable[Request], params: SamplingParams) -> Generator[Completion, None, None]:
        """Completions in the order in which they end; see `protocol.Engine.sample`."""
        if params.logprobs and self._folder is not None:
            reload.check_logprobs(self._fleet, params)
        feed = Feed(requests, ahead=max(1, self._fleet.room()))
        try:
            while True:
                if self.stopping():
                    return
                for request in feed.take(self._fleet.room() - len(self._running), wait=not self._running):
                    self._submit(request, params)
                if not self._running:
                    return feed.finish()
                try:
                    number, result = self._fleet.done.get(timeout=1.0 if feed.ended else 0.05)
                except queue.Empty:
                    continue
                yield self._completion(self._running.pop(number), result, params)
        finally:
            feed.close()
            if self._running:
                self._running.clear()
                self._fleet.cancel()

    def _submit(self, request: Request, params: SamplingParams) -> None:
        if request.prompt is None and len(request.prompt_ids) + params.max_tokens > self.max_model_len:
            raise R1Error(
                f"a prompt of {len(request.prompt_ids)} tokens and {params.max_tokens} new ones do not fit {self.max_model_len}",
                hint="raise --max-model-len, lower --max-completion-length, or leave the prompt out",
                code=Exit.USAGE,
            )
        self._drawn += 1
        self._running[self._drawn] = request
        path, body = request_body(request, params, self._dialect)
        self._fleet.submit(self._drawn, path, body, partial(completion_of, request=request, params=params))

    def _completion(self, request: Request, result: Any, params: SamplingParams) -> Completion:
        if isinstance(result, Refusal):
            if not is_too_long(str(result)):
                raise R1Error(
                    f"the server refuses a request ({result.status}): {result}",
                    code=Exit.USAGE,
                    hint="change what it names; --verbose shows more",
                )
            return Completion(request.key, [], str(result), REFUSED)
        if isinstance(result, BaseException):
            raise result
        if result.token_ids and self._decoder is not None:  # the text by the rule of every engine
            text = completion_text(self._decoder, result.token_ids, params.stop)
            return Completion(result.key, result.token_ids, text, result.finish_reason, result.logprobs, result.num_tokens)
        return result

    def load_weights(self, weights: Iterable[tuple[str, "torch.Tensor"]]) -> None:
        """Hand new weights to every server; see `protocol.Engine.load_weights`, `reload.py` and `nccl.py`."""
        if self._folder is None:
            raise R1Error("a server without a local model folder cannot take weights", hint="--model FOLDER", code=Exit.USAGE)
        if self._running:
            raise R1Error("weights cannot change while completions are being drawn", hint="close the iterator of sample() first")
        tied = is_tied(self._folder)
        whole = as_in_files(weights, tensor_names(self._folder), self._folder, tied=tied)
        if self._weights == "folder":
            return reload.push(self._fleet, owning(whole), tied=tied)
        if self._transfer is None:
            self._transfer = NcclTransfer(self._fleet)
        self._transfer.push(whole)

    def rest(self) -> None:
        """Nothing: this engine has no sleep."""

    def close(self) -> None:
        """Give up what runs and close the connections; the servers stay."""
        if self._transfer is not None:
            self._transfer.close()
        self._fleet.close()
