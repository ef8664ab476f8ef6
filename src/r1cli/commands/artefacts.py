"""The files a run makes on its way to a model: each whole or not at all, kept, and reused when what it follows from has not changed.

Beside each file lies its manifest with `follows_from`: the settings and the hashes of the inputs that decide its content. A file without
one was not finished. One that follows from other settings is made again, and so is all that follows from it; once a model has been trained
on it that is refused, because the run would then say of its model what is not true of it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.io import manifest
from r1cli.io.checkpoint_folders import checkpoints
from r1cli.io.stream import RowWriter
from r1cli.row import Row

Facts = Mapping[str, Any]


class Artefacts:
    """The artefacts of one run directory. settings: those of the run, for the manifests. say: told what is made again, and why."""

    def __init__(self, path: Path, settings: Any, say: Callable[[str], None]) -> None:
        self.path = path
        self._settings = settings
        self._say = say

    def rows(
        self,
        name: str,
        facts: Facts,
        make: Callable[[], Iterable[Row]],
        *,
        inputs: Iterable[str | Path] = (),
        counts: Callable[[], Facts] = dict,
    ) -> Path:
        """The row file of this name: the one that is there if it follows from these facts, else written anew.

        inputs: the files it is made from, for `r1 lineage`. counts: figures for its manifest, asked for when it is written.
        """
        file = self.path / name
        changed = self.changes(name, facts)
        if changed == []:
            return file
        if changed is not None:
            self.refuse_if_trained(name, changed)
            self._say(f"`{name}` is made again: {_in_words(changed)}")
        with RowWriter(file, force=True) as writer:
            writer.write_all(make())
        self.note(name, facts, {"rows": writer.count, **counts()}, inputs)
        return file

    def changes(self, name: str, facts: Facts) -> list[tuple[str, Any, Any]] | None:
        """(fact, then, now) of what differs from the facts that a file was made from; None when there is no such file, or half of one."""
        old = self.facts(name)
        if old is None:
            return None
        return [(key, old.get(key), facts.get(key)) for key in {**old, **facts} if old.get(key) != facts.get(key)]

    def facts(self, name: str) -> Facts | None:
        """What a file was made from; None when there is no such file, or half of one."""
        found = manifest.read(self.path / name) if (self.path / name).is_file() else None
        return None if found is None else found.get("follows_from")

    @property
    def trained(self) -> bool:
        """Whether the run holds a model, or a checkpoint to go on from."""
        return bool(checkpoints(self.path)) or (self.path / "final").exists()

    def refuse_if_trained(self, name: str, changed: Sequence[tuple[str, Any, Any]]) -> None:
        """Raise `R1Error` (exit 2) when a model has been trained on what is about to change."""
        if self.trained:
            raise R1Error(
                f"`{self.path}` holds a model trained on another `{name}`: {_in_words(changed)}",
                hint="--force throws the run away and starts anew, or give -o another name",
                code=Exit.USAGE,
            )

    def note(self, name: str, facts: Facts, counts: Facts, inputs: Iterable[str | Path] = (), **models: str | None) -> None:
        """Declare a file finished. models: `teacher=` or `model=`, what it was drawn from."""
        settings = {**manifest.plain(self._settings), "student": None, "teacher": None, **models}
        manifest.write(
            self.path / name,
            command="distill",
            settings=settings,
            inputs=[manifest.describe(file) for file in inputs],
            counts=counts,
            outputs=[self.path / name],
            follows_from=dict(facts),
        )


def hashes(files: Iterable[str | Path]) -> dict[str, str]:
    """The hash of each file by its name; what is no plain file (stdin, a data set) stands by its name alone."""
    return {str(file): manifest.sha256(Path(file)) if Path(file).is_file() else "" for file in files}


def _in_words(changed: Sequence[tuple[str, Any, Any]]) -> str:
    return ", ".join(
        f"{name} differs" if isinstance(then, dict) or isinstance(now, dict) else f"{name} was {then}, now {now}"
        for name, then, now in changed
    )
