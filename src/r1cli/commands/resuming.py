"""Where a run is that `--resume` finds, and whether it can go on from there: the same for every process, or an error; and what is said of
one that has nothing left to do."""

import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io import manifest, run_dir
from r1cli.io.checkpoint_folders import latest_step, whole_checkpoint
from r1cli.io.hub import check_model_folder
from r1cli.io.run_config import check_order, read_config
from r1cli.io.whole_folder import is_whole
from r1cli.model_folder import fingerprint
from r1cli.settings import DistillSettings, GrpoSettings, SftSettings
from r1cli.train import progress, random_states
from r1cli.train.agreement import of_all
from r1cli.train.alarms import MEMORY
from r1cli.train.checkpoints import check_state
from r1cli.train.lora import adapter_folder
from r1cli.train.model import check_weights
from r1cli.train.state_files import way_out
from r1cli.train.strategy import uses_deepspeed

if TYPE_CHECKING:
    from r1cli.commands.training import Training


@dataclass(frozen=True)
class Standing:
    """final: steps behind a whole `final/`. checkpoint: the step of the newest whole checkpoint. None: there is none."""

    final: int | None = None
    checkpoint: int | None = None

    def __str__(self) -> str:
        kept = "no checkpoint" if self.checkpoint is None else f"a checkpoint of step {self.checkpoint}"
        return kept if self.final is None else f"{kept} and a model of step {self.final}"


def standing(accelerator: Any, out: str) -> Standing:
    """Where a run is; every process must call it. Raises `R1Error` (exit 2) unless all see the same: alone, each would go its own way."""
    seen = of_all(accelerator, [Standing(run_dir.final_steps(out), latest_step(out))])
    for number, other in enumerate(seen[1:], 2):
        if other != seen[0]:
            raise R1Error(
                f"process {number} of {len(seen)} finds {other} in `{out}`, process 1 {seen[0]}",
                hint="-o must name a directory on a disk that all machines share",
                code=Exit.USAGE,
            )
    return seen[0]


def is_done(found: Standing, out: str, total: int) -> bool:
    """Whether the run has `total` steps behind it. Raises `R1Error` (exit 2) when it has ended earlier and kept nothing to go on from."""
    if found.final is None or found.final >= total:
        return found.final is not None
    if found.checkpoint is None:
        raise R1Error(
            f"`{out}` ended after {found.final} of these {total} steps and has no checkpoint to go on from (--save-every makes some)",
            hint=f"train its model on: --model {Path(out) / 'final'} -o OTHER; --force throws it away and starts at step 1",
            code=Exit.USAGE,
        )
    return False


def digest(values: Iterable[Any]) -> str:
    """The hash of rows: lists of tokens, and whatever JSON has."""
    found = hashlib.sha256()
    for value in values:
        tokens = isinstance(value, list) and value and isinstance(value[0], int)
        found.update(array("q", value).tobytes() if tokens else json.dumps(value, sort_keys=True, default=str).encode())
        found.update(b"\n")
    return found.hexdigest()


def check_data(accelerator: Any, out: str, found: Standing, data: str | None) -> None:
    """Refuse (`R1Error`, exit 2) rows that are not the same in all processes, and other rows than the run that goes on was trained on.

    Every process must call it. data: the digest of the rows now.
    A checkpoint that does not say what it was trained on is older than this check.
    """
    seen = of_all(accelerator, [data])
    odd = next((number for number, other in enumerate(seen, 1) if other != seen[0]), None)
    if odd is not None:
        raise R1Error(
            f"process {odd} of {len(seen)} has read other rows than process 1: they would not train on the same data",
            hint="name files that are the same on all machines, and that nobody writes to while they are read",
            code=Exit.USAGE,
        )
    if data is None or found == Standing():
        return
    other = [folder for folder, trained_on in run_dir.trained_on(out).items() if trained_on != data]
    wrong = [folder for folder in of_all(accelerator, [other[0] if other else None]) if folder is not None]
    if wrong:
        raise R1Error(
            f"the rows are not those that `{wrong[0]}` was trained on",
            hint="give those rows again, with the flags that choose and render them (--limit, --max-length, --template ...); "
            f"or train its model on: --model {wrong[0]} -o OTHER",
            code=Exit.USAGE,
        )


def check_resumable(accelerator: Any, settings: Any, found: Standing, model: str) -> None:
    """Refuse (`R1Error`, exit 2) what cannot go on from the checkpoint there is, before anything is written. model: a folder."""
    if found.checkpoint is None:
        return
    if uses_deepspeed(accelerator):
        raise R1Error(
            "a run cannot be resumed with DeepSpeed: its optimizer's state is not kept",
            hint="use FSDP2 (examples/accelerate/fsdp2.yaml), which resumes from any run's checkpoint",
            code=Exit.USAGE,
        )
    if run_dir.is_run_dir(settings.out):
        before = read_config(settings.out)
        _check_adapter(settings.out, before["settings"], vars(settings))
        check_order(Path(settings.out), before, {"settings": vars(settings)})
    folder = whole_checkpoint(settings.out, found.checkpoint)
    # of the first process: there were more or fewer, maybe, but always that one
    check_state(folder, random_states.file_name(0), *_own_files(settings))
    check_weights(folder, way_out(folder))
    try:
        if getattr(settings, "lora", None) is not None:
            adapter_folder(folder)
        else:
            check_model_folder(folder, trust_remote_code=True)
    except R1Error as error:
        raise R1Error(error.message, hint=way_out(folder), code=error.code) from error
    base = (manifest.read(folder) or {}).get(run_dir.BASE)
    if base is not None and base != fingerprint(model):
        raise R1Error(
            f"the adapter in `{folder}` belongs to other weights than those of `{model}`",
            hint="name the model that the run was started with, as it was then: a run as --model is its newest checkpoint until it is done",
            code=Exit.USAGE,
        )


def _own_files(settings: Any) -> list[str]:
    """What a checkpoint holds beside what those of all commands do."""
    if isinstance(settings, GrpoSettings):
        return [progress.file_name(0)]
    learns_rows = isinstance(settings, SftSettings) or (isinstance(settings, DistillSettings) and not settings.on_policy)
    return [MEMORY] if learns_rows else []


def _check_adapter(out: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with another adapter, or with one instead of all weights."""
    old, new = _adapter(before), _adapter(now)
    if old != new:
        raise R1Error(
            f"`{out}` trains {f'adapters ({old})' if old else 'all weights'}, and this would go on with {new or 'all weights'}",
            hint=f"{f'give {old}' if old else 'leave out --lora'}, or start anew: -o OTHER, or --force to throw the run away",
            code=Exit.USAGE,
        )


def _adapter(settings: Mapping[str, Any]) -> str:
    """The flags that an adapter's weights follow from; "" without one."""
    if settings.get("lora") is None:
        return ""
    targets = ",".join(sorted(part.strip() for part in settings["lora_targets"].split(",")))
    return f"--lora {settings['lora']} --lora-alpha {settings['lora_alpha']:g} --lora-targets {targets}"


def warn_of_changes(changed: Mapping[str, tuple[Any, Any]], context: Context) -> None:
    """Say which settings are not those of the run's last start."""
    for name, (before, now) in changed.items():
        context.console.warn(f"--{name.replace('_', '-')} was {before} when the run started, now {now}")


def warn_of_held_out(checkpoint: Path | None, now: str | None, context: Context) -> None:
    """Say when the held-out rows are not those that the run measured before. now: their digest; None where nothing is measured."""
    before = None if checkpoint is None else (manifest.read(checkpoint) or {}).get(run_dir.HELD_OUT)
    if before is not None and now is not None and before != now:
        context.console.warn("the held-out rows are not those that the run measured before: figures from here on do not go with those")


def going_past(halt: R1Error | None) -> R1Error | None:
    """The error of --stop-on, with a word for who starts runs again by a script: an alarm ends a run once."""
    return halt and R1Error(halt.message, hint=f"{halt.hint}; --resume goes on past it", code=halt.code)


def warn_of_stops(memory: Mapping[str, Any], stop_on: str | None, context: Context) -> None:
    """Name the alarms of --stop-on that have ended the run which goes on, by what they remember (`train.alarms.look`)."""
    names = [name for name in (stop_on or "").split(",") if memory.get(f"stopped {name}")]
    if names:
        context.console.warn(f"--stop-on {','.join(names)} has ended this run before: it goes on past that, and is not ended by it again")


def say_done(training: "Training", facts: Callable[[], dict[str, Any]]) -> None:
    """Of a run that is done: say so, and touch nothing but the manifest that a kill kept from being written. facts: `inputs`, `counts`.

    Every process must call it. The others wait for the main one, which may hash large inputs: a launcher kills what is still at work some
    minutes after another process has ended.
    """
    settings, context = training.settings, training.context
    path = Path(settings.out)
    if training.accelerator.is_main_process:
        warn_of_changes(run_dir.changes(path, context.command, settings), context)
        if not is_whole(path):
            run_dir.declare_done(path, {"command": context.command, "settings": settings, **facts()})
    training.accelerator.wait_for_everyone()
    steps = run_dir.final_steps(path)
    context.console.summary([f"{context.command}: already done, {steps} steps", f"written: {settings.out}/final"])
    training.accelerator.end_training()
