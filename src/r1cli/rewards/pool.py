"""Reward workers with hard deadlines: a request that runs over is killed with its worker, and the next request gets a new one.

One thread per worker sends a request, waits for the reply until the deadline, and replaces the worker when it hangs, crashes, runs out of
memory or is killed from outside. Workers are plain `subprocess` children of this interpreter (no fork of a process that may hold torch or
vLLM, no import of the user's `__main__`), each in its own session so that it can be killed as a group and a terminal's Ctrl-C passes it by.
"""

import json
import logging
import os
import pickle
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import r1cli
from r1cli.errors import Exit, R1Error
from r1cli.rewards.reward import RewardSpec
from r1cli.rewards.signals import blocked
from r1cli.rewards.worker import LENGTH_BYTES
from r1cli.row import Row

START_SECONDS = 180.0  # a cold start with users' imports on a busy machine
SAID_AFTER = 3.0  # seconds; imports that take no longer need no word
CHUNK = 1 << 16
Scores = list[float | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a request gave: scores in order, or why there are none ("timeout", "crash"), or the error to raise. late: how many of the scores
    are 0 because the reward itself gave a row up."""

    scores: Scores | None = None
    lost: str | None = None
    late: int = 0
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """Rows for the reward at `index`, to be answered within `seconds`; `done` is called once, in the worker's thread."""

    index: int
    rows: Sequence[Row]
    seconds: float
    done: Callable[[Outcome], None]


class _Lost(Exception):
    """The worker gave no reply: "timeout" or "crash"."""


class Pool:
    """Worker processes for one list of rewards. Workers start when the first request arrives."""

    def __init__(self, specs: Sequence[RewardSpec], workers: int, memory_gib: float) -> None:
        self._specs = list(specs)
        self._memory_gib = memory_gib
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._size = workers
        self._threads: list[threading.Thread] = []
        self._workers: set[_Worker] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._unanswered = 0
        self._prepared: list[int] = []  # what `start` was asked for: another worker imports it before it takes requests

    def submit(self, request: Request) -> None:
        """Queue a request; a worker is started for it when the others have work, while there are fewer than `workers`."""
        with self._lock:
            self._unanswered += 1
            more = self._unanswered > len(self._threads)
        if more and len(self._threads) < self._size:
            thread = threading.Thread(target=self._serve, name=f"reward-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._requests.put(request)

    def start(self, indexes: Iterable[int]) -> None:
        """Prepare these rewards now and wait for them, so that what they cannot import is said before long work begins."""
        outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        for index in indexes:
            self.submit(Request(index, (), START_SECONDS, outcomes.put))
            try:
                outcome = outcomes.get(timeout=SAID_AFTER)
            except queue.Empty:
                said = "importing reward `%s` takes more than %.0f s: waiting for it, up to %.0f s"
                logging.getLogger("r1cli").warning(said, self._specs[index].source, SAID_AFTER, START_SECONDS)
                outcome = outcomes.get()
            if outcome.error is not None:
                raise outcome.error
            self._prepared.append(index)

    def pids(self) -> list[int]:
        """Process ids of the workers that are up."""
        with self._lock:
            return [worker.process.pid for worker in self._workers]

    def close(self) -> None:
        """Kill every worker and end the threads; requests that are still queued are dropped."""
        with self._lock:
            self._closed = True
            for worker in self._workers:
                worker.kill()
        for _ in self._threads:
            self._requests.put(None)
        for thread in self._threads:
            thread.join(timeout=5.0)

    def _serve(self) -> None:
        worker: _Worker | None = None
        try:
            worker = self._warm()
            while (request := self._requests.get()) is not None and not self._closed:
                outcome, worker = self._answer(request, worker)
                with self._lock:
                    self._unanswered -= 1
                request.done(outcome)
        finally:
            self._drop(worker)

    def _warm(self) -> "_Worker | None":
        """A worker that has imported what the first one has. Meanwhile that one answers: here a row would wait as long as imports take."""
        if not self._prepared:
            return None
        try:
            worker = self._start(None)
            for index in self._prepared:
                self._instruct(worker, ("prepare", index))
        except R1Error:  # the pool was closed; anything else the next request meets again, and says
            return None
        return worker

    def _answer(self, request: Request, worker: "_Worker | None") -> tuple[Outcome, "_Worker | None"]:
        try:
            worker = worker if worker is not None and worker.alive() else self._start(worker)
            self._instruct(worker, ("prepare", request.index))
        except R1Error as error:
            return Outcome(error=error), None
        try:
            reply = worker.ask(("score", request.index, list(request.rows), request.seconds), request.seconds)
        except _Lost as lost:
            self._drop(worker)
            return Outcome(lost=str(lost)), None
        if "error" in reply:
            return Outcome(error=_error_of(reply)), worker
        return Outcome(scores=reply["scores"], late=reply.get("late", 0)), worker

    def _start(self, dead: "_Worker | None") -> "_Worker":
        self._drop(dead)
        worker = _Worker(self._memory_gib)
        with self._lock:
            self._workers.add(worker)
            if self._closed:
                worker.kill()
        self._instruct(worker, ("make", self._specs))
        return worker

    def _instruct(self, worker: "_Worker", request: tuple[str, Any]) -> None:
        """Have a worker make its rewards, or prepare one, once. Raises `R1Error` when it cannot, after dropping the worker."""
        if request[0] == "prepare" and request[1] in worker.prepared:
            return
        try:
            reply = worker.ask(request, START_SECONDS)
        except _Lost as lost:
            self._drop(worker)
            raise R1Error(
                f"a reward worker did not start ({lost})", hint="its own message is above; is there memory left?", code=Exit.ENVIRONMENT
            ) from None
        if "error" in reply:
            self._drop(worker)
            raise _error_of(reply)
        if request[0] == "prepare":
            worker.prepared.add(request[1])

    def _drop(self, worker: "_Worker | None") -> None:
        if worker is not None:
            with self._lock:
                self._workers.discard(worker)
            worker.end()


class _Worker:
    """One worker process and the two pipes to it. Used by one thread, except `kill`."""

    def __init__(self, memory_gib: float) -> None:
        child_reads, self._to = os.pipe()
        self._from, child_writes = os.pipe()
        command = [sys.executable, "-P", "-m", "r1cli.rewards.worker", str(child_reads), str(child_writes), str(memory_gib)]
        paths = [str(Path(r1cli.__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        environment = {
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        try:
            with blocked():  # until the worker has said that it outlives it
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=2,
                    pass_fds=(child_reads, child_writes),
                    env=environment,
                    start_new_session=True,
                )
        finally:
            os.close(child_reads)
            os.close(child_writes)
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        self._killed = threading.Lock()
        self.prepared: set[int] = set()

    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def ask(self, request: Any, seconds: float) -> dict[str, Any]:
        """The reply to one request. Raises `_Lost` when none comes in time."""
        data = pickle.dumps(request)
        deadline = time.monotonic() + seconds
        self._send(memoryview(len(data).to_bytes(LENGTH_BYTES, "big") + data), deadline)
        size = int.from_bytes(self._receive(LENGTH_BYTES, deadline), "big")
        return json.loads(self._receive(size, deadline))

    def _send(self, data: memoryview, deadline: float) -> None:
        while data:
            _wait(self._to, select.POLLOUT, deadline)
            try:
                data = data[os.write(self._to, data[:CHUNK]) :]
            except BlockingIOError:
                continue
            except OSError:
                raise _Lost("crash") from None

    def _receive(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            _wait(self._from, select.POLLIN, deadline)
            piece = os.read(self._from, min(CHUNK, size - len(data)))
            if not piece:
                raise _Lost("crash")
            data += piece
        return bytes(data)

    def kill(self) -> None:
        """Kill its whole session's group. The process is not reaped here, so its number cannot be another's."""
        with self._killed:
            if self.process.returncode is None:
                try:
                    os.killpg(self.process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    return

    def end(self) -> None:
        """Kill it, reap it, close the pipes."""
        self.kill()
        with self._killed:
            self.process.wait()
        os.close(self._to)
        os.close(self._from)


def _error_of(reply: dict[str, Any]) -> R1Error:
    error = R1Error(reply["error"], hint=reply["hint"], code=reply["code"])
    if "trace" in reply:
        error.add_note(reply["trace"])  # printed below r1's own traceback by --debug
    return error


def _wait(fd: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(max(0.0, (deadline - time.monotonic()) * 1000)):
        raise _Lost("timeout")
