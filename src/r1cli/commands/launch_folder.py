"""The folder that the processes of a launch share with it (`launch.py`): their notes, what is piped in, their stderr."""

import fcntl
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

YOUNG_SECONDS = 60.0  # a folder of a launch may not be locked yet


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder that goes at the end. A launch that is killed cannot remove its own: the next one does, when its lock is free."""
    prefix = f"r1-launch-{socket.gethostname()}-"  # other machines may share the disk, and not their locks
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):
            found = left.lstat()
            if found.st_uid == os.getuid() and time.time() - found.st_mtime > YOUNG_SECONDS:
                with _locked(left):
                    shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    with ExitStack() as held:
        held.callback(shutil.rmtree, folder, ignore_errors=True)
        with suppress(OSError):
            held.enter_context(_locked(folder))
        yield folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder, at most until this process ends. Raises `OSError` when another one does, and where a disk knows no locks."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(held)
