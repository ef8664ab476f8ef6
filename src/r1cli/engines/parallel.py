"""Several engines on one machine, each in a process of its own with a whole copy of the model (data parallelism): `--num-processes N`.

Requests go one by one to the process that has the least to do. A completion does not depend on which process drew it (each request
brings its own seed), so neither does a row. On GPUs each process gets one; on a CPU each gets its share of the cores.

A process that ends ends the run with an error that names it: its completions are not drawn elsewhere, because what killed it (memory, as a
rule) would kill the next one too. The processes end with this one, however it ends: their pipe closes.

Left out: new weights (`r1 grpo` has one engine a trainer), and going on after an iterator was closed early.
"""

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from time import monotonic
from typing import Any

import torch

from r1cli.engines.feed import Feed
from r1cli.engines.load import load_engine
from r1cli.engines.model_files import check_whole
from r1cli.engines.protocol import Completion, Request, SamplingParams, never
from r1cli.engines.watchdog import LOAD_DEADLINE
from r1cli.errors import Exit, R1Error
from r1cli.model_folder import load_tokenizer

STALL_SECONDS = 1800.0  # without a completion of any process
END_SECONDS = 10.0


class ParallelEngine:
    """See `protocol.Engine`. folder: the model; count: processes; options: what `load.load_engine` gets in each of them."""

    def __init__(self, folder: str, count: int, options: dict[str, Any]) -> None:
        self.stopping: Callable[[], bool] = never
        self.model = folder
        self._batch_size = options["batch_size"]
        self.tokenizer = load_tokenizer(check_whole(folder), trust_remote_code=options["trust_remote_code"])
        self._running: list[dict[int, Request]] = [{} for _ in range(count)]
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        context = get_context("spawn")
        try:
            for index, variables in enumerate(_shares(count)):
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=_work, args=(theirs, ours, variables, folder, options), daemon=True, name=f"r1-engine-{index + 1}"
                )
                process.start()
                theirs.close()
                self._pipes.append(ours)
                self._processes.append(process)
            ready = [self._receive(index, LOAD_DEADLINE, "load the model") for index in range(count)]
        except BaseException:
            self._kill()
            raise
        self.name = f"{ready[0][0]} x {count}"
        self.max_model_len = min(length for _, length in ready)

    def sample(self, requests: Iterable[Request], params: SamplingParams) -> Generator[Completion, None, None]:
        """Completions in the order in which they end; see `protocol.Engine.sample`."""
        most = self._batch_size + max(1, self._batch_size // 4)  # a few more than run, so that no process waits for this one
        feed = Feed(requests, ahead=most * len(self._pipes))
        number, latest = 0, monotonic()
        for index in range(len(self._pipes)):
            self._send(index, ("sample", params))
        try:
            while True:
                if self.stopping():
                    return
                free = sum(most - len(running) for running in self._running)
                for request in feed.take(free, wait=not any(self._running)):
                    number += 1
                    index = min(range(len(self._running)), key=lambda i: len(self._running[i]))
                    self._running[index][number] = request
                    self._send(index, ("request", Request(number, request.prompt_ids, request.seed)))
                    latest = monotonic() if number == 1 else latest
                if not any(self._running):
                    break
                for pipe in wait(self._pipes, timeout=1.0 if feed.ended else 0.05):
                    index = self._pipes.index(pipe)  # type: ignore[arg-type]
                    drawn = self._receive(index, 0.0, "draw")
                    request, latest = self._running[index].pop(drawn.key), monotonic()
                    yield Completion(request.key, drawn.token_ids, drawn.text, drawn.finish_reason, drawn.logprobs)
                if monotonic() - latest > STALL_SECONDS:
                    raise R1Error(f"no process gave a completion for {STALL_SECONDS:.0f} s", hint="lower --batch-size or --num-processes")
            for index in range(len(self._pipes)):
                self._send(index, ("end", None))
            feed.finish()
        finally:
            feed.close()
            if any(self._running):
                self._kill()

    def load_weights(self, weights: Iterable[tuple[str, "torch.Tensor"]]) -> None:
        """Not for this engine."""
        raise R1Error("engines in several processes take no new weights", hint="leave out --num-processes", code=Exit.USAGE)

    def rest(self) -> None:
        """Nothing: this engine has no sleep."""

    def close(self) -> None:
        """End the processes."""
        for index in range(len(self._pipes)):
            with suppress(R1Error):
                self._send(index, ("close", None))
        for process in self._processes:
            process.join(END_SECONDS)
        self._kill()

    def _kill(self) -> None:
        for process in self._processes:
            if process.is_alive():
                process.kill()
        for pipe in self._pipes:
            pipe.close()
        self._pipes, self._running = [], [{} for _ in self._running]

    def _send(self, index: int, message: tuple[str, Any]) -> None:
        try:
            self._pipes[index].send(message)
        except OSError:
            raise self._ended(index) from None

    def _receive(self, index: int, seconds: float, what: str) -> Any:
        """The next message of a process. Raises its error, or one that says that it ended or did not answer in time."""
        pipe = self._pipes[index]
        try:
            if not pipe.poll(seconds):
                raise R1Error(f"engine process {index + 1} did not {what} within {seconds:.0f} s", hint="--verbose shows its log")
            message = pipe.recv()
        except (EOFError, OSError):
            raise self._ended(index) from None
        if isinstance(message, BaseException):
            raise message
        return message

    def _ended(self, index: int) -> R1Error:
        process = self._processes[index]
        process.join(END_SECONDS)
        code = process.exitcode
        why = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        return R1Error(
            f"engine process {index + 1} of {len(self._processes)} ended {why}",
            code=Exit.FAILED,
            hint="if memory is short: fewer --num-processes or a smaller --batch-size; --resume draws what is missing",
        )


def _shares(count: int) -> Iterator[dict[str, str]]:
    """The environment variables that give each process its part of the machine."""
    if torch.cuda.is_available():
        named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        devices = [name for name in named.split(",") if name] or [str(index) for index in range(torch.cuda.device_count())]
        if count > len(devices):
            raise R1Error(f"--num-processes {count} with {len(devices)} GPUs", hint=f"--num-processes {len(devices)}", code=Exit.USAGE)
        yield from ({"CUDA_VISIBLE_DEVICES": device} for device in devices[:count])
        return
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    each = max(1, len(cores) // count)
    for index in range(count):
        own = [cores[(index * each + place) % len(cores)] for place in range(each)]
        yield {"OMP_NUM_THREADS": str(each), "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, own))}


def _work(pipe: Connection, others: Connection, variables: dict[str, str], folder: str, options: dict[str, Any]) -> None:
    """The life of an engine process: load, say so, draw what comes, end when told or when the pipe closes."""
    others.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process, which closes the pipe
    os.environ.update(variables)
    if "OMP_NUM_THREADS" in variables:
        torch.set_num_threads(int(variables["OMP_NUM_THREADS"]))
    try:
        engine = load_engine(folder, **options)
        pipe.send((engine.name, engine.max_model_len))
        inbox: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        threading.Thread(target=_listen, args=(pipe, inbox), daemon=True).start()
        while True:
            kind, params = inbox.get()
            if kind != "sample":
                break
            for completion in engine.sample(_requests(inbox), params):
                pipe.send(completion)
        engine.close()
    except Exception as error:  # the first process says what it was
        with suppress(OSError):
            pipe.send(error if isinstance(error, R1Error) else R1Error(f"an engine process failed: {type(error).__name__}: {error}"))


def _listen(pipe: Connection, inbox: "SimpleQueue[tuple[str, Any]]") -> None:
    while True:
        try:
            inbox.put(pipe.recv())
        except (EOFError, OSError):  # the first process is gone
            os._exit(1)


def _requests(inbox: "SimpleQueue[tuple[str, Any]]") -> Iterator[Request]:
    while True:
        kind, request = inbox.get()
        if kind != "request":
            return
        yield request
