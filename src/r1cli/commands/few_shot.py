"""`--few-shot FILE`: worked examples to show before each prompt, such as the long chains of thought R1's cold start was prompted with."""

from itertools import islice

from r1cli.errors import Exit, R1Error
from r1cli.io.stream import read_rows
from r1cli.text.conversation import answers
from r1cli.text.prompts import Example


def read_examples(file: str, shots: int | None) -> list[Example]:
    """The examples of a file of rows with `prompt` and `completion` (as `r1 reject` keeps them) or with `messages`.

    With `shots`, only as many as are needed: one more, for the prompt that is an example itself. Raises `R1Error` (exit 2).
    """
    found: list[Example] = []
    for row in islice(read_rows([file]), None if shots is None else shots + 1):
        found.append(answers(row)[-1])
    if not found or (shots is not None and len(found) < shots):
        raise R1Error(
            f"`{file}` holds {len(found)} examples" + (f", --shots asks for {shots}" if shots else ""),
            hint="one row an example: prompt and completion, or messages",
            code=Exit.USAGE,
        )
    return found
