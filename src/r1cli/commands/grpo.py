"""`r1 grpo`: prompt rows, a model and rewards -> a checkpoint.

    r1 grpo --model ckpt --rewards accuracy,format -o runs/rl < problems.jsonl

The checks are here, the wiring is `grpo_run.py`, the algorithm `train/grpo.py`.
"""

import dataclasses
import time
from collections.abc import Iterator

from r1cli.commands.preflight import check_golds, stop_or_warn, wants_golds
from r1cli.commands.processes import check_unused, of_process
from r1cli.errors import R1Error
from r1cli.guard import Context
from r1cli.io.hub import model_folder
from r1cli.io.stream import RowReader, read_rows
from r1cli.rewards.registry import parse_specs
from r1cli.row import Row, require
from r1cli.settings import GrpoSettings


def run(settings: GrpoSettings, context: Context) -> None:
    """Run the command. Rewards, rows and model folder are checked before anything is loaded."""
    started = time.time()
    context = of_process(context)
    console = context.console
    parse_specs(settings.rewards)
    folder = model_folder(settings.model, settings.trust_remote_code, say=console.info)
    reader = read_rows(settings.inputs, field_map=settings.map, limit=settings.limit, skip_bad=settings.skip_bad, say=console.info)
    rows = list(_with_prompts(reader))
    if wants_golds(settings.rewards):
        stop_or_warn(check_golds(rows, settings.reward_timeout), context)
    check_unused(settings.out, resume=settings.resume, force=settings.force)
    from r1cli.commands.grpo_run import train, usable_prompts  # brings torch: not before everything a user can get wrong is checked

    prompts, longest = usable_prompts(rows, settings, context, folder)
    settings = dataclasses.replace(settings, max_model_len=settings.max_model_len or longest + settings.max_completion_length)
    if settings.dry_run:
        console.summary(
            [
                f"would train `{folder}` for {settings.steps} steps of {settings.prompts_per_step} prompts x {settings.group_size} "
                f"completions ({settings.updates_per_rollout} updates each), {len(prompts)} prompts, the longest of {longest} tokens",
                f"would write {settings.out}",
            ]
        )
        return
    train(settings, context, folder, prompts, reader, started)


def _with_prompts(reader: RowReader) -> Iterator[Row]:
    for row in reader:
        try:
            require(row, "prompt", str, list)
        except R1Error as error:
            reader.leave_out(error)
            continue
        yield row
