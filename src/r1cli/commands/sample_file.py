"""The output of `r1 sample` between two attempts: what is in it, how it was drawn, and who is writing it now.

Beside `out.jsonl` stands `.out.jsonl.drawing` while rows are drawn: it says with which settings, and is locked by the process that writes.
It goes when the manifest, which says the same, is there. A second process is refused, and so is `--resume` with settings that would make
other rows: half a file of each is no sample of anything.
"""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from r1cli.errors import Exit, R1Error
from r1cli.io import manifest
from r1cli.io.jsonl import read_file, repair_tail
from r1cli.row import Row, seed_of
from r1cli.settings import SampleSettings
from r1cli.text.templates import CHAT_TEMPLATES

DECIDES = (
    "model",
    "seed",
    "template",
    "system",
    "think_prefix",
    "shuffle_choices",
    "map",
    "few_shot",
    "shots",
    "temperature",
    "top_p",
    "top_k",
    "max_completion_length",
    "stop",
    "logprobs",
    "rewards",
    "until",
)
WEIGHTS = "weights"  # beside them: the fingerprint of the model's, where they are in a folder here


def template_of(settings: Any) -> str:
    """The name of a template, or the hash of the file it is in."""
    template = str(settings.template)
    return template if template in CHAT_TEMPLATES or not Path(template).is_file() else manifest.sha256(Path(template))


def other_weights(path: Path, model: str) -> R1Error:
    """Of completions that another model of the same name has drawn, and that are not all there."""
    return R1Error(
        f"`{path}` was drawn by other weights than `{model}` has now",
        hint="put those weights back, or start anew: another -o, or --force (a run stands for its newest checkpoint: name one that stays)",
        code=Exit.USAGE,
    )


def described(settings: SampleSettings) -> dict[str, Any]:
    """The settings that decide what a row holds; files by the hash of their contents."""
    found: dict[str, Any] = {name: getattr(settings, name) for name in DECIDES}
    found["template"] = template_of(settings)
    if settings.few_shot is not None and Path(settings.few_shot).is_file():
        found["few_shot"] = manifest.sha256(Path(settings.few_shot))
    if settings.until is not None:
        found["samples"] = settings.samples  # the size of a round
    return found


class SampleFile:
    """A context manager around the writing of `settings.out`; does nothing for stdout and for files that are not plain .jsonl.

    drawn_with: what decides the rows, for the manifest.
    """

    def __init__(self, settings: SampleSettings) -> None:
        self._settings = settings
        self._out = Path(settings.out)
        self.continues = settings.out.endswith(".jsonl") and (not self._out.exists() or self._out.is_file())
        self._drawing = self._out.with_name(f".{self._out.name}.drawing")
        self._lock: IO[str] | None = None
        self.drawn_with = described(settings)
        if settings.resume and settings.force:
            raise R1Error("--resume keeps the output and --force replaces it", hint="leave one of them out", code=Exit.USAGE)
        if settings.resume and not self.continues:
            raise R1Error(
                f"--resume needs a plain .jsonl file to continue, --out is `{settings.out}`", hint="-o FILE.jsonl", code=Exit.USAGE
            )

    def __enter__(self) -> Self:
        if not self.continues:
            return self
        self._drawing.parent.mkdir(parents=True, exist_ok=True)
        self._lock = self._drawing.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however it ends
        except BlockingIOError:
            self._lock.close()
            self._lock = None
            raise R1Error(
                f"`{self._out}` is being written by another `r1 sample`", hint="wait for it, or give --out another name", code=Exit.USAGE
            ) from None
        if self._settings.resume and self._out.exists():
            self._check()
        self._note()
        return self

    def _note(self) -> None:
        if self._lock is not None:
            self._lock.truncate(0)
            json.dump(self.drawn_with, self._lock, ensure_ascii=False)
            self._lock.flush()

    def drawn_by(self, weights: str) -> None:
        """Called before the model draws what is missing. Raises `R1Error` (exit 2) when another one has drawn the rows that are there.

        They may all be there, and their model be another by now: nobody asks it anything then, so that is no error.
        """
        before = self.drawn_with.get(WEIGHTS)
        if before not in (None, weights):
            raise other_weights(self._out, self._settings.model)
        if before is None:
            self.drawn_with[WEIGHTS] = weights
            self._note()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._lock is not None:
            if kind is None and manifest.path_for(self._out).exists():
                self._drawing.unlink(missing_ok=True)
            self._lock.close()

    def _check(self) -> None:
        """Refuse to continue what was drawn with other settings."""
        assert self._lock is not None
        self._lock.seek(0)
        before: dict[str, Any] = {}
        with contextlib.suppress(ValueError):  # killed while it was written: the first row still tells model and seed
            before = json.loads(self._lock.read())
        if not before:
            before = (manifest.read(self._out) or {}).get("drawn_with") or {}
        for name, value in self.drawn_with.items():
            if name in before and before[name] != value:
                raise self._other(name, before[name])
        if WEIGHTS in before and self._out.stat().st_size:  # of a file without a row nothing was drawn
            self.drawn_with[WEIGHTS] = before[WEIGHTS]

    def _other(self, name: str, value: object) -> R1Error:
        return R1Error(
            f"`{self._out}` was drawn with another --{name.replace('_', '-')}",
            code=Exit.USAGE,
            hint=f"it was `{value}`; give --out another name, or start anew with --force",
        )

    def rows(self) -> Iterator[Row]:
        """The whole rows that are there; a torn last line is cut off first. Raises `R1Error` when they are not of `r1 sample`."""
        if not self._settings.resume or not self._out.exists():
            return
        repair_tail(self._out)
        for number, item in enumerate(read_file(self._out, "")):
            if isinstance(item, R1Error):
                raise item
            if not isinstance(item.get("id"), str | int | float) or not isinstance(item.get("sample"), int):
                raise R1Error(
                    f"{item.where}: not a row of `r1 sample`: it has no `id` and `sample`",
                    hint="give --out another name, or start anew with --force",
                    code=Exit.USAGE,
                )
            if number == 0:
                expected = {"model": self._settings.model, "seed": seed_of(self._settings.seed, item["id"], item["sample"])}
                for field, value in expected.items():
                    if item.get(field) != value:
                        raise self._other(field, item.get(field))
            yield item
