"""`r1 rm`: preference rows and a model -> a reward model.

r1 rm --model runs/sft --held-out held-out.jsonl -o runs/rm-helpful pairs.jsonl
r1 rm --model runs/sft --preset r1-safety-rm -o runs/rm-safety labelled.jsonl
"""

import time
from collections.abc import Callable, Iterator
from functools import partial

from r1cli.commands import tracking
from r1cli.commands.before_run import check_limit
from r1cli.commands.held_out import held_back, held_out_rows
from r1cli.commands.lora_flags import check_lora
from r1cli.commands.preference_check import check_preferences, content_of
from r1cli.commands.preflight import stop_or_warn
from r1cli.commands.processes import check_unused, of_process, starts_others
from r1cli.commands.stopping import seconds_of
from r1cli.commands.useless_flags import check_dry_run, refuse_useless
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.hub import model_folder
from r1cli.io.stream import RowReader, read_rows
from r1cli.rm_settings import RmSettings
from r1cli.row import Row
from r1cli.text.preferences import Judged, judged


def run(settings: RmSettings, context: Context) -> None:
    """Run the command. The model folder and every row are checked before anything is trained."""
    started = time.time()
    context = of_process(context)
    console = context.console
    check_lora(settings, context)
    refuse_useless(settings, context.sources)
    seconds_of(settings.time_limit)
    tracking.names(settings)
    check_limit(settings)
    if starts_others(settings, context):
        return
    folder = model_folder(settings.model, settings.trust_remote_code, say=console.info)
    reader = read_rows(settings.inputs, field_map=settings.map, limit=settings.limit, skip_bad=settings.skip_bad, say=console.info)
    read = partial(judged, margin=settings.margin)
    rows = list(_usable(reader, read, settings.template))
    if not rows:
        raise R1Error("no rows to train on: the input is empty", hint="give preference rows: prompt, chosen, rejected", code=Exit.USAGE)
    judgements = [read(row) for row in rows]
    back = held_back(settings, [row.prompt_key() for row in judgements], console.info)
    held_out = [row for row, kept in zip(judgements, back, strict=True) if kept]
    judgements = [row for row, kept in zip(judgements, back, strict=True) if not kept]
    of_file, measured = _held_out(settings, rows, judgements, read, context) if not held_out else ([], None)
    held_out = held_out or of_file
    check_unused(settings, context.command)
    stop_or_warn(check_preferences(judgements), context)
    for flag, given in (("--center", settings.center), ("--balance-lengths", settings.balance_lengths)):
        if given and not judgements[0].is_pair:
            raise R1Error(f"{flag} does nothing for labelled completions: it is about pairs", hint="leave it out", code=Exit.USAGE)
    from r1cli.commands.rm_run import plan, train  # brings torch: not before everything a user can get wrong is checked

    if settings.dry_run:
        check_dry_run(settings, context, folder, scores=True)
        plan(settings, context, folder, judgements, held_out)
        return
    train(settings, context, folder, judgements, reader, started, held_out=held_out, held_out_reader=measured)


Read = Callable[[Row], Judged]


def _usable(reader: RowReader, read: Read, template: str) -> Iterator[Row]:
    for row in reader:
        try:
            if any(reply.prompt is None for reply in read(row).replies) and template != "raw":
                raise R1Error(
                    f"{row.where}: row `{row.get('id')}` has no `prompt`: its texts hold prompt and completion in one",
                    hint="--template raw takes them as they are; for the chat template split them into prompt, chosen and rejected",
                    code=Exit.USAGE,
                )
        except R1Error as error:
            reader.leave_out(error)
            continue
        yield row


def _held_out(
    settings: RmSettings, rows: list[Row], judgements: list[Judged], read: Read, context: Context
) -> tuple[list[Judged], RowReader | None]:
    def valid(reader: RowReader) -> Iterator[Row]:
        return _usable(reader, read, settings.template)

    measured, reader = held_out_rows(settings, rows, valid, lambda row: content_of(read(row)), context.console.warn)
    found = [read(row) for row in measured]
    if found and any(row.is_pair != judgements[0].is_pair for row in found):
        raise R1Error(
            f"`{settings.held_out}` has another kind of rows than the training set",
            hint="both are pairs, or both are labelled completions",
            code=Exit.USAGE,
        )
    trained = {row.prompt_key() for row in judgements}
    shared = sum(row.prompt_key() in trained for row in found)
    if shared:
        context.console.warn(
            f"{shared} of {len(found)} held-out rows are about prompts that are trained on too (r1 mix --validation splits by prompt)"
        )
    return found, reader
