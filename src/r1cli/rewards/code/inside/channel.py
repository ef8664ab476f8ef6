"""One message after another over a socket, each with its length in front. Both ends use it; a message over the limit is refused.

Messages are JSON, except the job that opens the conversation: it comes from the trusted parent and is marshalled, because a process that
only runs a script has no other need of `json`, whose import would be a third of its start.

wait(fd, poll_event), where given, is called before every read and write: it returns when the socket is ready and raises `Gone` when it
has waited for long enough. The judge gives one; the sandboxed side just blocks.
"""

from __future__ import annotations

import marshal
import os
import select

TYPE_CHECKING = False  # `typing` costs milliseconds in every sandbox
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Wait = Callable[[int, int], None]


LENGTH_BYTES = 4
LONGEST = 4 << 20  # bytes a message: a value of some 100,000 numbers
PIECE = 1 << 16


class Gone(Exception):
    """The other end is closed, sent no message in time ("timeout"), or something that is not a message."""


READY = b'{"ready": true}'


def send(fd: int, message: Any, wait: Wait | None = None) -> None:
    """Write one message as JSON. Raises `Gone`."""
    import json

    send_bytes(fd, json.dumps(message).encode("ascii"), wait)


def receive(fd: int, wait: Wait | None = None) -> Any:
    """Read one message of JSON. Raises `Gone`."""
    import json

    try:
        return json.loads(receive_bytes(fd, wait))
    except (ValueError, RecursionError) as error:
        raise Gone("not a message") from error


def send_job(fd: int, job: dict[str, Any], wait: Wait | None = None) -> None:
    """Parent to child: the job."""
    send_bytes(fd, marshal.dumps(job), wait)


def receive_job(fd: int) -> dict[str, Any]:
    """The job, in the child."""
    job: dict[str, Any] = marshal.loads(receive_bytes(fd))
    return job


def send_bytes(fd: int, data: bytes, wait: Wait | None = None) -> None:
    """Write one message of bytes. Raises `Gone`."""
    if len(data) > LONGEST:
        raise Gone("too long")
    view = memoryview(len(data).to_bytes(LENGTH_BYTES, "big") + data)
    while view:
        if wait is not None:
            wait(fd, select.POLLOUT)
        try:
            view = view[os.write(fd, view[:PIECE]) :]
        except OSError as error:
            raise Gone("closed") from error


def receive_bytes(fd: int, wait: Wait | None = None) -> bytes:
    """Read one message of bytes. Raises `Gone`."""
    size = int.from_bytes(_exactly(fd, LENGTH_BYTES, wait), "big")
    if size > LONGEST:
        raise Gone("too long")
    return _exactly(fd, size, wait)


def _exactly(fd: int, size: int, wait: Wait | None) -> bytes:
    data = bytearray()
    while len(data) < size:
        if wait is not None:
            wait(fd, select.POLLIN)
        try:
            piece = os.read(fd, min(PIECE, size - len(data)))
        except OSError as error:
            raise Gone("closed") from error
        if not piece:
            raise Gone("closed")
        data += piece
    return bytes(data)
