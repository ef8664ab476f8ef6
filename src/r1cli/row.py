"""The row: the one record that flows between commands.

A row is a JSON object. Field names and rules are those of the design page:

    prompt row      id, prompt (string or list of messages), answer?, tests?, choices?, language?, domain?, source?, ...any other field
    completion row  the prompt row + sample, completion, finish_reason, num_tokens, model, seed, rewards {name: float}, reward
    sft row         messages: [...]   or   prompt + completion
    preference row  prompt, chosen, rejected   or   prompt, completion, label (0|1)

Rows are never changed in place: a step that adds something makes a new row with `with_fields`. That is why a row read from a file
can keep its original line (`raw`) and be written back byte for byte when nothing touched it.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import msgspec

from r1cli.errors import Exit, R1Error

Message = dict[str, Any]
_TEXT_PARTS = ("text", "input_text", "output_text")  # the latter two in OpenAI's newer form
Prompt = str | list[Message]


class Row(dict[str, Any]):
    """A JSON object that remembers where it came from.

    where: `file:line` for messages ("problems.jsonl:7"), or "" for a row made in memory.
    raw:   the line it was read from, without the newline; None once any field differs from that line.
    lent:  fields that only stand in for what is not there yet (`lending`); errors do not name them as the row's.
    """

    __slots__ = ("lent", "raw", "where")

    def __init__(self, fields: Any = (), *, where: str = "", raw: str | None = None) -> None:
        super().__init__(fields)
        self.where = where
        self.raw = raw
        self.lent: frozenset[str] = frozenset()

    def __reduce__(self) -> tuple:  # keeps `where` when a row travels to a reward worker
        return _rebuild, (dict(self), self.where, self.raw)

    def with_fields(self, **fields: Any) -> "Row":
        """A copy with these fields set; fields that exist keep their place, new ones go to the end.

        When it has exactly these values already it is returned as it is, so that it can still be written back byte for byte.
        """
        if all(name in self and _same(self[name], value) for name, value in fields.items()):
            return self
        return Row({**self, **fields}, where=self.where)

    def lending(self, **fields: Any) -> "Row":
        """A copy with these fields set, for a question that needs them."""
        lending = self.with_fields(**fields)
        lending.lent = frozenset(name for name in fields if name not in self)
        return lending

    def __setitem__(self, key: str, value: Any) -> None:
        self.raw = None
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self.raw = None
        super().__delitem__(key)


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: unlike `==`, this tells 1, 1.0 and true apart."""
    if type(one) is not type(other) or one != other:
        return False
    return not isinstance(one, dict | list) or json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _rebuild(fields: dict[str, Any], where: str, raw: str | None) -> Row:
    return Row(fields, where=where, raw=raw)


def parse(line: str, where: str = "") -> Row:
    """One JSON line as a row. Raises `R1Error` (exit 2) naming `where` when it is not a JSON object."""
    try:
        value = _FAST.decode(line)  # twice as fast as json, and as strict; what it refuses, json reads again or says why not
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        value = _parse_slowly(line, where)
    if not isinstance(value, dict):
        raise R1Error(
            f"{where}: a row must be a JSON object, found {type(value).__name__}",
            hint="one object a line; `jq -c '.[]'` turns an array into lines",
            code=Exit.USAGE,
        )
    return Row(value, where=where, raw=line)


def _parse_slowly(line: str, where: str) -> Any:
    """JSON with everything that it may hold, halves of surrogate pairs included; the error says where a line is broken."""
    try:
        return _DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise R1Error(
            f"{where}: not valid JSON ({reason})",
            hint="mend the line, or pass --skip-bad to count and leave out bad lines",
            code=Exit.USAGE,
        ) from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):  # 1e999 would be written back as Infinity
        raise ValueError(f"{digits} is beyond the range of a number")
    return value


_FAST = msgspec.json.Decoder()
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def dump(row: dict[str, Any]) -> str:
    """A row as one line of JSON without the newline; NaN and infinity are refused (`ValueError`), text stays UTF-8.

    A row with half a surrogate pair, which JSON may hold and UTF-8 may not, is written with \\u escapes.
    """
    raw = row.raw if isinstance(row, Row) else None
    if raw is not None:
        return raw
    line = json.dumps(row, ensure_ascii=False, allow_nan=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(row, allow_nan=False)
    return line


def stable_id(prompt: Prompt) -> str:
    """The id of a row that has none: 16 hex digits of blake2b over the prompt's canonical JSON."""
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False, sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def with_id(row: Row) -> Row:
    """The row with an `id`: its own, or a stable hash of its prompt (of the whole row when it has none, or null).

    The id goes in front; the rest of the row's line stays as it was written. An id is a string or a number; a null one counts as missing.
    Anything else is an `R1Error` (exit 2).
    """
    if row.get("id") is not None:
        require(row, "id", str, int, float)
        return row
    key = row["prompt"] if row.get("prompt") is not None else json.dumps(row, ensure_ascii=False, sort_keys=True)
    new = stable_id(key)
    raw = None
    if row.raw is not None and "id" not in row:
        fields = row.raw.lstrip()[1:].lstrip()
        raw = f'{{"id": "{new}"{", " if row else ""}{fields}'
    return Row({"id": None, **row, **{"id": new}}, where=row.where, raw=raw)


def seed_of(seed: int, row_id: Any, sample: int) -> int:
    """The seed of one completion: a stable hash of (seed, id, sample), below 2**53 so that every JSON reader keeps it exactly."""
    digest = hashlib.blake2b(f"{seed}/{row_id}/{sample}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 11


def require(row: Row, field: str, *kinds: type) -> Any:
    """The value of a field, or an `R1Error` (exit 2) that names the row, the line, the expected type and the keys present."""
    if field in row and (not kinds or isinstance(row[field], kinds)):
        return row[field]
    name = f"{row.where}: " if row.where else ""
    label = f"row `{row['id']}`" if "id" in row else "row"
    expected = " or ".join("null" if k is type(None) else {"str": "string", "dict": "object"}.get(k.__name__, k.__name__) for k in kinds)
    if field not in row:
        wanted = f" ({expected})" if expected else ""
        what = (
            f"{name}{label} has no field `{field}`{wanted}; it has {', '.join(name for name in row if name not in row.lent) or 'no fields'}"
        )
        found = likely_column(row, field)
        hint = f"if it is `{found}`: --map {field}={found}" if found else f"rename a column with --map {field}=COLUMN"
        raise R1Error(what, hint=hint, code=Exit.USAGE)
    raise R1Error(
        f"{name}{label}: field `{field}` must be {expected}, found {type(row[field]).__name__}",
        hint=f"mend the field, or take another column with --map {field}=COLUMN",
        code=Exit.USAGE,
    )


_OTHER_NAMES = {
    "answer": ("ground_truth", "final_answer", "gold", "target"),
    "prompt": ("question", "problem", "query", "instruction"),
    "completion": ("response", "output"),
}


def likely_column(row: Row, field: str) -> str | None:
    """A column, also one inside an object (dotted), whose name says that it holds a field that the row lacks; None when none does."""
    names = (field, *_OTHER_NAMES.get(field, ()))
    places: list[tuple[str, dict[str, Any]]] = [("", row)]
    places += [(f"{name}.", value) for name, value in row.items() if isinstance(value, dict)]
    for lead, found in places:
        for name in names:
            if found.get(name) is not None and not isinstance(found[name], dict):
                return lead + name
    return None


def messages_of(prompt: Prompt) -> list[Message]:
    """A prompt as a list of chat messages: a plain string is one user message, and a content in parts that are all text is one text."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [with_text(message) for message in prompt]


def prompt_key(prompt: Prompt) -> str:
    """The same for a prompt in each of its forms: a string, messages, contents in parts, with whatever other fields beside the content."""
    said = [[message.get("role"), message.get("content")] if isinstance(message, dict) else message for message in messages_of(prompt)]
    return json.dumps(said, sort_keys=True)


def with_text(message: Any) -> Any:
    """A message whose content came in parts (`[{"type": "text", "text": "..."}]`) as one of their text, a line each, as vLLM joins them.

    It stays as it is where a part is none: templates would write Python's own form of the list.
    """
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list) or not_text(content) is not None:
        return message
    return {**message, "content": "\n".join(part if isinstance(part, str) else part["text"] for part in content)}


def not_text(content: Any) -> str | None:
    """What a content holds that is no text, in words; None when it is text or null."""
    if not isinstance(content, list):
        return None if isinstance(content, str | None) else type(content).__name__
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if kind not in _TEXT_PARTS:
            return f"a part `{kind}`"
        if not isinstance(part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None, str):
            return "a part without text"
    return None


def groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Consecutive rows with the same `id`, one list a group: what one prompt gave."""
    for _, group in groupby(rows, key=lambda row: row.get("id")):
        yield list(group)
