"""What is said to an OpenAI-compatible server, and what is understood of its answer. Pure functions: `fleet.py` does the talking.

Two ways, by what is known of the model:

    tokens  POST /completions with token ids, rendered here with the model's own tokenizer. vLLM answers with token ids, so that a row and
            its log-probabilities are those of an engine in this process.
    words   POST /chat/completions with messages (or /completions with text), for servers whose tokenizer is not at hand. What a server
            calls `reasoning_content` (DeepSeek) or `reasoning` (vLLM) comes back inside <think> tags.

Fields that are vLLM's own are sent only to vLLM: hosted services refuse what they do not know.
"""

import json
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from r1cli.engines.protocol import Completion, Request, SamplingParams

REFUSED = "refused"
_TOO_LONG = ("context length", "context_length", "maximum model length", "max_model_len", "too long", "longer than the maximum")


class Malformed(ValueError):
    """An answer that is not what the interface promises: cut off, or of another service."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How to speak to a server: the name it knows the model by, whether it is vLLM, and the tokens that end a completion."""

    model: str
    vllm: bool
    end_ids: tuple[int, ...] = ()


def request_body(request: Request, params: SamplingParams, dialect: Dialect) -> tuple[str, dict[str, Any]]:
    """(path below /v1, JSON body) of one completion to draw."""
    body: dict[str, Any] = {
        "model": dialect.model,
        "max_tokens": params.max_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "seed": request.seed,
    }
    if params.stop:
        body["stop"] = list(params.stop)
    if params.top_k > 0 or dialect.vllm:
        body["top_k"] = params.top_k
    if dialect.vllm:  # repetition_penalty: else `vllm serve` takes it from the model's generation_config.json
        body |= {"include_stop_str_in_output": True, "repetition_penalty": 1.0, "min_p": 0.0}
    if isinstance(request.prompt, list):
        if params.logprobs:
            body["logprobs"] = True
        return "/chat/completions", body | {"messages": request.prompt}
    if params.logprobs:
        body["logprobs"] = 0 if dialect.vllm else 1  # how many others beside the drawn one; 0 means none at all elsewhere
    if request.prompt is not None:
        return "/completions", body | {"prompt": request.prompt}
    if dialect.vllm:
        body |= {"return_token_ids": True, "stop_token_ids": list(dialect.end_ids), "add_special_tokens": False}
    return "/completions", body | {"prompt": request.prompt_ids}


def completion_of(raw: bytes, request: Request, params: SamplingParams) -> Completion:
    """The completion in an answer. Raises `Malformed` when there is none in it."""
    try:
        payload = json.loads(raw)
        choice = payload["choices"][0]
        text = _text(choice)
        reason = choice.get("finish_reason")
        ids = list(choice.get("token_ids") or [])
        logprobs = _logprobs(choice.get("logprobs")) if params.logprobs else None
        tokens = len(ids) or int((payload.get("usage") or {})["completion_tokens"])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise Malformed(f"an answer that is no completion ({type(error).__name__}: {error})") from None
    if reason not in ("stop", "length"):
        return Completion(request.key, [], f"the server ended it with `{reason}`", REFUSED)
    stopped_by = choice.get("stop_reason")
    if isinstance(stopped_by, str) and stopped_by in params.stop and not text.endswith(stopped_by):
        text += stopped_by
    return Completion(request.key, ids, text, reason, logprobs, tokens)


def _text(choice: dict[str, Any]) -> str:
    if "message" not in choice:
        return str(choice["text"])
    message = choice["message"]
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    content = message.get("content") or ""
    if not reasoning:
        return str(content)
    closed = "</think>" if choice.get("finish_reason") == "stop" or content else ""
    return f"<think>\n{reasoning.strip()}\n{closed}" + (f"\n\n{content.lstrip()}" if content else "")


def _logprobs(given: Any) -> list[float] | None:
    if not given:
        return None
    if "token_logprobs" in given:
        return [float(value) for value in given["token_logprobs"]]
    return [float(entry["logprob"]) for entry in given["content"]]


def error_text(raw: bytes) -> str:
    """What a server says is wrong, in one line of at most 300 characters."""
    text = raw.decode("utf-8", "replace")
    try:
        found = json.loads(text)
        inner = found.get("error", found) if isinstance(found, dict) else found
        text = str(inner.get("message") or inner.get("detail") or inner) if isinstance(inner, dict) else str(inner)
    except ValueError:
        pass
    return " ".join(text.split())[:300].rstrip(".")


def is_too_long(message: str) -> bool:
    """Whether a refusal is about the length of the prompt: the fault of one row, not of the command."""
    return any(sign in message.lower() for sign in _TOO_LONG)


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header: a number, or a date (RFC 9110, section 10.2.3); None when there is none or it makes no sense."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (TypeError, ValueError):
        return None
