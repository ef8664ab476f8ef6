"""Where a run of `r1 grpo` is that goes on: with the rollouts of its checkpoint, or without those that other settings were drawn with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1cli.commands.resuming import warn_of_stops
from r1cli.commands.training import Training
from r1cli.train.agreement import of_all
from r1cli.train.grpo_config import GrpoConfig
from r1cli.train.progress import Progress


def resumed(training: Training, config: GrpoConfig) -> Progress:
    """Where the run is: at its beginning, or where its checkpoint says. Every process must call it."""
    progress, now = Progress(), drawn_with(training)
    if training.checkpoint is not None:
        accelerator = training.accelerator
        progress = Progress.load(Path(training.checkpoint), accelerator.process_index, accelerator.num_processes)
        _drop_what_differs(accelerator, progress, config, now)
        warn_of_stops(progress.memory, training.settings.stop_on, training.context)
    progress.drawn_with = now
    return progress


def drawn_with(training: Training) -> dict[str, Any]:
    """The settings that a rollout must be finished with: at this temperature and in this type its log-probabilities were measured, by this
    seed it is split into minibatches, and without the lag the KL of what was drawn ahead would not be corrected.

    Any other setting may change within a rollout: what depends on it is stored in the rollout (advantages, number of minibatches, length
    limit), or is a matter of each update (loss, clips, importance), or is refused (`grpo._begun_otherwise`).
    """
    settings = training.settings
    return {
        "temperature": settings.temperature,
        "seed": settings.seed,
        "dtype": training.dtype,
        "rollout_lag": settings.rollout_lag,
    }


def _drop_what_differs(accelerator: Any, progress: Progress, config: GrpoConfig, now: Mapping[str, Any]) -> None:
    """Drop rollouts that were drawn with other settings, and say what that costs. One that only lacks its line in the metrics stays."""
    before, batch, ahead = progress.drawn_with, progress.batch, progress.ahead
    # a lag that begins is no matter: what was drawn without one may be corrected for it too
    names = [name for name in now if before.get(name, now[name]) != now[name] and (name, now[name]) != ("rollout_lag", 1)]
    half = batch is not None and batch.done < batch.updates(config)
    if not names or not (half or ahead):
        return
    own = len(batch.samples) if batch else 0, len(ahead.completions) if ahead else 0
    trained_on, drawn = (sum(counts) for counts in zip(*of_all(accelerator, [own]), strict=True))
    dropped = []
    if half and batch:
        made = f"{batch.done} of {batch.updates(config)} updates made"
        dropped.append(f"the rest of the rollout behind step {batch.start} ({trained_on} completions, {made}; its prompts count as taken)")
    if ahead:
        dropped.append(f"the {drawn} completions drawn ahead")
    flags = [f"--{name.replace('_', '-')}" for name in names]
    changes = ", ".join(f"{flag} was {before[name]} and is {now[name]}" for flag, name in zip(flags, names, strict=True))
    back = " ".join(f"{flag} {before[name]}" for flag, name in zip(flags, names, strict=True))
    why = f"{changes}: what was drawn before is dropped, {' and '.join(dropped)}; --resume with {back} trains on it"
    progress.drop(why, rollout=half)
