"""One job at a time in a directory: a lock that the operating system takes back when its process ends, however it ends.

A POSIX record lock, and not flock: processes forked by the holder (samplers, reward workers) do not inherit it, so that it never outlives
the one that writes, and NFS passes it on to other machines. Within one process it does not exclude anybody.
"""

import errno
import fcntl
import logging
import os
import socket
import time
from pathlib import Path
from typing import IO

from r1cli.errors import Exit, R1Error

LOCK = ".lock"
WAIT_SECONDS = 60.0  # that a process which was told to end may take to save what it has
LOOK_SECONDS = 1.0  # that another job which looks whether the directory is free (`check_free`) may hold it
_TAKEN = (errno.EACCES, errno.EAGAIN)


class Lock:
    """The lock of a directory, taken when made and given back by `close`. A file system that knows no locks is warned about.

    seconds: how long to wait for another process to end. Raises `R1Error` (exit 2) when it does not, `OSError` when nothing can be written.
    held: whether it keeps others out.
    """

    def __init__(self, directory: Path, seconds: float = 0.0) -> None:
        self._file = (directory / LOCK).open("a+", encoding="utf-8")
        try:
            self.held = _wait(self._file, fcntl.LOCK_EX, directory, max(seconds, LOOK_SECONDS))
        except BaseException:
            self._file.close()
            raise
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def check_free(directory: Path, seconds: float = 0.0) -> None:
    """Refuse (`R1Error`, exit 2) a directory that another process holds, without touching anything.

    Not for a process that may hold it itself: closing the file would give its lock back.
    """
    try:
        with (directory / LOCK).open(encoding="utf-8") as file:
            _wait(file, fcntl.LOCK_SH, directory, seconds)
    except OSError:  # no lock yet, or none of ours to look at: who opens the directory will tell
        return


def _wait(file: IO[str], kind: int, directory: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    said = False
    while True:
        try:
            fcntl.lockf(file, kind | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in _TAKEN:
                logging.getLogger("r1cli").warning(
                    "`%s` cannot be locked (%s): see that no other job writes there", directory, error.strerror
                )
                return False
        if time.monotonic() >= deadline:
            file.seek(0)
            raise R1Error(
                f"run directory `{directory}` is being written by another job ({file.read() or 'unknown'})",
                hint="wait for it or end it, or give -o another name",
                code=Exit.USAGE,
            )
        if not said and seconds > LOOK_SECONDS:
            logging.getLogger("r1cli").warning("waiting up to %.0f s for another job to leave `%s`", seconds, directory)
            said = True
        time.sleep(0.2)
