"""The fallback engine: transformers' model in a decoding loop of our own. Slower than vLLM, runs wherever torch does.

Sequences live in slots. A slot whose sequence ended is given up at once, and when enough are free the sequences that run are joined by
new ones: their key-value caches are padded on the left to one length and the pass goes on. Requests wait in a small pool sorted by prompt
length, so that those that start together are padded little. `generate()` would hold every slot until the longest sequence of its batch
has ended, and would draw all of a batch from one random stream.

Padding is masked and positions count real tokens, so a sequence's logits are those it would have alone, up to the rounding of the
matrix products. Memory is bounded by `batch_size` sequences and, in all, CACHE_TOKENS tokens of cache, on a GPU by CACHE_SHARE of its
memory where that is more. There a token's pass is recorded once and repeated (`recorded.py`).

Left out: models whose cache is not a list of keys and values (state-space models), encoder-decoders; they are refused.
"""

import gc
from collections.abc import Callable, Generator, Iterable
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from r1cli.engines.batch import Batch, GrowingBatch, Slot
from r1cli.engines.choice import choose, sampling_logprobs
from r1cli.engines.detokenize import completes_stop, completion_text
from r1cli.engines.feed import Feed
from r1cli.engines.model_files import end_ids, is_tied, whole_weights
from r1cli.engines.precision import leave_out_cudnn_attention
from r1cli.engines.protocol import Completion, Request, SamplingParams, never
from r1cli.engines.recorded import RecordedBatch, Rooms, agrees
from r1cli.errors import Exit, R1Error, first_line
from r1cli.layers.adopt import adopt
from r1cli.model_folder import load_tokenizer

# Legend: B sequences, T positions of the cache, V vocabulary.

CACHE_TOKENS = 65536  # most cache positions (padding included) of all sequences that run together; on a GPU more may fit
CACHE_SHARE = 0.1  # of a GPU's memory


class TransformersEngine:
    """See `protocol.Engine`. Load it with `load.load_engine`."""

    name = "transformers"

    def __init__(self, model: str, *, dtype: str, max_model_len: int | None, batch_size: int, trust_remote_code: bool) -> None:
        self.stopping: Callable[[], bool] = never
        self.model = model
        self._batch_size = batch_size
        self._device = usual_device()
        leave_out_cudnn_attention()
        self.tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code)
        # a second one: callers render prompts on another thread, and a fast tokenizer that is used twice at a time raises
        self._decoder = load_tokenizer(model, trust_remote_code=trust_remote_code)
        try:
            loaded = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code)
        except (ValueError, OSError, RuntimeError) as error:
            raise R1Error(
                f"transformers cannot load `{model}`: {first_line(error)}",
                hint="r1 check --model MODEL says more",
                code=Exit.USAGE,
            ) from error
        self._net = loaded.to(self._device).eval().requires_grad_(False)
        if self._device.type == "cuda" and dtype != "float32":
            adopt(self._net, {}, "cuda")  # fewer kernels; and so does the trainer's copy round
        own_limit = getattr(self._net.config.get_text_config(), "max_position_embeddings", None)
        self.max_model_len = min(max_model_len or own_limit or CACHE_TOKENS, own_limit or CACHE_TOKENS)
        memory = torch.cuda.get_device_properties(self._device).total_memory if self._device.type == "cuda" else 0
        self._cache_tokens = cache_tokens(self._net.config, self._net.dtype.itemsize, memory)
        self._end_ids = end_ids(model, self.tokenizer)
        self._tied = is_tied(model)
        self._rooms: Rooms | None = None
        if self._device.type == "cuda":
            self.record()

    def sample(self, requests: Iterable[Request], params: SamplingParams) -> Generator[Completion, None, None]:
        """Completions in the order in which they end; see `protocol.Engine.sample`."""
        feed = Feed(requests, ahead=2 * self._batch_size)
        batch = self._batch()
        pool: list[Request] = []
        try:
            while True:
                if self.stopping():
                    return
                pool += feed.take(2 * self._batch_size - len(pool), wait=not pool and not batch.slots)
                pool.sort(key=lambda request: len(request.prompt_ids))
                if not pool and not batch.slots:
                    return feed.finish()
                starting = self._starting(pool, batch.slots, params)
                logits_BV = batch.advance(starting)
                logprobs_BV = sampling_logprobs(logits_BV, params)
                tokens_B = choose(logprobs_BV, [slot.generator for slot in batch.slots], params)
                chosen_B = logprobs_BV.gather(1, tokens_B.unsqueeze(1)).squeeze(1)
                ended = []
                for slot, token, logprob in zip(batch.slots, tokens_B.tolist(), chosen_B.tolist(), strict=True):
                    slot.token_ids.append(token)
                    slot.logprobs.append(logprob)
                    completion = self._ended(slot, params)
                    if completion is not None:
                        ended.append((slot, completion))
                batch.drop({id(slot) for slot, _ in ended})
                yield from (completion for _, completion in ended)
        finally:
            feed.close()
            if self._rooms is not None:
                self._rooms.leave()

    def _starting(self, pool: list[Request], running: list[Slot], params: SamplingParams) -> list[Slot]:
        """Take out of the pool what starts now: when a quarter of the slots is free (a prompt's pass is dear beside a token's), the longest
        prompts that fit first, so that the padding they cause is there for fewer steps.
        """
        free = self._batch_size - len(running)
        if not pool or (running and free < max(1, self._batch_size // 4)):
            return []
        starting: list[Slot] = []
        longest = max((slot.length + params.max_tokens - len(slot.token_ids) for slot in running), default=0)
        while pool and len(starting) < free:
            self._check(pool[-1], params)
            longest = max(longest, len(pool[-1].prompt_ids) + params.max_tokens)
            if (running or starting) and longest * (len(running) + len(starting) + 1) > self._cache_tokens:
                break
            request = pool.pop()
            starting.append(Slot(request, torch.Generator().manual_seed(request.seed)))
        return starting

    def _check(self, request: Request, params: SamplingParams) -> None:
        if len(request.prompt_ids) + params.max_tokens > self.max_model_len or not request.prompt_ids:
            raise R1Error(
                f"a prompt of {len(request.prompt_ids)} tokens and {params.max_tokens} new ones do not fit {self.max_model_len}",
                hint="raise --max-model-len, lower --max-completion-length, or leave the prompt out",
                code=Exit.USAGE,
            )

    def _ended(self, slot: Slot, params: SamplingParams) -> Completion | None:
        """The completion of a slot that has just drawn its last token, None while it goes on."""
        if slot.token_ids[-1] in self._end_ids or completes_stop(self._decoder, slot.token_ids, params.stop):
            reason = "stop"
        elif len(slot.token_ids) >= params.max_tokens:
            reason = "length"
        else:
            return None
        text = completion_text(self._decoder, slot.token_ids, params.stop)
        return Completion(slot.request.key, slot.token_ids, text, reason, slot.logprobs if params.logprobs else None)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take over new weights in place, in this engine's type; see `protocol.Engine.load_weights`."""
        own = dict(self._net.named_parameters())
        expected = frozenset(own) - ({"lm_head.weight"} if self._tied else set())
        with torch.no_grad():
            for name, tensor in whole_weights(weights, expected, tied=self._tied):
                if name in own:
                    own[name].copy_(tensor)

    def record(self) -> None:
        """Sample by recorded passes from now on, where they say the same."""
        rooms = Rooms(self._net, 2 * self._cache_tokens)  # rows and columns are rounded up
        self._rooms = rooms if agrees(self._net, self._device, rooms) else None

    def _batch(self) -> Batch:
        if self._rooms is None:
            return GrowingBatch(self._net, self._device)
        return RecordedBatch(self._net, self._device, self._rooms)

    def rest(self) -> None:
        """Nothing: this engine has no sleep."""

    def close(self) -> None:
        """Free the model."""
        self._net = self._rooms = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def cache_tokens(config: Any, element: int, memory: int) -> int:
    """Most cache positions of all sequences together. element: bytes of a number. memory: bytes of the GPU, 0 without one."""
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or getattr(text, "num_attention_heads", None) or 0
    size = getattr(text, "head_dim", None) or getattr(text, "hidden_size", 0) // (getattr(text, "num_attention_heads", None) or 1)
    position = 2 * getattr(text, "num_hidden_layers", 0) * heads * size * element
    return max(CACHE_TOKENS, int(CACHE_SHARE * memory) // position) if position else CACHE_TOKENS


def usual_device() -> torch.device:
    """The GPU of this process, by its number: another thread's current one is the first."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
