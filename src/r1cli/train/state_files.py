"""torch's files in a checkpoint: written or an `OSError`, read without executing anything in them (`weights_only`) or an `R1Error`."""

import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError

from r1cli.errors import Exit, R1Error


@contextmanager
def writing() -> Iterator[None]:
    """Around what writes files: torch and safetensors have errors of their own for a full disk."""
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        raise OSError(" ".join(str(error).split())) from error


def write(state: dict[str, Any], path: Path) -> None:
    """Write numbers, texts and tensors. Raises what the disk says: torch's own writer only says where in the file it was."""
    with path.open("wb") as plain:
        file = _Remembering(plain)
        with writing():
            try:
                torch.save(state, file)
            except RuntimeError:
                if file.error is not None:
                    raise file.error from None
                raise


class _Remembering:
    """A file for torch, whose writer in C++ may raise an error of its own in place of one of the file's, or of a signal's."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.flush = file, file.flush
        self.error: BaseException | None = None  # the first one

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except BaseException as error:
            self.error = self.error or error
            raise


def read(path: Path, *names: str, mmap: bool = False) -> dict[str, Any]:
    """What `write` wrote, on the CPU. names: what must be in it. mmap: tensors come from the disk as they are used.

    Raises `R1Error` (exit 2) for a file that is torn, not torch's, or holds more than numbers, texts and tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise _refusal(path, " ".join(str(error).split()).partition(". ")[0]) from error
    lacking = [name for name in names if not isinstance(state, dict) or name not in state]
    if lacking:
        raise _refusal(path, f"it has no `{lacking[0]}`")
    return state


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint. Raises `R1Error` (exit 2) for a file that is torn, or no such thing."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _refusal(path, str(error)) from error
    if not isinstance(value, dict):
        raise _refusal(path, "it is not a JSON object")
    return value


def of_process(folder: Path, file_name: Callable[[int], str], process: int, processes: int, *names: str) -> dict[str, Any]:
    """What a process wrote into a checkpoint; the first one's where it wrote none because they were fewer (`processes` says how many).

    Raises `R1Error` (exit 2) for a file that is missing or not one of these: the process would go on from another place than it was at.
    """
    own, first = (folder / file_name(number) for number in (process, 0))
    path = own if own.is_file() else first
    if not path.is_file():
        raise missing(first)
    state = read(path, "processes", *names)
    if path != own and state["processes"] == processes:
        raise R1Error(
            f"`{own}` is missing: each of the {processes} processes wrote such a file",
            hint="-o must name a directory on a disk that all machines share",
            code=Exit.USAGE,
        )
    return state


def missing(path: Path) -> R1Error:
    """Of a checkpoint without one of its files."""
    return R1Error(f"`{path.parent}` has no `{path.name}` to resume from", hint=way_out(path.parent), code=Exit.USAGE)


def _refusal(path: Path, why: str) -> R1Error:
    return R1Error(
        f"`{path}` is not what a checkpoint of r1 holds: {why}",
        hint=way_out(path.parent),
        code=Exit.USAGE,
    )


def way_out(checkpoint: Path) -> str:
    """What to do about a checkpoint that is damaged."""
    return f"remove `{checkpoint}`: --resume then takes the checkpoint before it"
