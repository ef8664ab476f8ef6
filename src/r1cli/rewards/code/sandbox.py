"""Processes that run untrusted programs: started confined, talked to, killed as a group. The parent's side.

    with current().start({"mode": "script", "source": program}, Limits(seconds=5)) as process:
        finished = process.finish(stdin)          # Finished("ok", stdout=b"...", code=0)

Every process is fresh: an empty temporary directory, a clean environment, its own session and process group, rlimits, and as much of
Landlock, seccomp and namespaces as this machine has (`levels.py` finds out). What happens inside stands in `inside/child.py`.
"""

import contextlib
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.rewards.code import bubblewrap
from r1cli.rewards.code.box import DEVICES, LIBRARIES, environment, python_folders, remove
from r1cli.rewards.code.inside import channel
from r1cli.rewards.code.inside.confine import NOBODY
from r1cli.rewards.code.stopwatch import LOOK_SECONDS, Stopwatch
from r1cli.rewards.signals import blocked

CHILD = str(Path(__file__).parent / "inside" / "child.py")
START_SECONDS = 20.0  # from the start of the interpreter until it is confined
DISK_SECONDS = 0.1  # how often the size of the temporary directory is looked at


class Level(IntEnum):
    """How well a process is held, from least to best."""

    LIMITS = 1  # own session, rlimits, clean environment: stops accidents, not intent
    SECCOMP = 2  # and no network, no new processes, no signals to others; but it reads what this user can read
    CONFINED = 3  # and no file outside its own directory and the libraries (Landlock)
    NAMESPACES = 4  # and in network and IPC namespaces of its own
    BUBBLEWRAP = 5  # and sees no process and no file system but its own (bwrap: namespaces of every kind)


@dataclass(frozen=True)
class Limits:
    """What one process may use. seconds: of a test, counted as `stopwatch.py` does."""

    seconds: float = 5.0
    memory_mib: int = 1024
    output_bytes: int = 1 << 20
    file_mib: int = 16
    disk_mib: int = 64

    def job(self) -> dict[str, int]:
        """As `confine.py` sets them."""
        return {
            "memory": self.memory_mib << 20,
            "seconds": int(self.seconds + 2.999),  # the kernel's own limit, should the parent be gone
            "file_bytes": self.file_mib << 20,
            "files": 64,
            "stack": 64 << 20,
            "core": 0,
        }


@dataclass(frozen=True)
class Finished:
    """How a process ended. status: "ok" (it exited by itself), "timeout", "output" or "disk" (over that limit). seconds: time it had."""

    status: str
    stdout: bytes = b""
    code: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Sandbox:
    """A way to confine processes on this machine. user: "nobody" or "same"."""

    level: Level
    user: str = "same"

    def start(self, job: dict[str, Any], limits: Limits, talk: bool = False, also_run: tuple[str, ...] = ()) -> "Process":
        """A confined process with this job (`child.py`). talk: it keeps its socket; else it has stdin and stdout.

        also_run: files or folders it may execute. Raises `R1Error` (exit 3) when it cannot be confined.
        """
        process = self.prepare(limits, talk, also_run)
        try:
            self.begin(process, job, also_run)
        except BaseException:
            process.close()
            raise
        return process

    def prepare(self, limits: Limits, talk: bool = False, also_run: tuple[str, ...] = ()) -> "Process":
        """A process that waits for its job, in its own directory (`process.box`)."""
        box = tempfile.mkdtemp(prefix="r1-box-")
        if self.user == "nobody":
            os.chown(box, NOBODY, NOBODY)
        return Process(box, limits, talk, seen=also_run if self.level >= Level.BUBBLEWRAP else None)

    def begin(self, process: "Process", job: dict[str, Any], also_run: tuple[str, ...] = ()) -> None:
        """Give a waiting process its job, and wait until it is confined. Raises `R1Error` (exit 3) when it cannot be."""
        confinement = {
            "user": self.user,
            "namespaces": self.level == Level.NAMESPACES,  # bwrap has made its own
            "landlock": self.level >= Level.CONFINED,
            "seccomp": self.level >= Level.SECCOMP,
            "limits": process.limits.job(),
            "read": [*LIBRARIES, *DEVICES, *python_folders()],
            "write": [process.box, "/dev/null"],
            "run": list(also_run),
            "spawn": False,
            "parent": os.getpid() if self.level < Level.BUBBLEWRAP else 0,  # as seen from its own process namespace
            "path": python_folders(),
        }
        process.begin({**confinement, **job})


class Process:
    """One sandboxed process; a context manager that leaves nothing behind: its group is killed, its directory removed."""

    def __init__(self, box: str, limits: Limits, talk: bool, seen: tuple[str, ...] | None = None) -> None:
        self.box = box
        self.limits = limits
        self._disk_due = 0.0
        self._socket, child_end = socket.socketpair()
        with child_end:
            pipe = subprocess.DEVNULL if talk else subprocess.PIPE
            command = [sys.executable, "-s", "-S", "-P", "-B", "-X", "utf8", CHILD, str(child_end.fileno())]
            start: Callable[..., Any] = partial(
                subprocess.Popen, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, cwd=box, env=environment(box)
            )
            fds = (child_end.fileno(),)
            with blocked():  # for good: a SIGTERM to all processes of a job is no verdict on a program
                if seen is not None:  # bwrap, which shows it these files besides its directory
                    self._process, self._watched = bubblewrap.start(start, command, fds, box, seen)
                else:
                    self._process = start(command, pass_fds=fds, start_new_session=True)
                    self._watched = self._process.pid

    def begin(self, job: dict[str, Any]) -> None:
        """Send the job and wait until the process is confined. Raises `R1Error` (exit 3) when it is not."""
        watch = self.stopwatch(START_SECONDS)
        try:
            channel.send_job(self._socket.fileno(), job, self._wait(watch))
            reply = channel.receive_bytes(self._socket.fileno(), self._wait(watch))
        except channel.Gone as error:
            raise _unconfined(f"the process ended ({error})") from None
        if reply != channel.READY:
            raise _unconfined(reply.decode("utf-8", "replace"))

    def stopwatch(self, seconds: float) -> Stopwatch:
        """A stopwatch on this process."""
        return Stopwatch(self._watched, seconds)

    def send(self, message: Any, watch: Stopwatch) -> None:
        """One message to the process. Raises `channel.Gone`."""
        channel.send(self._socket.fileno(), message, self._wait(watch))

    def receive(self, watch: Stopwatch) -> Any:
        """One message from the process. Raises `channel.Gone`: "timeout" when the stopwatch runs out, "disk", "closed", "too long", ..."""
        return channel.receive(self._socket.fileno(), self._wait(watch))

    def _wait(self, watch: Stopwatch) -> Callable[[int, int], None]:
        def wait(fd: int, event: int) -> None:
            poll = select.poll()
            poll.register(fd, event)
            watch.resume()
            while not poll.poll(LOOK_SECONDS * 1000):
                if watch.over():
                    raise channel.Gone("timeout")
                if self._disk_full():
                    raise channel.Gone("disk")
            if watch.over():
                raise channel.Gone("timeout")

        return wait

    def finish(self, stdin: bytes = b"") -> Finished:
        """Give it its whole input, read its output, wait for its end; over a limit it is killed."""
        watch = self.stopwatch(self.limits.seconds)
        return replace(self._finish(stdin, watch), seconds=watch.used)

    def _finish(self, stdin: bytes, watch: Stopwatch) -> Finished:
        process, limits = self._process, self.limits
        assert process.stdin is not None and process.stdout is not None
        output = bytearray()
        to_write = memoryview(stdin)
        with selectors.DefaultSelector() as selector:
            for stream, event in ((process.stdin, selectors.EVENT_WRITE), (process.stdout, selectors.EVENT_READ)):
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, event)
            while selector.get_map():
                ready = selector.select(LOOK_SECONDS)
                if watch.over():
                    return Finished("timeout", bytes(output))
                if self._disk_full():
                    return Finished("disk", bytes(output))
                for key, _ in ready:
                    if key.fileobj is process.stdout:
                        piece = os.read(process.stdout.fileno(), 1 << 16)
                        output += piece
                        if not piece:
                            selector.unregister(process.stdout)
                    else:
                        to_write = to_write[_write(process.stdin.fileno(), to_write) :]
                        if not to_write:
                            selector.unregister(process.stdin)
                            process.stdin.close()
                if len(output) > limits.output_bytes:
                    return Finished("output", bytes(output[: limits.output_bytes]))
        return self._ended(bytes(output), watch)

    def _ended(self, output: bytes, watch: Stopwatch) -> Finished:
        while not watch.over():  # it closed its output; it may still run
            if self._disk_full():
                return Finished("disk", output)
            try:
                code = self._process.wait(LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            return Finished("timeout" if code in (-signal.SIGXCPU, 128 + signal.SIGXCPU) else "ok", output, code)
        return Finished("timeout", output)

    def _disk_full(self) -> bool:
        if time.monotonic() < self._disk_due:
            return False
        self._disk_due = time.monotonic() + DISK_SECONDS
        limit, total = self.limits.disk_mib << 20, 0
        with contextlib.suppress(OSError):  # files come and go while we look
            for folder, _, files in os.walk(self.box):
                total += sum(os.lstat(os.path.join(folder, name)).st_size + 4096 for name in files)  # noqa: PTH118
                if total > limit:
                    return True
        return False

    def close(self) -> None:
        """Kill its group, reap it, remove its directory."""
        if self._process.returncode is None:  # not reaped, so the number is still its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._socket.close()
        remove(self.box)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _write(fd: int, data: memoryview) -> int:
    """Bytes written; all of them when nobody reads any more."""
    if not data:
        return 0
    try:
        return os.write(fd, data[: 1 << 16])
    except BlockingIOError:
        return 0
    except OSError:
        return len(data)


def _unconfined(why: str) -> R1Error:
    return R1Error(f"a program could not be confined: {why}", hint="docs/code-rewards.md lists what it needs", code=Exit.ENVIRONMENT)
