"""The first thing a sandboxed process runs: `python -I -S child.py FD`, started by `sandbox.py` alone.

It reads one job from the socket FD, takes its own rights away (`confine.py`), says "ready", and becomes what the job's mode says:

    script   the program, as __main__, on stdin and stdout; the socket is closed first
    serve    the program, then answers to calls of its functions over the socket (`serve.py`)
    examine  tests of a data set, whose calls go to a `serve` process (`examine.py`)
    exec     another program: a compiled one, or the compiler

Exit code 97 before "ready" means that the confinement could not be set up: nothing untrusted has run.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # `typing` costs milliseconds in every sandbox
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

FAILED_TO_CONFINE = 97


def main() -> None:
    """Read the job, confine, become the job."""
    fd = int(sys.argv[1])
    package = type(sys)("inside")  # the folder as a package, without r1cli and without a search path to it
    package.__path__ = [os.path.dirname(os.path.abspath(__file__))]  # noqa: PTH100, PTH120  # pathlib costs milliseconds here
    sys.modules["inside"] = package
    from inside import channel, confine

    job = channel.receive_job(fd)
    run = _prepared(job, fd)
    try:
        confine.confine(job)
    except OSError as error:
        channel.send(fd, {"failed": str(error)})
        os._exit(FAILED_TO_CONFINE)
    sys.path[:] = job["path"]
    channel.send_bytes(fd, channel.READY)
    run()


def _prepared(job: dict[str, Any], fd: int) -> Callable[[], None]:
    """What the job asks to run, with everything imported that lies outside the folders it will be able to read."""
    if job["mode"] == "exec":
        os.set_inheritable(fd, False)
        return lambda: os.execve(job["command"][0], job["command"], dict(os.environ))
    if job["mode"] == "examine":
        from inside import examine

        return lambda: examine.examine(job, fd)
    from inside import script

    if job["mode"] == "script":
        return lambda: script.run(job["source"], fd)
    from inside import serve

    return lambda: serve.serve(job["source"], fd)


if __name__ == "__main__":
    main()
