"""Where a run is that `--resume` finds: the same for every process, or an error; and what is said of one that has nothing left to do."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1cli.errors import Exit, R1Error
from r1cli.io import run_dir
from r1cli.io.whole_folder import is_whole
from r1cli.train.agreement import of_all

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
    seen = of_all(accelerator, [Standing(run_dir.final_steps(out), run_dir.latest_step(out))])
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


def say_done(training: "Training", facts: Callable[[], dict[str, Any]]) -> None:
    """Of a run that is done: say so, and touch nothing but the manifest that a kill kept from being written. facts: `inputs`, `counts`."""
    settings, context = training.settings, training.context
    path = Path(settings.out)
    if training.accelerator.is_main_process and not is_whole(path):
        run_dir.declare_done(path, {"command": context.command, "settings": settings, **facts()})
    steps = run_dir.final_steps(path)
    context.console.summary([f"{context.command}: already done, {steps} steps", f"written: {settings.out}/final"])
    training.accelerator.end_training()
