"""`--held-out FILE`: rows that are measured and must not be trained on."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.io.stream import RowReader, read_rows
from r1cli.row import Row


def held_out_rows(
    settings: Any, rows: Sequence[Row], valid: Callable[[RowReader], Iterator[Row]], content: Callable[[Row], str]
) -> list[Row]:
    """The rows of --held-out; one that is also trained on would make what is measured say nothing, and is refused (`R1Error`, exit 2).

    valid: the rows of a reader that a command can use. content: what makes two rows the same.
    """
    if settings.held_out is None:
        if settings.held_out_every:
            raise R1Error("--held-out-every without --held-out measures nothing", hint="--held-out FILE", code=Exit.USAGE)
        return []
    found = list(valid(read_rows([settings.held_out], field_map=settings.map)))
    if not found:
        raise R1Error(f"`{settings.held_out}` has no rows", hint="leave --held-out out, or give a file with rows", code=Exit.USAGE)
    trained = {content(row) for row in rows}
    both = [row for row in found if content(row) in trained]
    if both:
        raise R1Error(
            f"{both[0].where}: row `{both[0]['id']}` of --held-out is also trained on ({len(both)} of {len(found)} are)",
            hint="split the rows: r1 mix ROWS --validation 2% --validation-out held-out.jsonl -o train.jsonl",
            code=Exit.USAGE,
        )
    return found
