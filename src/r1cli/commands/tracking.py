"""Trackers beside metrics.jsonl, through accelerate: `--track tensorboard,wandb,trackio`.

The main process logs what goes into metrics.jsonl. tensorboard writes into RUN/trackers/PROJECT, and takes back what a resumed attempt
makes again; wandb and trackio keep their own places, and a resumed attempt is a new run of the same group there.
"""

import importlib.util
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from r1cli.errors import Exit, R1Error, nearest
from r1cli.io.run_dir import RunDir

TRACKERS = ("tensorboard", "wandb", "trackio")


def names(settings: Any) -> list[str]:
    """The trackers asked for. Raises `R1Error`: exit 2 for an unknown one, exit 3 for one that is not installed."""
    found = [name for name in (settings.track or "").split(",") if name]
    for name in found:
        if name not in TRACKERS:
            raise R1Error(f"`--track` knows no tracker `{name}`", hint=nearest(name, TRACKERS), code=Exit.USAGE)
        if importlib.util.find_spec(name) is None:
            raise R1Error(f"the tracker `{name}` is not installed", hint="pip install 'r1cli[track]'", code=Exit.ENVIRONMENT)
    if not found and settings.run_name is not None:
        raise R1Error("--run-name without --track names nothing", hint="--track tensorboard", code=Exit.USAGE)
    return found


def begin(accelerator: Any, settings: Any, command: str, run: RunDir | None) -> None:
    """Open the trackers, with every setting as the run's configuration; every process may call it, the main one (with a `run`) does it."""
    wanted = names(settings)
    if not wanted:
        return
    from accelerate.tracking import filter_trackers

    folder = Path(settings.out) / "trackers"
    name = settings.run_name or Path(settings.out).name
    accelerator.log_with = filter_trackers(wanted, str(folder))
    if len(accelerator.log_with) < len(wanted):
        raise R1Error(
            f"accelerate finds not all of the trackers {', '.join(wanted)}", hint="pip install 'r1cli[track]'", code=Exit.ENVIRONMENT
        )
    accelerator.project_configuration.logging_dir = str(folder)
    accelerator.init_trackers(
        settings.project or f"r1-{command}",
        config={key: value if type(value) in (bool, int, float) else str(value) for key, value in vars(settings).items()},
        init_kwargs=_of_attempt(name, run),
    )


def _of_attempt(name: str, run: RunDir | None) -> dict[str, dict[str, Any]]:
    """What each tracker needs to know of this start of the run.

    tensorboard forgets the steps that come after the checkpoint it goes on from: they are made again. trackio knows a run by its name
    alone, so that another start needs another one.
    """
    own: dict[str, Any] = {"name": name, "group": name}
    if run is None or run.attempt == 1:
        return {"wandb": own, "trackio": own}
    again = {**own, "name": f"{name} (attempt {run.attempt})"}
    return {"tensorboard": {"purge_step": (run.resumed_step or 0) + 1}, "wandb": own, "trackio": again}


def finite(record: Mapping[str, Any], warn: Callable[[str], None]) -> dict[str, Any]:
    """A record without figures of held-out rows that are not finite, which are said: what is measured must not cost what was learnt.

    Any other figure that is not finite stays, and ends the run.
    """
    broken = {
        name: value
        for name, value in record.items()
        if name.startswith("held_out") and isinstance(value, float) and not math.isfinite(value)
    }
    if broken:
        said = ", ".join(f"{name} {value}" for name, value in broken.items())
        warn(f"step {record['step']}: {said}, left out of the metrics: a held-out row breaks the model, or it diverges")
    return {name: value for name, value in record.items() if name not in broken}


def log(accelerator: Any, record: Mapping[str, Any]) -> None:
    """The figures of a step."""
    if accelerator.trackers:
        figures = {name: value for name, value in record.items() if isinstance(value, (int, float)) and name not in ("step", "steps")}
        accelerator.log(figures, step=record["step"])
