"""`--held-out FILE`, or a share of the rows: what is measured and must not be trained on."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from r1cli.commands import finish
from r1cli.errors import Exit, R1Error
from r1cli.io.stream import RowReader, read_rows
from r1cli.row import Row, seed_of
from r1cli.steps.draw import validation_rows


def held_out_rows(
    settings: Any,
    rows: Sequence[Row],
    valid: Callable[[RowReader], Iterator[Row]],
    content: Callable[[Row], str],
    warn: Callable[[str], None],
) -> tuple[list[Row], RowReader | None]:
    """(the rows of the file --held-out, its reader); none without a file. Bad rows are left out with --skip-bad, counted and said.

    A row that is also trained on would make what is measured say nothing, and is refused (`R1Error`, exit 2).
    valid: the rows of a reader that a command can use. content: what makes two rows the same.
    """
    if settings.held_out is None:
        if settings.held_out_every:
            raise R1Error("--held-out-every without --held-out measures nothing", hint="--held-out FILE", code=Exit.USAGE)
        return [], None
    if _share(settings.held_out) is not None:
        raise R1Error(
            f"--held-out {settings.held_out}: here it is a file",
            hint="split the rows: r1 mix ROWS --validation 2% --validation-out held-out.jsonl -o train.jsonl",
            code=Exit.USAGE,
        )
    reader = read_rows([settings.held_out], field_map=settings.map, skip_bad=settings.skip_bad)
    found = list(valid(reader))
    bad = f"{reader.bad} bad held-out rows left out, the first: {reader.first_bad}" if reader.bad else ""
    if not found:
        what = f"`{settings.held_out}` has no rows" + (f": {bad}" if bad else "")
        raise R1Error(what, hint="leave --held-out out, or give a file with rows", code=Exit.USAGE)
    if bad:
        warn(bad)
    trained = {content(row) for row in rows}
    both = [row for row in found if content(row) in trained]
    if both:
        raise R1Error(
            f"{both[0].where}: row `{both[0]['id']}` of --held-out is also trained on ({len(both)} of {len(found)} are)",
            hint="split the rows: r1 mix ROWS --validation 2% --validation-out held-out.jsonl -o train.jsonl",
            code=Exit.USAGE,
        )
    return found, reader


def held_out_facts(
    readers: Sequence[RowReader], held_out: RowReader | None, measured: int = 0
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """(the inputs, the counts of held-out rows) for a manifest. readers: of the training rows; held_out: of a file that is measured."""
    inputs = [finish.describe_source(source) for reader in readers for source in reader.sources]
    inputs += [{"role": "held-out", **finish.describe_source(source)} for source in (held_out.sources if held_out else ())]
    counts = {"held_out": measured} if measured else {}
    return inputs, counts | ({"held_out_bad": held_out.bad} if held_out and held_out.bad else {})


def held_back(settings: Any, prompts: Sequence[str], say: Callable[[str], None]) -> list[bool]:
    """Which rows `--held-out P%` keeps for measuring: that share of them, rounded to whole rows, and all rows of a prompt or none.

    A prompt that would make them more is passed over, so they may be less (the rule of `r1 mix --validation`). Which ones it is follows
    from the seed and the prompts, not from the order of the rows. prompts: of each row, what is the same for rows about one prompt. None
    are kept back when --held-out is a file, or not given. Raises `R1Error` (exit 2) when nothing could be measured, or trained on.
    """
    share = _share(settings.held_out)
    if share is None:
        return [False] * len(prompts)
    import numpy as np

    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    choices = {prompt: seed_of(settings.seed, prompt, 0) for prompt in numbers}
    of_row, keys = (np.array([given[prompt] for prompt in prompts], np.int64) for given in (numbers, choices))
    back = validation_rows(of_row, keys, int(share * len(prompts) + 0.5)).tolist()
    kept = {prompt for prompt, one in zip(prompts, back, strict=True) if one}
    if not kept or len(kept) == len(numbers):
        raise R1Error(
            f"--held-out {settings.held_out} of {len(prompts)} rows about {len(numbers)} prompts "
            + ("leaves nothing to train on" if kept else "is not one whole prompt"),
            hint="another share, or --held-out FILE",
            code=Exit.USAGE,
        )
    say(f"held out: {sum(back)} of {len(back)} rows, about {len(kept)} of {len(numbers)} prompts")
    return back


def _share(held_out: str | None) -> float | None:
    """The share that --held-out names, None for a file."""
    if held_out is None or not held_out.endswith("%"):
        return None
    try:
        share = float(held_out.removesuffix("%")) / 100
    except ValueError:
        return None  # a file
    if not 0 < share < 1:
        raise R1Error(f"--held-out {held_out} is no share of the rows", hint="between 0% and 100%, such as 2%", code=Exit.USAGE)
    return share
