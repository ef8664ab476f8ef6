"""How long the first save of a run will take: `--time-limit` must leave time for it before there is one that tells.

Guessed from what it writes and from what the disk takes now: a part of it is written beside it and kept by the disk as a checkpoint is,
into a file that has no name any more, so that nothing of it stays, whatever ends the process. Twice that, as a disk that others use may be
slower by then, and as tensors have to be gathered and packed.
"""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from r1cli.commands.disk_room import MIB, checkpoint_size
from r1cli.train.agreement import of_all

if TYPE_CHECKING:
    from r1cli.commands.training import Training

PART = 64 * MIB
# bytes a second, however fast the disk takes a part: tensors are packed by one thread, and a long write outgrows what a disk has in front
# of it (190 to 310 MiB/s for 1.2 GiB on a disk that took 64 MiB at 1 GiB/s)
FASTEST = 256 * MIB
SLOW = 32 * MIB  # of a disk that does not take a part
MARGIN = 2.0
LEAST = 1.0  # seconds: a checkpoint is a dozen files, each of them kept by the disk before the next


def first_save(training: "Training") -> float:
    """Seconds, the same in every process, and each must call it: it leaves its sampler by its own clock. 0.0 without a time limit."""
    if getattr(training.settings, "time_limit", None) is None:
        return 0.0
    guess = 0.0
    if training.run is not None:  # the process that writes
        size = checkpoint_size(training)
        guess = LEAST + MARGIN * size / min(FASTEST, speed(training.run.path, min(size, PART)))
    return max(of_all(training.accelerator, [guess]))


def speed(folder: Path, size: int) -> float:
    """Bytes a second that the disk of a folder takes and keeps, by a file of that size (at least a MiB)."""
    path, block = folder / f".speed_{os.getpid()}", os.urandom(MIB)  # a disk may compress
    count = max(1, size // MIB)
    started = time.perf_counter()
    try:
        with path.open("wb") as file:
            path.unlink()
            for _ in range(count):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        return count * MIB / max(time.perf_counter() - started, 1e-9)
    except OSError:  # full, which is for the save to say
        return SLOW
