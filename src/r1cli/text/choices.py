"""The options of a multiple-choice row, the right one, and the same row with its options in another order.

    options_of(row)          [Option("A", "amnion"), Option("B", "chorion"), ...]
    gold_of(row, options)    Option("A", "amnion")
    shuffled(row, seed=1)    a new row: prompt, choices and answer permuted together

`choices` is a list of texts (MMLU, GPQA), an object label -> text, or ARC's `{"text": [...], "label": [...]}`. A row without the field
has its options read from the lettered lines of its prompt. `answer` is a label, the number of the option counted from 0 (an integer),
or the option's text.
"""

import random
import re
import unicodedata
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.row import Prompt, Row, messages_of, seed_of

_LINE = re.compile(r"^[ \t]*\(?([A-Z])[.):][ \t]+(\S.*?)[ \t]*$", re.MULTILINE)
_REFERS = re.compile(r"(?<!\w)\(?[A-J]\)?\s+(?:and|or|nor|&)\s+\(?[A-J]\)?(?!\w)|\boptions? [A-J]\b")  # an option about other options
_STAYS_LAST = re.compile(r"^(?:all|none|both|neither|any) of (?:the above|these|them|the other)", re.IGNORECASE)


@dataclass(frozen=True)
class Option:
    """One option: the label it is called by and its text."""

    label: str
    text: str


def options_of(row: Row) -> list[Option]:
    """The row's options in order. Raises `R1Error` (exit 2) when there are fewer than two, or the field has another shape."""
    options = _read(row.get("choices"), row)
    if len(options) < 2:
        raise _bad(row, "it has fewer than two options", "give `choices` a list of texts, or lines `A. text` to the prompt")
    return options


def gold_of(row: Row, options: list[Option]) -> Option:
    """The option that the row's `answer` names. Raises `R1Error` (exit 2) when it names none."""
    answer = row.get("answer")
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options):
        return options[answer]
    if isinstance(answer, str):
        label = answer.strip().strip("().").strip()
        for option in options:
            if option.label == label:
                return option
        same = [option for option in options if plain(option.text) == plain(answer)]
        if len(same) == 1:
            return same[0]
        if len(label) == 1 and label.upper() in (labels := [option.label for option in options]):
            return options[labels.index(label.upper())]
    raise _bad(row, f"`answer` {answer!r} names no option", f"labels are {', '.join(option.label for option in options)}")


def shuffled(row: Row, seed: int) -> Row:
    """The row with its options in an order drawn from (seed, id): the answer follows, and so do the option lines of the prompt.

    "None of the above" stays last; a row with an option that speaks of others by label ("both A and B") is left as it is.
    The prompt must name the options in lettered lines, or not at all: then the lines are added.
    """
    options = options_of(row)
    gold = gold_of(row, options)
    if any(_REFERS.search(option.text) for option in options):
        return row
    free = [i for i, option in enumerate(options) if not _STAYS_LAST.search(option.text)]
    drawn = list(free)
    random.Random(seed_of(seed, row.get("id"), 0)).shuffle(drawn)
    order = list(range(len(options)))
    for place, source in zip(free, drawn, strict=True):
        order[place] = source
    new = [Option(options[place].label, options[source].text) for place, source in enumerate(order)]
    place = order.index(options.index(gold))
    fields: dict[str, Any] = {"answer": place if isinstance(row["answer"], int) else new[place].label}
    if "prompt" in row:
        fields["prompt"] = _with_lines(row["prompt"], options, new, row)
    if "choices" in row:
        fields["choices"] = _like(row["choices"], new)
    return row.with_fields(**fields)


def plain(text: str) -> str:
    """A text for comparison: NFKC, lower case, runs of blanks as one, without the punctuation and dollar signs around it."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().replace("$", "").split()).strip(" .,;:!?。，；：'\"“”*`")


def _read(choices: Any, row: Row) -> list[Option]:
    if isinstance(choices, dict) and isinstance(choices.get("text"), list):
        texts = choices["text"]
        labels = choices.get("label") or list(ascii_uppercase[: len(texts)])
    elif isinstance(choices, dict):
        labels, texts = list(choices), list(choices.values())
    elif isinstance(choices, list):
        labels, texts = list(ascii_uppercase[: len(choices)]), choices
    elif choices is None:
        found = _LINE.findall(_prompt_text(row.get("prompt") or ""))
        found = found[max((i for i, (label, _) in enumerate(found) if label == "A"), default=0) :]  # the last list of the prompt
        labels, texts = [label for label, _ in found], [text for _, text in found]
        if labels != list(ascii_uppercase[: len(labels)]):
            return []
    else:
        raise _bad(row, f"`choices` must be a list or an object, found {type(choices).__name__}", "give `choices` a list of texts")
    if len(labels) != len(texts) or len(set(map(str, labels))) != len(texts):
        raise _bad(row, f"`choices` has {len(texts)} texts for {len(set(map(str, labels)))} labels", "one label a text, 26 options at most")
    return [Option(str(label).strip(), str(text).strip()) for label, text in zip(labels, texts, strict=True)]


def _like(choices: Any, options: list[Option]) -> Any:
    """The options in the shape that the row's `choices` has."""
    texts = [option.text for option in options]
    if isinstance(choices, list):
        return texts
    if isinstance(choices.get("text"), list):
        return {**choices, "text": texts}
    return dict(zip(choices, texts, strict=True))


def _with_lines(prompt: Prompt, old: list[Option], new: list[Option], row: Row) -> Prompt:
    """The prompt with the text of every option line replaced; with lines `A. text` added when it names no option."""
    if not isinstance(prompt, str):
        last = max((i for i, message in enumerate(prompt) if message.get("role") == "user"), default=len(prompt) - 1)
        content = _with_lines(_prompt_text([prompt[last]]), old, new, row)
        return [*prompt[:last], {**prompt[last], "content": content}, *prompt[last + 1 :]]
    position, pieces, start = 0, [], 0
    for before, after in zip(old, new, strict=True):
        line = re.compile(rf"^([ \t]*\(?{re.escape(before.label)}[.):][ \t]*){re.escape(before.text)}", re.MULTILINE)
        match = line.search(prompt, position)
        if not match:
            break
        pieces += [prompt[start : match.start()], match[1], after.text]
        position = start = match.end()
    else:
        return "".join(pieces) + prompt[start:]
    if pieces or any(len(option.text) > 3 and option.text in prompt for option in old):
        raise _bad(row, "its options are in the prompt, but not as one line `A. text` each", "write the options in lettered lines")
    return prompt.rstrip("\n") + "\n" + "\n".join(f"{option.label}. {option.text}" for option in new)


def _prompt_text(prompt: Prompt) -> str:
    """The text of a prompt's messages, one after the other."""
    texts = []
    for message in messages_of(prompt):
        content = message.get("content") or ""
        texts.append(content if isinstance(content, str) else "\n".join(str(part.get("text") or "") for part in content))
    return "\n".join(texts)


def _bad(row: Row, what: str, hint: str) -> R1Error:
    where = f"{row.where}: " if row.where else ""
    return R1Error(f"{where}row `{row.get('id')}`: {what}", hint=hint, code=Exit.USAGE)
