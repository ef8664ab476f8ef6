"""Run a program as a script: stdin, stdout, and an end of its own making."""

import os
import sys


def run(source: str, fd: int) -> None:
    """The program as __main__; what it raises ends the process as in any script. The socket to the judge is closed first."""
    os.close(fd)
    module = type(sys)("__main__")
    sys.modules["__main__"] = module
    sys.argv = ["solution.py"]
    exec(compile(source, "solution.py", "exec"), module.__dict__)
