"""Reward models on servers: vLLM's classify interface (`vllm serve MODEL --runner pooling`), POST /classify.

A conversation is a request: messages, which the server renders with the model's own chat template, and `use_activation: false`, so that a
logit comes back and not what vLLM makes of it. Retries, pauses and patience are those of `fleet.py`.

Left out: other servers' interfaces for reward models (SGLang, text-embeddings-inference), which want the rendered text.
"""

import json
import math
from collections.abc import Sequence

import httpx

from r1cli.engines.addresses import check_url, root_of
from r1cli.engines.fleet import Fleet
from r1cli.engines.openai_api import Malformed, is_too_long
from r1cli.engines.patience import Patience
from r1cli.engines.refusal import Refusal
from r1cli.errors import Exit, R1Error, nearest
from r1cli.text.reply import Conversation, turns

PROBE_SECONDS = 10.0


class ServerRewardModel:
    """`score` is that of `rewards.preference.RewardModel`. Every thread may call it, one at a time.

    name: what messages call it;  model: its name on the server, "" when that serves only one
    key, at_once, timeout, retries, patience: those of `fleet.Fleet`

    Raises `R1Error`: exit 3 when the server does not answer within `patience` seconds, exit 2 when it serves no such model.
    """

    def __init__(
        self, url: str, *, name: str, model: str, key: str | None, at_once: int, timeout: float, retries: int, patience: float
    ) -> None:
        check_url(url)
        self._name, self._url, self._patience = name, url, patience
        self._fleet = Fleet(
            [url], key=key, at_once=at_once, timeout=timeout, retries=retries, patience=patience, root=origin_of, gives="score"
        )
        try:
            self._model = self._served(model)
        except BaseException:
            self._fleet.close()
            raise

    def score(self, conversations: Sequence[Conversation]) -> list[float | None]:
        """A logit each, in order; None for a conversation that the server finds too long. Raises `R1Error` when it gives none."""
        for number, conversation in enumerate(conversations):
            body = {"model": self._model, "messages": turns(conversation), "add_generation_prompt": False, "use_activation": False}
            self._fleet.submit(number, "classify", body, logit_of)
        scores: list[float | None] = [None] * len(conversations)
        try:
            for _ in conversations:
                number, result = self._fleet.done.get()
                scores[number] = self._read(result)
        except BaseException:
            self._fleet.cancel()
            raise
        return scores

    def close(self) -> None:
        """Close the connections; the server stays."""
        self._fleet.close()

    def _read(self, result: object) -> float | None:
        if isinstance(result, float):
            return result
        if isinstance(result, Refusal):
            if is_too_long(str(result)):
                return None
            raise self._broken(f"refuses a conversation ({result.status}): {result}", "its log says more", Exit.USAGE)
        if isinstance(result, R1Error):
            raise self._broken(result.message, "start it again, or raise --server-wait and --retries", result.code)
        assert isinstance(result, BaseException)
        raise result

    def _served(self, wanted: str) -> str:
        """What the server calls the model."""
        try:
            names = [str(entry["id"]) for entry in self._asked().json()["data"]]
        except httpx.HTTPError as error:
            why = " ".join(str(error).split()) or type(error).__name__
            hint = "start it (vllm serve MODEL --runner pooling), or raise --server-wait"
            raise self._broken(f"did not answer within {self._patience:.0f} s ({why})", hint, Exit.ENVIRONMENT) from error
        except (ValueError, KeyError, TypeError) as error:
            raise self._broken("does not say what it serves", "it must be a server of vLLM", Exit.USAGE) from error
        if wanted in names or (not wanted and len(names) == 1):
            return wanted or names[0]
        hint = nearest(wanted, names) if wanted else f":model=NAME, one of {', '.join(names)}"
        raise self._broken(
            f"serves {len(names)} models, none called `{wanted}`" if wanted else f"serves {len(names)} models", hint, Exit.USAGE
        )

    def _asked(self) -> httpx.Response:
        """The list of models, once the server answers. Raises `httpx.HTTPError` when it has not within `patience` seconds."""
        patience, server = Patience(f"reward model `{self._name}`", self._patience), self._fleet.servers[0]
        while True:
            try:
                answer = self._fleet.ask(server, "GET", "v1/models", seconds=min(PROBE_SECONDS, self._patience))
                if answer.status_code in (401, 403):
                    raise self._broken(
                        f"refuses the key: {answer.status_code}", ":key=NAME of the variable that holds it", Exit.ENVIRONMENT
                    )
                if answer.status_code < 500:
                    return answer
                raise httpx.ReadError(f"it answers {answer.status_code}")
            except httpx.HTTPError as error:
                if not patience.again(f"{server.url}: {' '.join(str(error).split()) or type(error).__name__}"):
                    raise

    def _broken(self, what: str, hint: str, code: int) -> R1Error:
        return R1Error(f"reward model `{self._name}` ({self._url}) {what}", hint=hint, code=code)


def origin_of(url: str) -> str:
    """The address without its version: vLLM has /classify beside /v1."""
    return root_of(url).rstrip("/").rpartition("/")[0] + "/"


def logit_of(raw: bytes) -> float:
    """The logit in an answer of /classify. Raises `Malformed` when there is none, `R1Error` (exit 2) when the model has several labels."""
    try:
        [entry] = json.loads(raw)["data"]
        values = [math.nan if value is None else float(value) for value in entry["probs"]]
    except (ValueError, KeyError, TypeError) as error:
        raise Malformed(f"an answer that is no score ({type(error).__name__}: {error})") from None
    if len(values) != 1:
        raise R1Error(
            f"serves a classifier with {len(values)} labels, and a reward model has one", hint="serve a reward model", code=Exit.USAGE
        )
    return values[0]
