"""config.json of a run directory: what the run was asked to do, and whether what is asked now is the same run."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.io import manifest
from r1cli.io.whole_folder import is_whole

CONFIG = "config.json"  # what makes a folder a run directory: there first, and never removed
_MODELS = ("model", "student")  # settings that make a run another one
_NOT_OF_THE_RUN = ("resume", "force", "out")
ROWS_OF_A_STEP, ORDER = "batch_rows", ("batch_rows", "seed")  # which rows a step takes, beside its number (`train.order.step_rows`)


def is_run_dir(path: str | Path) -> bool:
    """Whether a folder is a run directory, by its config.json."""
    config = Path(path) / CONFIG
    if not config.is_file():
        return False
    try:
        value = json.loads(config.read_text("utf-8"))
    except ValueError:
        return False
    return isinstance(value, dict) and "command" in value and "settings" in value


def read_config(path: str | Path) -> dict[str, Any]:
    """The configuration of a run directory. One that cannot be read is an `R1Error`."""
    return manifest.read_json(Path(path) / CONFIG)


def asked_for(command: str, settings: Any) -> dict[str, Any]:
    """The part of a configuration that says which run it is."""
    return {"command": command, "directory": str(Path.cwd()), "settings": manifest.plain(settings)}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings that differ, name -> (then, now); the model is `check_same`'s, and files are the same however they are named."""
    old, new = before["settings"], json.loads(json.dumps(now["settings"]))

    def differs(name: str) -> bool:
        if name == "inputs" and name in old and name in new:
            return not _same(_names(old[name]), _names(new[name]), before, now)
        return old.get(name) != new.get(name)

    names = [name for name in {**old, **new} if name not in (*_NOT_OF_THE_RUN, *_MODELS) and differs(name)]
    return {name: (old.get(name), new.get(name)) for name in names}


def done_by(path: str | Path, command: str, settings: Any) -> dict[str, Any] | None:
    """The manifest of a run that is done and that these very settings made; None with others, which may ask for more of it. Settings are
    compared with those of the start that ended it: one that was killed since then has left its own in config.json."""
    if not settings.resume or not is_whole(Path(path)) or not is_whole(Path(path) / "final"):
        return None
    made = manifest.read(path)
    return None if made is None or differences(made, asked_for(command, settings)) else made


def check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse (`R1Error`, exit 2) a run directory of another command, or of a run of another model.

    Not of other input files: they may lie elsewhere for each job, and what is in them is compared (`commands.resuming.check_data`).
    """
    if before["command"] != now["command"]:
        raise R1Error(
            f"`{path}` holds a run of `r1 {before['command']}`, not of `r1 {now['command']}`",
            hint="give -o another name; --force throws that run away",
            code=Exit.USAGE,
        )
    for name in (*_MODELS, "teacher") if now["settings"].get("on_policy") else _MODELS:  # traces know who drew them
        old, new = (side["settings"].get(name) for side in (before, now))
        if old is None or new is None or _same(_names(old), _names(new), before, now):
            continue
        raise R1Error(
            f"`{path}` is a run with --{name} `{old}`, not `{new}`",
            hint=f"name `{old}` again, or give -o another name; --force throws the run away",
            code=Exit.USAGE,
        )


def check_order(path: Path, before: Mapping[str, Any], now: Mapping[str, Any], names: Sequence[str] = ORDER) -> None:
    """Refuse (`R1Error`, exit 2) to go on with rows in another order than that of the steps there are: some would be left out, some taken
    twice. Of commands whose rows are in epochs. names: the settings that must be the same."""
    old, new = before["settings"], now["settings"]
    if "batch_rows" not in old or "batch_rows" not in new or new.get("on_policy"):
        return
    changed = [name for name in names if name in old and old[name] != new[name]]
    if changed:
        then, today = (" ".join(f"--{name.replace('_', '-')} {side[name]}" for name in changed) for side in (old, new))
        raise R1Error(
            f"`{path}` took its rows by {then}, and {today} would leave some out and take others twice",
            hint=f"give {then}, or train its model on: --model {path} -o OTHER; --force throws the run away",
            code=Exit.USAGE,
        )


def _names(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value) or ["-"]


def _same(old: list[str], new: list[str], before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    places = (now["directory"], before.get("directory", now["directory"]))
    return len(old) == len(new) and all(_same_place(one, places[1], other, places[0]) for one, other in zip(old, new, strict=True))


def _same_place(old: str, old_directory: str, new: str, directory: str) -> bool:
    """Whether two names mean the same file, folder, pipe or hub name. What is nowhere any more (its disk is mounted elsewhere), and what
    is no file at all, is the same when it is called the same."""
    place = _place(old, old_directory)
    return place == _place(new, directory) or (old == new and not Path(place).exists())


def _place(name: str, directory: str) -> str:
    """Where a name leads. Every pipe is the same; so are a run and its `final/`."""
    if name == "-" or name.startswith(("/dev/", "/proc/")):  # `<(...)` has another number each time
        return "-"
    if name.startswith(("hf:.", "hf:/", "hf:~")):
        folder, colon, split = name.removeprefix("hf:").partition(":")
        return f"hf:{_place(folder, directory)}{colon}{split}"
    path = Path(os.path.realpath(Path(directory, os.path.expanduser(name))))  # noqa: PTH111  Path's raises where there is no such user
    return str(path / "final" if is_run_dir(path) else path)
