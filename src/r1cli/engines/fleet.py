"""Several servers as one: who gets a request, and what happens when a server is slow, full, broken or gone.

    full (429, or 503 with Retry-After)       pause the server as long as it asks, halve what it gets at a time, try again
    broken (5xx, a cut or senseless answer)   pause it a little longer each time; a request that failed `retries` times ends the run
    gone (refused, reset, timed out)          the same, but it is not the request's fault: it moves to another server
    all in trouble for `patience` seconds     `R1Error` (exit 3) that names each server and what it last said

A pause doubles from half a second to 30 s with a random part, so that many clients do not come back at once (exponential backoff with full
jitter). What a server gets at a time grows again by one for each full round of answers.

The requests run in an event loop on a thread of their own; the caller's thread submits and takes results.
"""

import asyncio
import contextlib
import queue
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

import httpx

from r1cli.engines.addresses import is_local, root_of
from r1cli.engines.openai_api import Malformed, error_text, retry_after
from r1cli.engines.patience import say_waiting
from r1cli.engines.refusal import refusal
from r1cli.errors import Exit, R1Error

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
CONNECT_SECONDS = 10.0
LONG_SECONDS = 10.0  # that all servers are in trouble before a word is said; many a pause is shorter


@dataclass(eq=False)
class Server:
    """One server and how it fares.

    limit: most requests it gets at a time;  answered: answers since the limit changed;  paused_until, troubled_since: monotonic clock
    """

    url: str
    client: httpx.AsyncClient
    most: int
    limit: int
    running: int = 0
    answered: int = 0
    failures: int = 0
    paused_until: float = 0.0
    troubled_since: float | None = None
    trouble: str = ""

    def succeeded(self) -> None:
        self.failures, self.troubled_since, self.trouble = 0, None, ""
        self.answered += 1
        if self.answered >= self.limit:
            self.limit, self.answered = min(self.most, self.limit + 1), 0

    def failed(self, why: str, *, wait: float | None = None, full: bool = False) -> None:
        now = monotonic()
        self.trouble = why
        if self.troubled_since is None:
            self.troubled_since = now
        if now >= self.paused_until:  # the many requests of one breakdown count once
            self.failures += 1
            if full:
                self.limit, self.answered = max(1, self.limit // 2), 0
        pause = random.uniform(0.5, 1.0) * min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (self.failures - 1))
        self.paused_until = max(self.paused_until, now + (pause if wait is None else wait))


@dataclass(slots=True)
class Job:
    """A request on its way: what is posted, how its answer is read, how often a server answered it with an error."""

    path: str
    body: dict[str, Any]
    read: Callable[[bytes], Any]
    errors: int = 0


class Fleet:
    """See above.

    urls:     addresses of servers, with or without /v1
    key:      sent as a bearer token, never logged; None sends none
    at_once:  most requests a server gets at a time
    timeout:  seconds one answer may take, from the request to its last byte
    retries:  times a request may be answered with a server error
    patience: seconds all servers may be in trouble before the run ends
    root:     address -> below which the paths of requests are;  gives: what messages call an answer
    """

    def __init__(
        self,
        urls: list[str],
        *,
        key: str | None,
        at_once: int,
        timeout: float,
        retries: int,
        patience: float,
        root: Callable[[str], str] = root_of,
        gives: str = "completion",
    ) -> None:
        self._key, self._timeout, self._retries, self._patience, self._gives = key, timeout, retries, patience, gives
        self._said = False
        self.done: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self._tasks: dict[Any, asyncio.Task] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="r1-servers", daemon=True)
        self._thread.start()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=at_once)
        self.servers = [
            Server(
                url,
                httpx.AsyncClient(
                    base_url=root(url),
                    headers=headers,
                    limits=limits,
                    trust_env=not is_local(url),
                    timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),  # the whole has a deadline in `_try`
                ),
                at_once,
                at_once,
            )
            for url in urls
        ]
        self._freed = asyncio.Event()

    def submit(self, key: Any, path: str, body: dict[str, Any], read: Callable[[bytes], Any]) -> None:
        """Post a request; `(key, what read gave)` or `(key, an exception)` arrives in `done`."""

        def start() -> None:
            self._tasks[key] = self._loop.create_task(self._run(key, Job(path, body, read)))

        self._loop.call_soon_threadsafe(start)

    def room(self) -> int:
        """Most requests that make sense at a time now: what all servers that answer take together, at least 1."""
        return max(1, sum(server.limit for server in self.servers if server.troubled_since is None))

    def cancel(self) -> None:
        """Give up what runs; the servers see closed connections and stop generating."""

        async def all_tasks() -> None:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.wait_for(all_tasks(), 10.0)
        while not self.done.empty():
            self.done.get_nowait()

    def ask(self, server: Server, method: str, path: str, *, body: Any = None, seconds: float) -> httpx.Response:
        """One plain call, outside of the flow of requests; a path that does not start with / is below /v1. Raises `httpx.HTTPError`."""
        url = path.lstrip("/") if not path.startswith("/") else str(httpx.URL(root_of(server.url)).copy_with(raw_path=path.encode()))
        return self.wait_for(server.client.request(method, url, json=body, timeout=seconds), seconds + CONNECT_SECONDS)

    def wait_for(self, work: Any, seconds: float) -> Any:
        """Run a coroutine on the loop and wait for it, at most `seconds`. Raises `httpx.ReadTimeout` past them."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds)
        except TimeoutError:
            future.cancel()
            raise httpx.ReadTimeout(f"no answer within {seconds:.0f} s") from None

    def close(self) -> None:
        """Give up what runs, close every connection and end the thread."""
        if self._loop.is_closed():
            return
        self.cancel()
        for server in self.servers:
            with contextlib.suppress(httpx.HTTPError):
                self.wait_for(server.client.aclose(), 10.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)
        if not self._thread.is_alive():
            self._loop.close()

    async def _run(self, key: Any, job: Job) -> None:
        try:
            result: Any = await self._answer(job)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # handed to the thread that takes results
            result = error
        finally:
            self._tasks.pop(key, None)
        self.done.put((key, result))

    async def _answer(self, job: Job) -> Any:
        while True:
            server = await self._claim()
            try:
                result = await self._try(server, job)
                if result is not None:
                    return result
            finally:
                server.running -= 1
                self._freed.set()

    async def _claim(self) -> Server:
        """The least busy server that takes requests now. Waits for one, as long as `patience` allows."""
        while True:
            now = monotonic()
            takes = [server for server in self.servers if server.running < server.limit and now >= server.paused_until]
            if takes:
                chosen = min(takes, key=lambda server: server.running / server.limit)
                chosen.running += 1
                return chosen
            since = [server.troubled_since for server in self.servers]
            if all(moment is not None and now - moment > self._patience for moment in since):
                raise self._hopeless()
            silent = all(moment is not None and now - moment > LONG_SECONDS for moment in since)
            if silent and not self._said:  # once a breakdown: a run that waits must not look like one that hangs
                say_waiting(f"a server that gives a {self._gives}", self._told(), self._patience)
            self._said = silent
            pauses = [server.paused_until - now for server in self.servers if server.paused_until > now]
            self._freed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._freed.wait(), min([1.0, *pauses]) + 0.01)

    def _hopeless(self) -> R1Error:
        return R1Error(
            f"no server gave a {self._gives} for {self._patience:.0f} s ({self._told()})",
            hint="start the servers, or raise --server-wait; `r1 sample ... --resume` draws what is missing",
            code=Exit.ENVIRONMENT,
        )

    def _told(self) -> str:
        return "; ".join(f"{server.url}: {server.trouble}" for server in self.servers)

    async def _try(self, server: Server, job: Job) -> Any:
        """Post once: what `read` made of the answer, None when it must be tried again; raises what no retry can mend."""
        try:
            async with asyncio.timeout(self._timeout):  # httpx's own begins anew with each byte, and a gateway may send blanks for ever
                response = await server.client.post(job.path.lstrip("/"), json=job.body)
            if response.status_code == 200:
                result = job.read(response.content)
                server.succeeded()
                return result
        except TimeoutError:
            server.failed(f"no whole answer within the {self._timeout:g} s of --request-timeout")
            return None
        except httpx.TimeoutException as error:
            server.failed(f"timed out ({type(error).__name__})")
            return None
        except httpx.HTTPError as error:
            server.failed(" ".join(str(error).split()) or type(error).__name__)
            return None
        except Malformed as error:
            self._count(job, server, str(error))
            return None
        told, status = self._without_key(error_text(response.content)), response.status_code
        wait = retry_after(response.headers.get("retry-after"))
        if status == 429 or (status == 503 and wait is not None):
            server.failed(f"{status} {told}", wait=wait, full=True)
        elif status >= 500 or status == 408:
            self._count(job, server, f"{status} {told}")
        else:
            raise refusal(server.url, status, told)
        return None

    def _count(self, job: Job, server: Server, why: str) -> None:
        server.failed(why)
        job.errors += 1
        if job.errors > self._retries:
            raise R1Error(
                f"{server.url} answered a request {job.errors} times with an error, the last: {why}",
                hint="look at the server's log; `r1 sample ... --resume` draws what is missing",
                code=Exit.ENVIRONMENT,
            )

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text
