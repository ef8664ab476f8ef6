"""Is a completion right: find the answer it commits to, and compare it with the gold."""

import re
from dataclasses import dataclass
from functools import lru_cache

from r1cli.rewards.math.verify import Side, equal, readable
from r1cli.rewards.math.words import choice_of
from r1cli.text.answers import STYLES, answer_region, find_answer
from r1cli.text.choice_answer import chosen_in
from r1cli.text.choices import Option
from r1cli.text.normalise import plain_characters
from r1cli.text.plain_answer import anchored

_LETTERS = [Option(letter, "") for letter in "ABCDEFGHIJ"]
_LETTER = re.compile(r"(?<![A-Za-z\\])\(?([A-J])\)?(?![A-Za-z'’])")
_DENIED = re.compile(
    r"(?:\bnot|\bcannot(?:\s+be)?|n't(?:\s+be)?|\bthan|\bnor|\bneither|\bnon|\bno|\bnicht|\bni|\bpas|不是|不选|非)\s*(?:\w+\s+)?(?:\(?[A-J]\)?\s*(?:,|or|and|nor|或|和)\s*)*\(?$",
    re.IGNORECASE,
)
_AFTER_ARTICLE = re.compile(r"\s+(?!(?:and|or|nor|is|was|are|because|since)\b)[a-z]")
_LONG_GOLD = 200
_TAIL = 4000


def gold_of(answer: object) -> Side:
    """A row's `answer` as a gold: a number, an answer, a solution that ends in a box, or GSM8K's `#### 18`."""
    return _gold_in(str(answer))


@lru_cache(maxsize=65536)
def _gold_in(text: str) -> Side:
    if "\\boxed" in text or "\\fbox" in text or "####" in text or (len(text) > _LONG_GOLD and "." in text):
        found = find_answer(text)
        text = found.text if found is not None else text
    return Side(text)


def problem_of(answer: object) -> str | None:
    """Why a gold cannot be compared with, or None when it can."""
    gold = gold_of(answer)
    return None if readable(gold) else f"`{gold.text[:80]}` cannot be read: {gold.reason}"


def committed(completion: str, gold: Side, opened: bool = False, styles: tuple[str, ...] = STYLES, finished: bool = True) -> str | None:
    """The answer that a completion commits to, given what kind of gold it is compared with."""
    found = find_answer(completion, opened, styles, finished)
    choice = choice_of(gold.text)
    if choice is not None and not choice[1] and (found is None or found.style != "boxed") and {"anchor", "last"} & set(styles):
        region = answer_region(completion, opened, finished)
        return _letter(region[0]) if region is not None else None
    return found.text if found is not None else None


def _letter(text: str) -> str | None:
    """The letter of the choice a text commits to: by statement, else the last one that is not denied."""
    text = plain_characters(text[-_TAIL:]).replace("**", "").replace("$", "")
    option = chosen_in(text, _LETTERS)
    if option is not None:
        return option.label
    stated = anchored(text)
    if stated is not None and (match := _LETTER.match(stated)):
        return match[1]
    named = []
    for match in _LETTER.finditer(text):
        article = match[1] == "A" and _AFTER_ARTICLE.match(text, match.end()) is not None and "(" not in match[0]
        pronoun = match[1] == "I" and "(" not in match[0]
        if not article and not pronoun and not _DENIED.search(text[: match.start()]):
            named.append(match[1])
    return named[0] if len(set(named)) == 1 else None


@dataclass(frozen=True, slots=True)
class Judgement:
    """verdict: True, False, or None when only a symbolic stage can tell. answer: None when the completion commits to none."""

    verdict: bool | None
    gold: Side
    answer: Side | None


def judge(completion: str, answer: object, opened: bool = False, styles: tuple[str, ...] = STYLES, finished: bool = True) -> Judgement:
    """Whether a completion's answer equals the gold, as far as can be told in bounded time."""
    gold = gold_of(answer)
    text = committed(completion, gold, opened, styles, finished)
    if text is None:
        return Judgement(False, gold, None)
    found = Side(text)
    return Judgement(equal(gold, found), gold, found)
