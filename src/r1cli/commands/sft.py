"""`r1 sft`: SFT rows and a model -> a checkpoint.

r1 sft --model base cold-start.jsonl -o runs/cold-start
r1 mix kept.jsonl general.jsonl | r1 sft --model base -o runs/sft -
"""

import json
import time
from collections.abc import Iterator

from r1cli.commands import tracking
from r1cli.commands.before_run import check_limit
from r1cli.commands.held_out import held_back, held_out_rows
from r1cli.commands.lora_flags import check_lora
from r1cli.commands.processes import check_unused, of_process, starts_others
from r1cli.commands.stopping import check_alarms, seconds_of
from r1cli.commands.useless_flags import check_dry_run, refuse_useless
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.hub import model_folder
from r1cli.io.stream import RowReader, read_rows
from r1cli.row import Row, prompt_key
from r1cli.settings import SFT_ALARMS, SftSettings
from r1cli.text.conversation import answers


def run(settings: SftSettings, context: Context) -> None:
    """Run the command. The model folder and every row are checked before anything is trained."""
    started = time.time()
    context = of_process(context)
    console = context.console
    check_lora(settings, context)
    seconds_of(settings.time_limit)
    check_alarms(settings.stop_on, SFT_ALARMS)
    if "overfitting" in (settings.stop_on or "") and not settings.held_out_every:
        raise R1Error("--stop-on overfitting needs measurements on the way", hint="--held-out FILE --held-out-every 10", code=Exit.USAGE)
    refuse_useless(settings, context.sources)
    tracking.names(settings)
    check_limit(settings)
    if starts_others(settings, context):
        return
    folder = model_folder(settings.model, settings.trust_remote_code, say=console.info)
    reader = read_rows(settings.inputs, field_map=settings.map, limit=settings.limit, skip_bad=settings.skip_bad, say=console.info)
    rows = list(_with_answers(reader))
    back = held_back(settings, [question_of(row) for row in rows], console.info)
    held_out = [row for row, kept in zip(rows, back, strict=True) if kept]
    rows = [row for row, kept in zip(rows, back, strict=True) if not kept]
    of_file, measured = held_out_rows(settings, rows, _with_answers, _lesson, console.warn) if not held_out else ([], None)
    held_out = held_out or of_file
    check_unused(settings, context.command)
    from r1cli.commands.sft_run import plan, train  # brings torch: not before everything a user can get wrong is checked

    if settings.dry_run:
        check_dry_run(settings, context, folder)
        plan(settings, context, folder, rows, held_out)
        return
    train(settings, context, folder, rows, reader, started, held_out=held_out, held_out_reader=measured)


def _lesson(row: Row) -> str:
    """The same for rows of one conversation, whether they have messages, or prompt and completion."""
    before, said = answers(row)[-1]
    return json.dumps([prompt_key(before), said])


def question_of(row: Row) -> str:
    """The same for rows about one prompt: what comes before the first answer."""
    return prompt_key(answers(row)[0][0])


def _with_answers(reader: RowReader) -> Iterator[Row]:
    for row in reader:
        try:
            answers(row)
        except R1Error as error:
            reader.leave_out(error)
            continue
        yield row
