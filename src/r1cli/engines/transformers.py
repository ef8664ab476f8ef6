"""The fallback engine: transformers' model in a decoding loop of our own. Slower than vLLM, runs wherever torch does.

Sequences live in slots. A slot whose sequence ended is given up at once, and when enough are free the sequences that run are joined by
new ones: their key-value caches are padded on the left to one length and the pass goes on. Requests wait in a small pool sorted by prompt
length, so that those that start together are padded little. `generate()` would hold every slot until the longest sequence of its batch
has ended, and would draw all of a batch from one random stream.

Padding is masked and positions count real tokens, so a sequence's logits are those it would have alone, up to the rounding of the
matrix products. Memory is bounded by `batch_size` sequences and, in all, CACHE_TOKENS tokens of cache.

Left out: models whose cache is not a list of keys and values (state-space models), encoder-decoders; they are refused.
"""

import gc
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.cache_utils import DynamicCache

from r1cli.engines.choice import choose, sampling_logprobs
from r1cli.engines.detokenize import completes_stop, completion_text
from r1cli.engines.feed import Feed
from r1cli.engines.model_files import end_ids, is_tied, whole_weights
from r1cli.engines.precision import leave_out_cudnn_attention
from r1cli.engines.protocol import Completion, Request, SamplingParams, never
from r1cli.errors import Exit, R1Error
from r1cli.layers.adopt import adopt

# Legend: B sequences, T positions of the cache, V vocabulary.

CACHE_TOKENS = 65536  # most cache positions (padding included) of all sequences that run together


@dataclass(eq=False)
class _Slot:
    """A sequence that runs."""

    request: Request
    generator: torch.Generator
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.request.prompt_ids) + len(self.token_ids)


class TransformersEngine:
    """See `protocol.Engine`. Load it with `load.load_engine`."""

    name = "transformers"

    def __init__(self, model: str, *, dtype: str, max_model_len: int | None, batch_size: int, trust_remote_code: bool) -> None:
        self.stopping: Callable[[], bool] = never
        self.model = model
        self._batch_size = batch_size
        self._device = usual_device()
        leave_out_cudnn_attention()
        self.tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
        # a second one: callers render prompts on another thread, and a fast tokenizer that is used twice at a time raises
        self._decoder = AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
        try:
            loaded = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code)
        except (ValueError, OSError, RuntimeError) as error:
            raise R1Error(
                f"transformers cannot load `{model}`: {str(error).splitlines()[0]}",
                hint="r1 check --model MODEL says more",
                code=Exit.USAGE,
            ) from error
        self._net = loaded.to(self._device).eval().requires_grad_(False)
        if self._device.type == "cuda" and dtype != "float32":
            adopt(self._net, {}, "cuda")  # a token's pass is bound by the number of kernels; and so does the trainer's copy round
        own_limit = getattr(self._net.config.get_text_config(), "max_position_embeddings", None)
        self.max_model_len = min(max_model_len or own_limit or CACHE_TOKENS, own_limit or CACHE_TOKENS)
        self._end_ids = end_ids(model, self.tokenizer)
        self._tied = is_tied(model)

    def sample(self, requests: Iterable[Request], params: SamplingParams) -> Generator[Completion, None, None]:
        """Completions in the order in which they end; see `protocol.Engine.sample`."""
        feed = Feed(requests, ahead=2 * self._batch_size)
        batch = _Batch(self._net, self._device)
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

    def _starting(self, pool: list[Request], running: list[_Slot], params: SamplingParams) -> list[_Slot]:
        """Take out of the pool what starts now: when a quarter of the slots is free (a prompt's pass is dear beside a token's), the longest
        prompts that fit first, so that the padding they cause is there for fewer steps.
        """
        free = self._batch_size - len(running)
        if not pool or (running and free < max(1, self._batch_size // 4)):
            return []
        starting: list[_Slot] = []
        longest = max((slot.length + params.max_tokens - len(slot.token_ids) for slot in running), default=0)
        while pool and len(starting) < free:
            self._check(pool[-1], params)
            longest = max(longest, len(pool[-1].prompt_ids) + params.max_tokens)
            if (running or starting) and longest * (len(running) + len(starting) + 1) > CACHE_TOKENS:
                break
            request = pool.pop()
            starting.append(_Slot(request, torch.Generator().manual_seed(request.seed)))
        return starting

    def _check(self, request: Request, params: SamplingParams) -> None:
        if len(request.prompt_ids) + params.max_tokens > self.max_model_len or not request.prompt_ids:
            raise R1Error(
                f"a prompt of {len(request.prompt_ids)} tokens and {params.max_tokens} new ones do not fit {self.max_model_len}",
                hint="raise --max-model-len, lower --max-completion-length, or leave the prompt out",
                code=Exit.USAGE,
            )

    def _ended(self, slot: _Slot, params: SamplingParams) -> Completion | None:
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

    def rest(self) -> None:
        """Nothing: this engine has no sleep."""

    def close(self) -> None:
        """Free the model."""
        self._net = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def usual_device() -> torch.device:
    """The GPU of this process, by its number: another thread's current one is the first."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


class _Batch:
    """The sequences that run, with their cache: left-padded, one key and one value tensor (B, heads, T, head size) a layer.

    The cache's own object goes from pass to pass: a new one would copy all of it.
    """

    def __init__(self, net: Any, device: torch.device) -> None:
        self.slots: list[_Slot] = []
        self._net = net
        self._device = device
        self._cache: Any = None
        self._mask_BT = torch.zeros(0, 0, dtype=torch.long)

    def advance(self, starting: list[_Slot]) -> torch.Tensor:
        """One pass: the newest token of what runs, and the prompts of what starts; the next token's logits (B, V) of all slots."""
        parts = []
        if self.slots:
            newest_B1 = torch.tensor([slot.token_ids[-1:] for slot in self.slots], device=self._device)
            self._mask_BT = torch.nn.functional.pad(self._mask_BT, (0, 1), value=1)
            logits_BV, self._cache = self._pass(newest_B1, self._mask_BT, self._cache)
            parts.append(logits_BV)
        if starting:
            prompts = [slot.request.prompt_ids for slot in starting]
            width = max(map(len, prompts))
            ids_BT = torch.tensor([[0] * (width - len(ids)) + ids for ids in prompts], device=self._device)
            mask_BT = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts], device=self._device)
            logits_BV, cache = self._pass(ids_BT, mask_BT, None)
            parts.append(logits_BV)
            self._join(mask_BT, cache)
            self.slots += starting
        return torch.cat(parts)

    @torch.inference_mode()
    def _pass(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        """The last token's logits (B, V), and the cache with what was computed."""
        positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)[:, -ids_BT.shape[1] :]
        past = DynamicCache() if cache is None else cache
        out = self._net(
            input_ids=ids_BT, attention_mask=mask_BT, position_ids=positions_BT, past_key_values=past, use_cache=True, logits_to_keep=1
        )
        if not past.layers or not all(isinstance(getattr(layer, "keys", None), torch.Tensor) for layer in past.layers):
            raise R1Error(
                "the model's cache is not made of keys and values: this engine cannot run it", hint="--engine vllm", code=Exit.USAGE
            )
        return out.logits[:, -1], past

    @torch.inference_mode()
    def _join(self, mask_BT: torch.Tensor, cache: Any) -> None:
        """Put new sequences below those that run, both padded on the left to the longer of the two."""
        if not self.slots:
            self._mask_BT, self._cache = mask_BT, cache
            return
        width = max(mask_BT.shape[1], self._mask_BT.shape[1])

        def widen(tensor: torch.Tensor, axis: int) -> torch.Tensor:
            missing = width - tensor.shape[axis]
            return torch.nn.functional.pad(tensor, (0, 0) * (tensor.dim() - 1 - axis) + (missing, 0))

        self._mask_BT = torch.cat([widen(self._mask_BT, 1), widen(mask_BT, 1)])
        for old, new in zip(self._cache.layers, cache.layers, strict=True):
            old.keys, old.values = (torch.cat([widen(a, 2), widen(b, 2)]) for a, b in ((old.keys, new.keys), (old.values, new.values)))

    @torch.inference_mode()
    def drop(self, ended: set[int]) -> None:
        """Give up the slots of sequences that ended, and the columns that only they used."""
        if not ended:
            return
        kept = [place for place, slot in enumerate(self.slots) if id(slot) not in ended]
        self.slots = [self.slots[place] for place in kept]
        rows = torch.tensor(kept, dtype=torch.long, device=self._device)
        mask_BT = self._mask_BT[rows]
        first = int(mask_BT.any(0).long().argmax()) if kept else 0
        self._mask_BT = mask_BT[:, first:]
        if not kept:
            self._cache = None
            return
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[rows][:, :, first:], layer.values[rows][:, :, first:]
