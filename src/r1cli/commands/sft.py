"""`r1 sft`: SFT rows and a model -> a checkpoint.

r1 sft --model base cold-start.jsonl -o runs/cold-start
r1 mix kept.jsonl general.jsonl | r1 sft --model base -o runs/sft -
"""

import json
import time
from collections.abc import Iterator

from r1cli.commands import tracking
from r1cli.commands.processes import check_unused, of_process, starts_others
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.hub import model_folder
from r1cli.io.stream import RowReader, read_rows
from r1cli.row import Row
from r1cli.settings import SftSettings
from r1cli.text.conversation import answers


def run(settings: SftSettings, context: Context) -> None:
    """Run the command. The model folder and every row are checked before anything is trained."""
    started = time.time()
    context = of_process(context)
    console = context.console
    tracking.names(settings)
    if starts_others(settings, context):
        return
    folder = model_folder(settings.model, settings.trust_remote_code, say=console.info)
    reader = read_rows(settings.inputs, field_map=settings.map, limit=settings.limit, skip_bad=settings.skip_bad, say=console.info)
    rows = list(_with_answers(reader))
    held_out = _held_out(settings, rows)
    check_unused(settings.out, resume=settings.resume, force=settings.force)
    from r1cli.commands.sft_run import plan, train  # brings torch: not before everything a user can get wrong is checked

    if settings.dry_run:
        plan(settings, context, folder, rows)
        return
    train(settings, context, folder, rows, reader, started, held_out=held_out)


def _held_out(settings: SftSettings, rows: list[Row]) -> list[Row]:
    """The rows of --held-out; one that is also trained on would make the loss say nothing."""
    if settings.held_out is None:
        if settings.held_out_every:
            raise R1Error("--held-out-every without --held-out measures nothing", hint="--held-out FILE", code=Exit.USAGE)
        return []
    found = list(_with_answers(read_rows([settings.held_out], field_map=settings.map)))
    if not found:
        raise R1Error(f"`{settings.held_out}` has no rows", hint="leave --held-out out, or give a file with SFT rows", code=Exit.USAGE)
    trained = {_lesson(row) for row in rows}
    both = [row for row in found if _lesson(row) in trained]
    if both:
        raise R1Error(
            f"{both[0].where}: row `{both[0]['id']}` of --held-out is also trained on ({len(both)} of {len(found)} are)",
            hint="split the rows: r1 mix ROWS --validation 2% --validation-out held-out.jsonl -o train.jsonl",
            code=Exit.USAGE,
        )
    return found


def _lesson(row: Row) -> str:
    return json.dumps([row.get(name) for name in ("messages", "prompt", "completion")], sort_keys=True)


def _with_answers(reader: RowReader) -> Iterator[Row]:
    for row in reader:
        try:
            answers(row)
        except R1Error as error:
            reader.leave_out(error)
            continue
        yield row
