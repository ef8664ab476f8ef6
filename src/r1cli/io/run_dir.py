"""A run directory: everything a training run leaves behind, whole lines and whole folders only.

    config.json            command, command line, every setting with the layer that set it, versions
    env.json               machine, packages, git commit          code.diff   what the git trees held beyond their commit
    metrics.jsonl          one object a step                      samples.jsonl   readable completions
    checkpoints/step_000100/   whole iff its manifest.json, written last, exists
    final/                 the last model, whole iff its manifest.json exists
    held_out.json          what a reward model is worth on --held-out
    trackers/              what --track tensorboard writes
    logs/attempt_1/        config.json and env.json of each start; logs/latest points at the newest
    .lock                  held by the process that writes here

Only one process of a run opens it (rank 0), and only one run at a time.
"""

import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from r1cli import clock
from r1cli.errors import Exit, R1Error, of_disk
from r1cli.io import manifest
from r1cli.io.checkpoint_folders import checkpoint_folder, checkpoints, clear, latest_step, replacing
from r1cli.io.environment import code_diff, environment
from r1cli.io.lock import LOCK, WAIT_SECONDS, Lock, check_free
from r1cli.io.run_config import CONFIG, ORDER, ROWS_OF_A_STEP, asked_for, check_order, check_same, differences, is_run_dir, read_config
from r1cli.io.step_lines import StepLines
from r1cli.io.whole_folder import declare_whole, filling, is_whole, remove, remove_if_possible

_FILES = ("env.json", "code.diff", "metrics.jsonl", "samples.jsonl", "held_out.json")
_CONTENTS = (manifest.NAME, "final", "checkpoints", *_FILES, "logs", "trackers")  # in the order in which --force removes them
DATA = "data"  # in the manifest of a checkpoint and of `final/`: the digest of what it was trained on
BASE = "base"  # in the manifest of an adapter's checkpoint: the fingerprint of the weights that it belongs to
PROMPTS = "prompts.jsonl"  # of `r1 distill`: a copy of its input, which took no work
HELD_OUT = "held_out_data"  # there as well: the digest of the rows that are measured
_HALF_CONFIG = re.compile(rf"\.{re.escape(CONFIG)}\.\d+\.tmp")  # of a first start that was killed


class RunDir:
    """An open run directory. Make one with `RunDir.open`; close it (or use it as a context manager) at the end.

    path: the directory. final: its `final/`. attempt: 1 for the first start, 2 for the first resumption ... logs: this attempt's folder.
    resumed_step: the step of the checkpoint a resumed run goes on from, None when it starts at 0.
    changed: settings that differ from those the run was started with, name -> (then, now).
    """

    def __init__(
        self, path: Path, lock: Lock, attempt: int, resumed_step: int | None, changed: dict[str, tuple[Any, Any]], keep: int | None
    ) -> None:
        self.path = path
        self.final = path / "final"
        self.attempt = attempt
        self.logs = path / "logs" / f"attempt_{attempt}"
        self.resumed_step = resumed_step
        self.changed = changed
        self.started = time.time()
        self._keep = keep
        self._lock = lock
        self._metrics, self._samples = StepLines(path / "metrics.jsonl"), StepLines(path / "samples.jsonl")

    @classmethod
    def open(
        cls, path: str | Path, *, settings: Any, sources: Mapping[str, str], command: str, resume: bool = False, force: bool = False
    ) -> Self:
        """Make or continue a run directory.

        A directory that holds anything is refused (`R1Error`, exit 2) unless `resume` or `force`, but not what a run left that ended before
        its first step: that is removed. `force` removes what a run left, and only from a run directory. `resume` drops a torn last line and
        all lines after the newest whole checkpoint, unless `final/` is whole (see `rewind`); in a directory that holds no run it starts
        one, so that a job script may always pass it; one of another run is refused (`check_same`). So is one that another process writes
        to; `resume` waits for that first (`lock.WAIT_SECONDS`).
        sources: setting -> "flag", "environment", "file" ...
        """
        _check_wish(path, resume=resume, force=force)
        path = Path(path)
        asked = asked_for(command, settings)
        config = {**asked, "began": clock.began(), "command_line": sys.argv, "sources": dict(sources), "versions": manifest.versions()}
        _check_use(path, asked, resume=resume, force=force)  # before a lock is put into somebody else's folder
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = Lock(path, WAIT_SECONDS if resume else 0.0)
            step, before = _prepare(path, config, resume=resume, force=force, alone=lock.held)
            changed = {} if before is None else differences(before, asked)
            run = cls(path, lock, 1 + attempts(path), step, changed, getattr(settings, "keep", None))
            if not is_whole(run.final):
                run.rewind()
            run._note_start(config)
        except OSError as error:
            raise R1Error(
                f"cannot make run directory `{path}`: {error.strerror}",
                hint=of_disk(error, ", or give -o another name"),
                code=Exit.USAGE,
            ) from None
        return run

    def _note_start(self, config: dict[str, Any]) -> None:
        self.logs.mkdir(parents=True)
        found = environment()
        manifest.write_json(self.path / "env.json", found)
        manifest.write_json(self.logs / CONFIG, config)
        manifest.write_json(self.logs / "env.json", found)
        diff = code_diff()
        if diff:
            (self.path / "code.diff").write_text(diff, "utf-8")
        latest = self.path / "logs" / "latest"
        remove(latest)  # a folder where the run was copied with links followed
        latest.symlink_to(self.logs.name)

    def rewind(self) -> None:
        """Drop what was written after the step that the run goes on from. A run that is done keeps it until it is made longer."""
        for lines in (self._metrics, self._samples):
            lines.rewind(self.resumed_step or 0)

    def metrics(self, record: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl. It must have an integer `step`; `time` (seconds since the epoch) is added. No NaN, no infinity."""
        if not isinstance(record.get("step"), int):
            raise ValueError(f"a metrics record needs an integer step, got {record.get('step')!r}")
        self._metrics.write({"step": record["step"], "time": round(time.time(), 3), **record})

    def samples(self, rows: Iterable[Mapping[str, Any]], step: int | None = None) -> None:
        """Add rows to samples.jsonl; `step` is put in front of each, so that a resumed run can tell which ones to drop."""
        for row in rows:
            self._samples.write(row if step is None else {"step": step, **row})

    @contextmanager
    def checkpoint(self, step: int, **facts: Any) -> Iterator[Path]:
        """The folder to save step `step` into; whole, with its manifest, once the block ends without an error.

        Older checkpoints beyond the newest `keep` are removed then, and one of the same step. facts go into the manifest. What cannot be
        written is an `R1Error`.
        """
        folder = checkpoint_folder(self.path, step)
        with replacing(folder), filling(folder, f"the checkpoint of step {step}", self._way_out()):
            remove(folder)
            folder.mkdir(parents=True)
            yield folder
            for lines in (self._metrics, self._samples):
                lines.sync()
            declare_whole(folder, command="checkpoint", started=self.started, step=step, **facts)
        if self._keep is not None:
            for old in checkpoints(self.path)[: -self._keep]:
                remove_if_possible(old)

    @contextmanager
    def final_model(self, step: int, **facts: Any) -> Iterator[Path]:
        """`final/` to save the model after `step` steps into; whole once the block ends without an error. facts go into its manifest.

        A model that is there goes first, and with it what says that the run is done.
        """
        with filling(self.final, "the final model", self._way_out()):
            remove(self.path / manifest.NAME)
            remove(self.final)
            self.final.mkdir()
            yield self.final
            declare_whole(self.final, command="checkpoint", started=self.started, step=step, **facts)

    def _way_out(self) -> str:
        """The rest of a hint, when a checkpoint or the final model could not be written."""
        latest = self.latest_checkpoint()
        return "; --resume " + ("starts at step 1" if latest is None else f"goes on from `{latest}`")

    def latest_checkpoint(self) -> Path | None:
        """The newest whole checkpoint."""
        return next(iter(reversed(checkpoints(self.path))), None)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Declare the run done (`declare_done`)."""
        declare_done(self.path, {"started": self.started, **facts})

    def close(self) -> None:
        self._metrics.close()
        self._samples.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def final_or_latest(path: str | Path) -> Path | None:
    """The model of a run directory: `final/` when it is whole, else its newest whole checkpoint."""
    final = Path(path) / "final"
    return final if is_whole(final) else next(iter(reversed(checkpoints(path))), None)


def final_steps(path: str | Path) -> int | None:
    """After how many steps a run directory's `final/` was saved; None when it is not whole."""
    final = Path(path) / "final"
    made = manifest.read(final) if is_whole(final) else None
    return None if made is None else made.get("step", (made.get("counts") or {}).get("steps"))


def trained_on(path: str | Path) -> dict[Path, str]:
    """What a run directory says of the data that its models were trained on: folder -> digest, for `final/` and the newest checkpoint."""
    folders = [Path(path) / "final", *checkpoints(path)[-1:]]
    found = {folder: (manifest.read(folder) or {}).get(DATA) for folder in folders if is_whole(folder)}
    return {folder: digest for folder, digest in found.items() if digest is not None}


def began(path: str | Path) -> float | None:
    """When the first start of a run was (seconds since the epoch); None where there is no run, or one that does not say."""
    return read_config(path).get("began") if is_run_dir(path) else None


def attempts(path: str | Path) -> int:
    """How many times a run was started."""
    return max((int(folder.name.removeprefix("attempt_")) for folder in (Path(path) / "logs").glob("attempt_*")), default=0)


def declare_done(path: Path, facts: Mapping[str, Any]) -> None:
    """Give a run directory and its `final/` the manifest of a run that is done, made of these facts (see `manifest.write`).

    Steps are counted as the model in `final/` has them: a run that was made shorter has made more than it was asked for.
    """
    facts = {"attempts": attempts(path), **facts}
    step = final_steps(path)
    if step is not None and "steps" in facts.get("counts", {}):
        facts["counts"] = {**facts["counts"], "steps": step}
    if (path / "final").is_dir():
        kept = manifest.read(path / "final") or {}
        manifest.write(path / "final", **facts, **{name: kept[name] for name in ("step", DATA, HELD_OUT) if name in kept})
    manifest.write(path, **facts)


def changes(path: str | Path, command: str, settings: Any) -> dict[str, tuple[Any, Any]]:
    """What `RunDir.changed` would be, without opening the run; nothing where there is none."""
    return differences(read_config(path), asked_for(command, settings)) if is_run_dir(path) else {}


def check_unused(path: str | Path, *, command: str = "", settings: Any = None, resume: bool = False, force: bool = False) -> bool:
    """Refuse (`R1Error`, exit 2) what `RunDir.open` would refuse, touching nothing; whether there is a run. Not while it is open.

    Without a command, any run may be there.
    """
    _check_wish(path, resume=resume, force=force)
    check_free(Path(path), WAIT_SECONDS if resume else 0.0)
    return _check_use(Path(path), asked_for(command, settings) if command else None, resume=resume, force=force)


def _check_wish(path: str | Path, *, resume: bool, force: bool) -> None:
    if path in ("", "-"):
        raise R1Error(f"`-o {path or repr(str(path))}` names no run directory: a run is a folder", hint="-o runs/NAME", code=Exit.USAGE)
    if resume and force:
        raise R1Error("--resume and --force exclude each other", hint="--resume continues the run, --force throws it away", code=Exit.USAGE)


def _check_use(path: Path, asked: Mapping[str, Any] | None, *, resume: bool, force: bool, alone: bool = True) -> bool:
    """Whether there is a run to go on from or to remove. alone: whether a lock says that nobody who has not begun yet is still there."""
    if path.exists() and not path.is_dir():
        raise R1Error(f"`{path}` is a file, not a run directory", hint="give -o another name", code=Exit.USAGE)
    used = path.is_dir() and any(entry.name != LOCK and not _HALF_CONFIG.fullmatch(entry.name) for entry in path.iterdir())
    if used and not is_run_dir(path):
        raise R1Error(f"`{path}` holds files that are not a run's", hint="give -o another name", code=Exit.USAGE)
    if used and not resume and not force:
        if alone and not _has_begun(path):
            return False
        raise R1Error(
            f"run directory `{path}` is in use: it holds a run",
            hint="--resume continues it, --force starts it anew, or give -o another name",
            code=Exit.USAGE,
        )
    if used and not force and asked is not None:
        before = read_config(path)
        check_same(path, before, asked)
        done = is_whole(path / "final")  # the seed matters if it is to be longer, which is seen later (`commands.resuming`)
        if done or latest_step(path) is not None:
            check_order(path, before, asked, [ROWS_OF_A_STEP] if done else ORDER)
    return used


def _has_begun(path: Path) -> bool:
    """Whether a run left anything that took work, steps or a teacher's rows: a start that failed while its model was loaded did not."""
    made = [path / "final", path / manifest.NAME, *(path / "checkpoints").glob("*")]
    rows = [file for file in path.glob("*.jsonl") if file.name != PROMPTS and file.is_file()]
    return any(one.exists() for one in made) or any(one.stat().st_size for one in rows)


def _prepare(path: Path, config: Mapping[str, Any], *, resume: bool, force: bool, alone: bool) -> tuple[int | None, dict[str, Any] | None]:
    """Make the directory ready; the step to resume from and the configuration of the attempt before.

    The configuration stays there all the time and the new one replaces it: whenever this is killed, the directory is still a run's.
    """
    used = _check_use(path, config, resume=resume, force=force, alone=alone)
    before = read_config(path) if used and not force else None
    if not resume:
        for name in _CONTENTS:
            remove(path / name)
    for entry in list(path.iterdir()):
        if _HALF_CONFIG.fullmatch(entry.name):
            remove_if_possible(entry)
    manifest.write_json(path / CONFIG, config)
    (path / "checkpoints").mkdir(exist_ok=True)
    clear(path)
    return latest_step(path), before
