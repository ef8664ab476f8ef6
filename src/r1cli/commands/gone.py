"""A checkpoint that goes while it is read: a run that still trains keeps its newest few, and `-m RUN` may have taken another one.

What a library says then ("Repo id must be in the form ...") names neither.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from r1cli.errors import R1Error
from r1cli.io.checkpoint_folders import checkpoints
from r1cli.io.hub import taken
from r1cli.io.whole_folder import is_whole


@contextmanager
def naming_gone() -> Iterator[None]:
    """Around a command: an error about a checkpoint that was whole when it was taken, and is not any more, becomes one that says so."""
    try:
        yield
    except Exception as error:
        text = " ".join(str(part) for part in (error, getattr(error, "filename", None), error.__cause__, error.__context__))
        for folder in taken():
            if str(folder) in text and not is_whole(folder):
                raise _gone(folder) from error
        raise


def _gone(folder: Path) -> R1Error:
    if folder.parent.name != "checkpoints":
        return R1Error(
            f"`{folder}` was removed, or is being replaced, while it was read", hint="try again, or name another one with --model"
        )
    left = checkpoints(folder.parent.parent)
    newest = f"`{left[-1]}` is the newest now: name it" if left else "name another one"
    return R1Error(
        f"`{folder}` was removed while it was read: a run that goes on keeps only its newest checkpoints (--keep)",
        hint=f"{newest} with --model, copy it first, or raise --keep of that run",
    )
