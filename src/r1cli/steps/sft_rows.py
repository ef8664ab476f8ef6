"""Completion rows as SFT rows: the conversation a model should have had."""

from collections.abc import Callable, Iterable, Iterator

from r1cli.errors import R1Error
from r1cli.row import Row, messages_of, require
from r1cli.text.conversation import completion_text
from r1cli.text.row_form import is_drawn
from r1cli.text.think import opened_by, split

_OF_THE_SAMPLE = ("prompt", "completion", "think_prefix", "finish_reason", "num_tokens", "seed", "rewards", "reward")


def _raise(error: R1Error) -> None:
    raise error


def to_sft(rows: Iterable[Row], plain: Callable[[Row], bool] | None = None, on_bad: Callable[[R1Error], None] = _raise) -> Iterator[Row]:
    """Each row as `{"id": ..., "messages": [prompt messages..., assistant message], ...}`.

    The assistant's message is the whole text it stood for: what the prompt had already opened (`think_prefix`) and the completion, with a
    `reasoning_content` beside it (`completion_text`). Messages that the data set had are not those of the completion. Fields that describe
    how the completion was drawn and scored are left out; all others (id, source, domain, answer, model ...) stay.
    plain: rows whose reasoning is left out, as DeepSeek-R1 (section 2.3.3) does for simple queries; a reasoning that has no text after it
    stays, for nothing would be left. on_bad: gets the error of a row whose text cannot be told, and which is left out then.
    """
    for row in rows:
        messages = messages_of(require(row, "prompt", str, list))
        try:
            text = completion_text(Row({name: value for name, value in row.items() if name != "messages"}, where=row.where))
        except R1Error as error:
            on_bad(error)
            continue
        gone = ("id", "messages") if is_drawn(row) else ("id", "messages", "reasoning_content")
        if plain is not None and plain(row):
            text = split(row["completion"], opened_by(row.get("think_prefix"))).rest.strip() or text
        fields = {name: value for name, value in row.items() if name not in _OF_THE_SAMPLE and name not in gone}
        yield Row({"id": row.get("id"), "messages": [*messages, {"role": "assistant", "content": text}], **fields}, where=row.where)
