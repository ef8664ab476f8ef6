"""One reward worker: `python -P -m r1cli.rewards.worker READ_FD WRITE_FD MEMORY_GIB`, started by `pool.py` alone.

It reads requests from one pipe and answers on another, until the first is closed. Its own stdout and stderr are stderr, its stdin is
empty, so nothing that a user's function prints can reach the rows or the replies. It runs in its own session (a terminal's Ctrl-C does
not reach it), outlives SIGTERM (`signals.py`), and dies with its parent: by the closed pipe, on Linux by PR_SET_PDEATHSIG, and inside a
request by an interval timer whose signal is left at its deadly default, which even a loop in C that holds the interpreter cannot outlive.

A request is a pickled tuple, a reply is JSON: plain data is all that comes back from here.
    ("make", [RewardSpec, ...])             -> {"ok": true} or {"error": ..., "hint": ..., "code": ...}
    ("prepare", index)                      -> the same; before the first rows of a reward, outside their deadline
    ("score", index, [Row, ...], seconds)   -> {"scores": [number or null, ...], "late": n} or an error
"""

import ctypes
import json
import os
import pickle
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.rewards import registry
from r1cli.rewards.failure import reply_of
from r1cli.rewards.reward import Reward
from r1cli.rewards.signals import outlive
from r1cli.row import Row

LENGTH_BYTES = 8
PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 2.0  # the parent kills first; the timer is for a worker whose parent is gone


def main() -> None:
    """Serve until the request pipe is closed."""
    read_fd, write_fd, memory_gib = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    _live_and_die_with(os.getppid())
    limit = int(memory_gib * 2**30)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last: a `code.py` beside the user must not replace a module of the standard library
    rewards: list[Reward] = []
    while (request := _read(read_fd)) is not None:
        if request[0] == "make":
            reply = _made(request[1], rewards)
        elif request[0] == "prepare":
            reply = _prepared(rewards[request[1]])
        else:
            _, index, rows, seconds = request
            signal.setitimer(signal.ITIMER_REAL, seconds + GRACE_SECONDS)
            rewards[index].seconds = 0.9 * seconds / max(1, len(rows))
            reply = _scored(rewards[index], rows)
            signal.setitimer(signal.ITIMER_REAL, 0)
        data = json.dumps(reply).encode()
        _write(write_fd, len(data).to_bytes(LENGTH_BYTES, "big") + data)


def _live_and_die_with(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    outlive()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the call
            os._exit(Exit.FAILED)


def _made(specs: list[Any], rewards: list[Reward]) -> dict[str, Any]:
    try:
        rewards[:] = [registry.make(spec) for spec in specs]
    except R1Error as error:
        return _error(error.message, error.hint, error.code)
    return {"ok": True}


def _prepared(reward: Reward) -> dict[str, Any]:
    try:
        reward.prepare()
    except R1Error as error:
        return _error(error.message, error.hint, error.code)
    return {"ok": True}


def _scored(reward: Reward, rows: list[Row]) -> dict[str, Any]:
    try:
        late = reward.late
        return {"scores": reward.score_batch(rows), "late": reward.late - late}
    except R1Error as error:
        return _error(error.message, error.hint, error.code)
    except MemoryError:
        os._exit(Exit.FAILED)  # what is left of this process cannot be trusted
    except RecursionError:
        return {"scores": [0.0] * len(rows)}
    except Exception as error:  # the boundary: it is raised again in the parent, with its place and the row's name
        return reply_of(error, reward, rows)


def _error(message: str, hint: str | None, code: int) -> dict[str, Any]:
    return {"error": message, "hint": hint, "code": code}


def _read(fd: int) -> Any:
    head = _read_bytes(fd, LENGTH_BYTES)
    return None if head is None else pickle.loads(_read_bytes(fd, int.from_bytes(head, "big")) or b"N.")


def _read_bytes(fd: int, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        piece = os.read(fd, size - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


if __name__ == "__main__":
    main()
