"""A file of JSON lines that belong to steps (`metrics.jsonl`, `samples.jsonl`): whole lines, and none of a step that is made again."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from r1cli.errors import R1Error, of_disk
from r1cli.io.jsonl import repair_tail
from r1cli.row import dump


class StepLines:
    """The open file; a line is on its way to the disk when `write` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _append(path)

    def write(self, record: Mapping[str, Any]) -> None:
        """Add a line. Raises `R1Error` for a number that is not finite, and when the disk is full."""
        try:
            self._file.write(dump(dict(record)) + "\n")
        except ValueError as error:
            raise R1Error(
                f"step {record.get('step')}: {self.path.name} would hold a number that is not finite ({error})",
                hint="the run has diverged: lower --lr, or look at the last checkpoint",
            ) from None
        except OSError as error:
            hint = of_disk(error, ", then continue with --resume")
            raise R1Error(f"cannot write {self.path.name}: {error.strerror}", hint=hint) from None

    def sync(self) -> None:
        """Have the disk keep all lines, after a power loss too."""
        os.fsync(self._file.fileno())

    def rewind(self, step: int) -> None:
        """Cut a torn last line and every line past a step: the resumed run writes them again. Lines that are no such record go too, with
        a warning: a power loss may leave a file its length without its content."""
        self.close()
        repair_tail(self.path)
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        damaged = 0
        with self.path.open("rb") as old, temporary.open("wb") as new:
            for line in old:
                of_step = _step_of(line)
                damaged += of_step is None
                if of_step is not None and of_step <= step:
                    new.write(line)
            new.flush()
            os.fsync(new.fileno())
        temporary.replace(self.path)
        self._file = _append(self.path)
        if damaged:
            logging.getLogger("r1cli").warning("`%s`: %d damaged lines left out (a power loss leaves such)", self.path, damaged)

    def close(self) -> None:
        self._file.close()


def _append(path: Path) -> IO[str]:
    return path.open("a", buffering=1, encoding="utf-8", newline="\n")


def _step_of(line: bytes) -> int | None:
    """The step that a line belongs to; None for one that is damaged."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    step = record.get("step", 0) if isinstance(record, dict) else None
    return step if isinstance(step, int) else None
