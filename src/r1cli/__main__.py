"""`python -m r1cli` and the console script `r1`."""

import atexit
import contextlib
import os
import sys


def main() -> None:
    """Run `r1` with the words of the command line and end the process with its exit code."""
    try:
        from r1cli.cli import main as run
    except KeyboardInterrupt:  # before anything has begun
        os._exit(130)
    end(run())


def end(code: int) -> None:
    """End the process as the interpreter would, but without taking its modules apart.

    With torch and vLLM loaded that takes seconds, which `| head -1` and Ctrl-C would wait for, and frees nothing that the end of the
    process does not free as well.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or None
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
