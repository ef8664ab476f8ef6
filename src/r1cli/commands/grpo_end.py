"""What `r1 grpo` writes and says at the end of a run."""

from collections.abc import Sequence
from typing import Any

from r1cli.commands import finish
from r1cli.commands.held_out import held_out_facts
from r1cli.commands.lora_flags import following
from r1cli.commands.resuming import say_done
from r1cli.commands.training import Training, spent
from r1cli.io.stream import RowReader
from r1cli.train.grpo_config import Prompts


def counted(prompts: Prompts) -> dict[str, int]:
    """For the counts of the manifest: prompts that could be drawn."""
    return {"prompts": sum(len(rows) for _, rows in prompts.stages)}


def end(
    training: Training,
    readers: Sequence[RowReader],
    measured: RowReader | None,
    facts: dict[str, int],
    last: dict[str, Any],
    started: float,
    updates: float = 0.0,
) -> None:
    """Declare the run done and say what came of it.

    last: the newest metrics, {} where nothing was left to do. updates: those of this start that moved weights.
    """
    settings = training.settings

    def made_of() -> dict[str, Any]:
        inputs, held = held_out_facts(readers, measured)
        return {"inputs": inputs, "counts": {**facts, **held, "bad": sum(reader.bad for reader in readers), "steps": settings.steps}}

    if training.done:
        return say_done(training, made_of)
    if last and not updates:
        training.context.console.warn(_nothing_learnt(training, last))
    training.finish(started=started, **made_of())
    reward = f", last reward {last['reward']:.3f}, {spent(started)}" if last else " were done"
    words = [
        f"grpo: {max(settings.steps, training.start_step)} steps{reward}",
        f"written: {settings.out}/final",
        *finish.bad_lines(*readers),
        following(settings),
    ]
    training.context.console.summary(words)


def _nothing_learnt(training: Training, last: dict[str, Any]) -> str:
    settings = training.settings
    why = "in every group the rewards were equal, or what was not was cut and masked"
    fix = "give prompts of mixed difficulty, or a reward that tells completions apart"
    if last["truncated"] == 1.0 and settings.mask_truncated:
        why = f"completions are cut at --max-completion-length {settings.max_completion_length}, and what is cut is masked"
        fix = "raise it (`r1 check` shows whether the model can end its turn), or --no-mask-truncated"
    return f"no weight moved in {settings.steps - training.start_step} steps: {why}; {fix}"
