"""Completion rows as SFT rows: the conversation a model should have had."""

from collections.abc import Callable, Iterable, Iterator

from r1cli.row import Row, messages_of, require
from r1cli.text.think import opened_by, split

_OF_THE_SAMPLE = ("prompt", "completion", "think_prefix", "finish_reason", "num_tokens", "seed", "rewards", "reward")


def to_sft(rows: Iterable[Row], plain: Callable[[Row], bool] | None = None) -> Iterator[Row]:
    """Each row as `{"id": ..., "messages": [prompt messages..., assistant message], ...}`.

    The assistant's message is the whole text it stood for: what the prompt had already opened (`think_prefix`) and the completion. Fields
    that describe how the completion was drawn and scored are left out; all others (id, source, domain, answer, model ...) stay.
    plain: rows whose reasoning is left out, as DeepSeek-R1 (section 2.3.3) does for simple queries; a reasoning that has no text after it
    stays, for nothing would be left.
    """
    for row in rows:
        messages = messages_of(require(row, "prompt", str, list))
        text = (row.get("think_prefix") or "") + require(row, "completion", str)
        if plain is not None and plain(row):
            text = split(row["completion"], opened_by(row.get("think_prefix"))).rest.strip() or text
        fields = {name: value for name, value in row.items() if name not in _OF_THE_SAMPLE and name not in ("id", "messages")}
        yield Row({"id": row.get("id"), "messages": [*messages, {"role": "assistant", "content": text}], **fields}, where=row.where)
