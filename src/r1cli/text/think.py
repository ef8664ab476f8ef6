"""Split a completion into reasoning, the text after it, and the answer in tags.

Every search is `str.find`, `str.rfind` or `str.count`, so time is linear in the length whatever the text holds: a lazy regular
expression over 20,000 opened tags takes minutes.
"""

from dataclasses import dataclass

Tags = tuple[str, str]
THINK: Tags = ("<think>", "</think>")
ANSWER: Tags = ("<answer>", "</answer>")


@dataclass(frozen=True, slots=True)
class Parts:
    """A completion in parts.

    reasoning:   the text between the first opening tag (or the start, when the prompt opened it) and the last closing tag; all that
                 follows the opening tag when it is never closed; "" when there is none
    rest:        what follows the last closing tag; the whole completion when there is no reasoning; "" while reasoning is open
    answer:      the inside of the last closed answer pair in `rest`, or None
    closed:      False while reasoning that was begun has not ended
    well_formed: exactly one reasoning block, at the start, not blank, and something but blanks after it
    """

    reasoning: str
    rest: str
    answer: str | None
    closed: bool
    well_formed: bool


def split(completion: str, opened: bool = False, think: Tags = THINK, answer: Tags = ANSWER) -> Parts:
    """The parts of a completion.

    opened: the prompt has already opened the reasoning (the row's `think_prefix`), so the completion starts inside it.
    A completion that only closes the reasoning is read as if the prompt had opened it, but is not well formed unless `opened`.
    """
    start, end = think
    first, last = completion.find(start), completion.rfind(end)
    if opened or (last >= 0 and not 0 <= first < last):
        begin = 0
    elif first < 0:
        return Parts("", completion, last_pair(completion, answer), True, False)
    else:
        begin = first + len(start)
    if last < 0 or completion.find(start, last) >= 0:  # never closed, or opened again after the last close
        return Parts(completion[begin:], "", None, False, False)
    reasoning, rest = completion[begin:last], completion[last + len(end) :]
    once = completion.count(end) == 1 and completion.count(start) == (0 if opened else 1)
    led = opened or not completion[:first].strip()
    return Parts(reasoning, rest, last_pair(rest, answer), True, bool(once and led and reasoning.strip() and rest.strip()))


def last_pair(text: str, tags: Tags = ANSWER) -> str | None:
    """The inside of the last closed pair of tags, from the nearest opening tag before the last closing one; None without a pair."""
    start, end = tags
    stop = text.rfind(end)
    begin = text.rfind(start, 0, stop) if stop >= 0 else -1
    return text[begin + len(start) : stop] if begin >= 0 else None


def opened_by(prefix: object, think: Tags = THINK) -> bool:
    """Whether a row's `think_prefix` (what the prompt already wrote) leaves the reasoning open; True is taken as "<think>"."""
    if isinstance(prefix, str):
        return prefix.rfind(think[0]) > prefix.rfind(think[1])
    return prefix is True
