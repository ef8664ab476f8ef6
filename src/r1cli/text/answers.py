r"""Find the answer a completion commits to. Linear time, whatever the text.

The text after the reasoning is read in this order; the first style that is there decides, and within it the last one counts:

    tag      <answer>...</answer>; its inside is then read by the rules below
    boxed    \boxed{...}: boxes joined by nothing but "and", "or", commas and blanks are one list; an explicit "final answer is 7" after the
             last box replaces it; a box that never closes is no answer
    hash     #### 7
    anchor   "the answer is 7", "Final Answer: 7", "Answer: 7", "答案：7", ...
    last     the whole text when it is one short line, the last formula between dollars, or the last number

`styles` says which of them are allowed. An answer inside the reasoning, or before it is closed, is none.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from r1cli.text.plain_answer import anchored, last_value
from r1cli.text.think import ANSWER, split

STYLES = ("tag", "boxed", "hash", "anchor", "last")
MAX_BOXES = 400
MAX_GAP = 60  # characters between two boxes of one list
TAIL = 6000  # characters from the end in which prose is searched
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_LOOSE_BOX = re.compile(r"(?:-?\d+(?:\.\d+)?|[A-Za-z])(?![A-Za-z\d])")
_JOINER = re.compile(
    r"(?:\s|[$,;&.]|\\[\[\]();:,! ]|\\q?quad|\\(?:text|mbox|textrm)\{\s*(?:and|or)\s*\}|and|or|、|，|和|或"
    r"|\\?[A-Za-z]{1,12}(?:_\{?\w{1,8}\}?)?\s?=)*"
)
_AND = re.compile(r"\band\b|和")
_NEW_THOUGHT = re.compile(
    r"[.!?;\n。=]|\b(?:then|thus|so|hence|therefore|finally|but|not|no|wait|later|final|actually|instead|is|are|equals|gives|get|have|we)\b",
    re.IGNORECASE,
)
_OR = re.compile(r"\bor\b|或")
_SENTENCE = re.compile(r"[a-z]{2}[.!?]\s")
_LIST_OF_WORDS = re.compile(r"\S{1,20}(?: \S{1,20}){0,2}(?:, [^\s,]{1,20}(?: [^\s,]{1,20}){0,2}){2,}")
_FINAL = re.compile(r"final answer(?:\s*(?:is|:|\*|=))*\s*", re.IGNORECASE)
_VALUE = re.compile(r'"?\s*[$\d\\({\[+-]')


@dataclass(frozen=True, slots=True)
class Found:
    """An answer as it is written, the style that found it, and whether it was a whole list of boxes."""

    text: str
    style: str


def last_answer(completion: str, opened: bool = False) -> str | None:
    """The answer a completion commits to, by every style, or None."""
    found = find_answer(completion, opened)
    return found.text if found is not None else None


def find_answer(completion: str, opened: bool = False, styles: tuple[str, ...] = STYLES, finished: bool = True) -> Found | None:
    """The answer a completion commits to, or None.

    opened: the prompt had opened the reasoning. finished: the completion was not cut at the length limit; only then may an answer tag
    that is still open (a stop string took its end) be read.
    """
    text = answer_region(completion, opened, finished, "tag" in styles)
    if text is None:
        return None
    region, tagged = text
    if not region.strip() or (not tagged and styles == ("tag",)):
        return None
    boxed = _boxed(region) if "boxed" in styles else None
    if boxed is not None:
        return Found(boxed, "boxed") if boxed else None
    if tagged:
        return Found(_inside_tag(region), "tag")
    return _prose(region, styles)


def answer_region(completion: str, opened: bool = False, open_tag: bool = True, tags: bool = True) -> tuple[str, bool] | None:
    """(text that holds the final answer, whether it stood in answer tags); None while the reasoning is open, or after answer tags that
    only open.
    """
    parts = split(completion, opened)
    if not parts.closed:
        return None
    if not tags:
        return parts.rest, False
    if parts.answer is not None:
        return parts.answer, True
    at = parts.rest.rfind(ANSWER[0])
    if parts.rest.count(ANSWER[0]) > 1:
        return None
    if open_tag and at >= 0:
        return parts.rest[at + len(ANSWER[0]) :], True
    return parts.rest, False


def _inside_tag(text: str) -> str:
    """The answer in a pair of tags: all of it when it is short, else what prose in it commits to."""
    stripped = text.strip()
    short = len(stripped) <= (300 if _LIST_OF_WORDS.fullmatch(stripped) else 60) and "\n" not in stripped and not _SENTENCE.search(stripped)
    committed = anchored(text, ("final answer", "answer"))
    if committed is not None:
        return committed
    if short or last_value(text) is None:
        return stripped
    return last_value(text) or stripped


def _prose(text: str, styles: tuple[str, ...]) -> Found | None:
    tail = text[-TAIL:]
    if "hash" in styles and (at := tail.rfind("####")) >= 0:
        line = tail[at + 4 :].lstrip(" \t:*").partition("\n")[0]
        return Found(line.strip(), "hash") if line.strip() else None
    if "anchor" in styles and (answer := anchored(tail)) is not None:
        return Found(answer, "anchor")
    if "last" in styles and (answer := last_value(tail)) is not None:
        return Found(answer, "last")
    return None


# -- boxes --------------------------------------------------------------------------------------------------------------------


def _boxed(text: str) -> str | None:
    """The last box, or the list of boxes it belongs to; "" when the last box is never closed; None without any box."""
    boxes = _last_boxes(text)
    if boxes is None:
        return None
    if not boxes:
        return ""
    final = _final_after(text[boxes[-1][1] :])
    if final is not None:
        return final
    values = [text[start:end] for start, end in ((b[2], b[3]) for b in boxes)]
    if len(values) == 1 or len({v.strip() for v in values}) == 1:
        return values[-1].strip()
    between = text[boxes[0][1] : boxes[-1][0]]
    return (" or " if _OR.search(between) else ", ").join(v.strip() for v in values)


def _last_boxes(text: str) -> list[tuple[int, int, int, int]] | None:
    """(start, end, inside start, inside end) of the boxes at the end that are joined to one list, in order."""
    starts = sorted(at for macro in ("\\boxed", "\\fbox") for at in _places(text, macro))
    if not starts:
        return None
    chain: list[tuple[int, int, int, int]] = []
    for match in filter(None, (_BOX.match(text, at) for at in starts[-MAX_BOXES:])):
        if chain and match.start() < chain[-1][1]:
            continue  # a box inside a box
        box = _box_at(text, match)
        if box is None:
            chain = []
            continue
        if chain and not _joined(text[chain[-1][1] : match.start()]):
            chain = []
        chain.append(box)
    return chain


def _places(text: str, macro: str) -> Iterator[int]:
    at = text.find(macro)
    while at >= 0:
        yield at
        at = text.find(macro, at + 1)


def _joined(gap: str) -> bool:
    """Whether two boxes with this between them are one list: connectives, or a few words with "and" inside one sentence."""
    if len(gap) > MAX_GAP:
        return False
    return bool(_JOINER.fullmatch(gap)) or bool(_AND.search(gap) and not _NEW_THOUGHT.search(gap))


def _box_at(text: str, match: re.Match[str]) -> tuple[int, int, int, int] | None:
    """The extent of one box: braces that close, or one token as in `\\boxed 5`."""
    start = match.end()
    if not text.startswith("{", start):
        loose = _LOOSE_BOX.match(text, start)
        return (match.start(), loose.end(), start, loose.end()) if loose else None
    end = _closing(text, start)
    return None if end < 0 else (match.start(), end + 1, start + 1, end)


def _closing(text: str, start: int) -> int:
    """The brace that closes the one at `start`, or -1; gives up after 4,000 characters, far more than any answer has."""
    depth, i, stop = 0, start, min(len(text), start + 4000)
    while i < stop:
        c = text[i]
        if c == "\\":
            i += 1
        elif c == "{":
            depth += 1
        elif c == "}":
            depth -= 1
            if not depth:
                return i
        i += 1
    return -1


def _final_after(text: str) -> str | None:
    """An explicit final answer after the last box, when a value follows the words."""
    at = text[:TAIL].lower().rfind("final answer")
    if at < 0:
        return None
    match = _FINAL.match(text, at)
    if match is None or not _VALUE.match(text, match.end()):
        return None
    return anchored(text[at:])
