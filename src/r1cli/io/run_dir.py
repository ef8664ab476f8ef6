"""A run directory: everything a training run leaves behind, whole lines and whole folders only.

    config.json            command, command line, every setting with the layer that set it, versions
    env.json               machine, packages, git commit          code.diff   what the git trees held beyond their commit
    metrics.jsonl          one object a step                      samples.jsonl   readable completions
    checkpoints/step_000100/   whole iff its manifest.json, written last, exists
    final/                 the last model, whole iff its manifest.json exists
    held_out.json          what a reward model is worth on --held-out
    trackers/              what --track tensorboard writes
    logs/attempt_1/        config.json and env.json of each start; logs/latest points at the newest

Only one process of a run opens it (rank 0).
"""

import json
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

from r1cli.errors import Exit, R1Error
from r1cli.io import manifest
from r1cli.io.environment import code_diff, environment
from r1cli.io.jsonl import repair_tail
from r1cli.row import dump

_FILES = ("config.json", "env.json", "code.diff", "metrics.jsonl", "samples.jsonl", "held_out.json", "manifest.json")
_CONTENTS = (*_FILES, "checkpoints", "final", "logs", "trackers")
_STEP = re.compile(r"step_(\d{6,})")


class RunDir:
    """An open run directory. Make one with `RunDir.open`; close it (or use it as a context manager) at the end.

    path: the directory. final: its `final/`. attempt: 1 for the first start, 2 for the first resumption ... logs: this attempt's folder.
    resumed_step: the step of the checkpoint a resumed run goes on from, None when it starts at 0.
    changed: settings that differ from those the run was started with, name -> (then, now).
    """

    def __init__(self, path: Path, attempt: int, resumed_step: int | None, changed: dict[str, tuple[Any, Any]], keep: int | None) -> None:
        self.path = path
        self.final = path / "final"
        self.attempt = attempt
        self.logs = path / "logs" / f"attempt_{attempt}"
        self.resumed_step = resumed_step
        self.changed = changed
        self.started = time.time()
        self._keep = keep
        self._metrics = _append(path / "metrics.jsonl")
        self._samples = _append(path / "samples.jsonl")

    @classmethod
    def open(
        cls, path: str | Path, *, settings: Any, sources: Mapping[str, str], command: str, resume: bool = False, force: bool = False
    ) -> Self:
        """Make or continue a run directory.

        A directory that holds anything is refused (`R1Error`, exit 2) unless `resume` or `force`. `force` removes what a run left there,
        and only from a run directory. `resume` drops a torn last line and all lines after the newest whole checkpoint; in a directory
        that holds no run it starts one, so that a job script may always pass it. sources: setting -> "flag", "environment", "file" ...
        """
        path = Path(path)
        if resume and force:
            raise R1Error(
                "--resume and --force exclude each other", hint="--resume continues the run, --force throws it away", code=Exit.USAGE
            )
        step, before = _prepare(path, resume=resume, force=force)
        config = {
            "command": command,
            "command_line": sys.argv,
            "directory": str(Path.cwd()),
            "settings": manifest.plain(settings),
            "sources": dict(sources),
            "versions": manifest.versions(),
        }
        attempt = 1 + max((int(p.name.removeprefix("attempt_")) for p in (path / "logs").glob("attempt_*")), default=0)
        run = cls(path, attempt, step, _differences(before, config), getattr(settings, "keep", None))
        run._note_start(config)
        return run

    def _note_start(self, config: dict[str, Any]) -> None:
        self.logs.mkdir(parents=True)
        found = environment()
        for folder in (self.path, self.logs):
            manifest.write_json(folder / "config.json", config)
            manifest.write_json(folder / "env.json", found)
        diff = code_diff()
        if diff:
            (self.path / "code.diff").write_text(diff, "utf-8")
        latest = self.path / "logs" / "latest"
        latest.unlink(missing_ok=True)
        latest.symlink_to(self.logs.name)

    def metrics(self, record: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl. It must have an integer `step`; `time` (seconds since the epoch) is added. No NaN, no infinity."""
        if not isinstance(record.get("step"), int):
            raise ValueError(f"a metrics record needs an integer step, got {record.get('step')!r}")
        _write_line(self._metrics, {"step": record["step"], "time": round(time.time(), 3), **record}, "metrics.jsonl")

    def samples(self, rows: Iterable[Mapping[str, Any]], step: int | None = None) -> None:
        """Add rows to samples.jsonl; `step` is put in front of each, so that a resumed run can tell which ones to drop."""
        for row in rows:
            _write_line(self._samples, row if step is None else {"step": step, **row}, "samples.jsonl")

    @contextmanager
    def checkpoint(self, step: int, **facts: Any) -> Iterator[Path]:
        """The folder to save step `step` into; whole, with its manifest, once the block ends without an error.

        Older checkpoints beyond the newest `keep` are removed then. facts go into the manifest.
        """
        folder = checkpoint_folder(self.path, step)
        _remove(folder)
        folder.mkdir(parents=True)
        yield folder
        manifest.write(folder, command="checkpoint", started=self.started, step=step, **facts)
        if self._keep is not None:
            for old in checkpoints(self.path)[: -self._keep]:
                _remove(old)

    def latest_checkpoint(self) -> Path | None:
        """The newest whole checkpoint."""
        return next(iter(reversed(checkpoints(self.path))), None)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Declare `final/` whole and the run done: both get a manifest made of these facts (see `manifest.write`)."""
        facts = {"started": self.started, "attempts": self.attempt, **facts}
        if self.final.is_dir():
            manifest.write(self.final, **facts)
        manifest.write(self.path, **facts)

    def close(self) -> None:
        self._metrics.close()
        self._samples.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_run_dir(path: str | Path) -> bool:
    """Whether a folder is a run directory, by its config.json."""
    config = Path(path) / "config.json"
    if not config.is_file():
        return False
    try:
        value = json.loads(config.read_text("utf-8"))
    except ValueError:
        return False
    return isinstance(value, dict) and "command" in value and "settings" in value


def checkpoint_folder(path: str | Path, step: int) -> Path:
    """Where a run's checkpoint of a step is."""
    return Path(path) / "checkpoints" / f"step_{step:06d}"


def checkpoints(path: str | Path) -> list[Path]:
    """The whole checkpoints of a run directory, oldest first."""
    found = [folder for folder in (Path(path) / "checkpoints").glob("step_*") if _STEP.fullmatch(folder.name)]
    return sorted((folder for folder in found if (folder / manifest.NAME).is_file()), key=_step_of)


def final_or_latest(path: str | Path) -> Path | None:
    """The model of a run directory: `final/` when it is whole, else its newest whole checkpoint."""
    final = Path(path) / "final"
    return final if (final / manifest.NAME).is_file() else next(iter(reversed(checkpoints(path))), None)


def check_unused(path: str | Path, *, resume: bool = False, force: bool = False) -> bool:
    """Refuse (`R1Error`, exit 2) what `RunDir.open` would refuse, without touching anything; whether there is a run already."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise R1Error(f"`{path}` is a file, not a run directory", hint="give -o another name", code=Exit.USAGE)
    used = path.is_dir() and any(path.iterdir())
    if used and not is_run_dir(path):
        raise R1Error(f"`{path}` holds files that are not a run's", hint="give -o another name", code=Exit.USAGE)
    if used and not resume and not force:
        raise R1Error(
            f"run directory `{path}` is in use",
            hint="--resume continues it, --force starts it anew, or give -o another name",
            code=Exit.USAGE,
        )
    return used


def _prepare(path: Path, *, resume: bool, force: bool) -> tuple[int | None, dict[str, Any] | None]:
    """Make the directory ready; the step to resume from and the configuration of the attempt before."""
    used = check_unused(path, resume=resume, force=force)
    if used and force:
        for name in _CONTENTS:
            _remove(path / name)
    try:
        (path / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise R1Error(f"cannot make run directory `{path}`: {error.strerror}", hint="give -o another name", code=Exit.USAGE) from None
    if not used or force:
        return None, None
    latest = next(iter(reversed(checkpoints(path))), None)
    step = None if latest is None else _step_of(latest)
    for name in ("metrics.jsonl", "samples.jsonl"):
        _drop_after(path / name, step or 0)
    return step, json.loads((path / "config.json").read_text("utf-8"))


def _drop_after(path: Path, step: int) -> None:
    """Cut a torn last line and every line past a step: the resumed run writes them again."""
    if not path.exists():
        return
    repair_tail(path)
    temporary = path.with_name(f".{path.name}.tmp")
    with path.open("rb") as old, temporary.open("wb") as new:
        new.writelines(line for line in old if json.loads(line).get("step", 0) <= step)
    temporary.replace(path)


def _differences(before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    if before is None:
        return {}
    old, new = before["settings"], json.loads(json.dumps(now["settings"]))
    names = [name for name in {**old, **new} if name not in ("resume", "force")]
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def _append(path: Path) -> IO[str]:
    return path.open("a", buffering=1, encoding="utf-8", newline="\n")


def _write_line(file: IO[str], record: Mapping[str, Any], name: str) -> None:
    try:
        file.write(dump(dict(record)) + "\n")
    except ValueError as error:
        raise R1Error(
            f"step {record.get('step')}: {name} would hold a number that is not finite ({error})",
            hint="the run has diverged: lower --lr, or look at the last checkpoint",
        ) from None
    except OSError as error:
        raise R1Error(f"cannot write {name}: {error.strerror}", hint="free some space, then continue with --resume") from None


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def _remove(path: Path) -> None:
    """Remove a file or folder; a folder's manifest goes first, so that what an interruption leaves does not look whole."""
    if path.is_dir() and not path.is_symlink():
        (path / manifest.NAME).unlink(missing_ok=True)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
