r"""Is an extracted answer equal to a gold: the order of the questions, and the cache of golds.

1. written alike, up to layout                          true at once (when the gold can be read at all)
2. both plain numbers                                   exact
3. words, letters of choices, times of day              by their keys
4. trees (`structure.py`), compared by kind (`compare.py`), exactly or with 60 digits
5. what the grammar does not hold                       None: `symbolic.py` may know, in a worker

Everything here is bounded: length, depth, digits, powers, terms. An answer that passes a limit is false.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from r1cli.rewards.math.compare import same_answer
from r1cli.rewards.math.lexer import MAX_CHARACTERS, join_thousands
from r1cli.rewards.math.nodes import Mul, Node, Num, TooBig, Unreadable
from r1cli.rewards.math.structure import Parsed, parse
from r1cli.rewards.math.words import choice_of, clock, is_words, unit_factor, word_key
from r1cli.text.normalise import plain_characters

_NUMBER = re.compile(r"[-+]?(?:\d{1,40}(?:\.\d{1,40})?|\.\d{1,40})")
_LAYOUT = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|mathstrut)(?![a-zA-Z])|\\[!]|[$]|\\(?=[dt]frac(?![a-zA-Z]))[dt]|\\(?=[,;: ])[,;: ]|(?<!\d)\s+|\s+(?!\d)"
)
_THIN = re.compile(r"\\[,;: ]|~")
_DOUBLED = re.compile(r"\\\\(?=[a-zA-Z({\[)}\]])")
_OUTER = re.compile(r"\\\((.*)\\\)|\\\[(.*)\\\]|\$\$?([^$]*)\$\$?", re.DOTALL)
_DECIMAL_COMMA = re.compile(r"(?<![\d,.])(?:0,\d+|\d+,(?:\d{1,2}|\d{4,}))(?![\d,.])")


@dataclass(frozen=True, slots=True)
class Side:
    """A gold or an answer, made ready. trees: its readings (a group of three digits may be thousands or a list); reason: why there are none."""

    text: str
    key: str
    number: Fraction | None
    words: str | None
    readings: tuple[Parsed, ...]
    reason: str = ""
    too_big: bool = False


def tidy(text: str) -> str:
    """An answer with plain characters, without the dollars or brackets around all of it, doubled backslashes or a final full stop."""
    text = plain_characters(text).strip()
    if "\\\\" in text and "\\begin" not in text:
        text = _DOUBLED.sub(r"\\", text)
    while match := _OUTER.fullmatch(text):
        text = next(g for g in match.groups() if g is not None).strip()
        if not text:
            break
    while text.endswith((".", "。", ",", ";")) and not text.endswith("\\,"):
        text = text[:-1].rstrip()
    return text


def layout_key(text: str) -> str:
    """A text without layout: equal keys are written alike. Blanks between digits stay, for they part numbers."""
    if "\\" in text:
        text = _THIN.sub(" ", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return _LAYOUT.sub("", text)


def side(text: str) -> Side:
    """Read one side. Never raises: what cannot be read has no readings and says why."""
    if len(text) > 4 * MAX_CHARACTERS:
        return Side("", "", None, None, (), "it is longer than any answer", True)
    text = tidy(text)
    key = layout_key(text)
    if not key:
        return Side(text, "", None, None, (), "it is empty")
    if _NUMBER.fullmatch(key):
        return Side(text, key, Fraction(key), None, (_number(key),))
    words = word_key(text) if is_words(text) else None
    try:
        return Side(text, key, None, words, _readings(text))
    except TooBig as limit:
        return Side(text, key, None, words, (), str(limit), True)
    except Unreadable as reason:
        return Side(text, key, None, words, (), str(reason))


def _number(key: str) -> Parsed:
    return parse(key)


def _readings(text: str) -> tuple[Parsed, ...]:
    joined = join_thousands(text, commas=True)
    readings = [parse(joined)]
    single = "," in text and not any(c in text for c in "([{")
    for other in (join_thousands(text, commas=False), joined if not single else _DECIMAL_COMMA.sub(lambda m: m[0].replace(",", "."), joined)):
        if other != joined:
            try:
                readings.append(parse(other))
            except Unreadable:
                continue
    return tuple(readings)


@lru_cache(maxsize=65536)
def gold_side(text: str) -> Side:
    """A gold, read once."""
    return side(text)


def readable(gold: Side) -> bool:
    """Whether a gold can be compared with: it has a reading, or it is words, a choice or a time."""
    return bool(gold.readings) or gold.words is not None or choice_of(gold.text) is not None or clock(gold.text) is not None


def equal(gold: Side, answer: Side) -> bool | None:
    """True or False where this stage can tell, None where a symbolic stage may. An unreadable gold is equal to nothing."""
    if not gold.key or not answer.key or gold.too_big and gold.key != answer.key:
        return False
    if gold.key == answer.key:
        return _has_value(gold)
    if gold.number is not None and answer.number is not None and gold.number == answer.number:
        return True
    by_words = _by_words(gold, answer)
    if by_words is not None:
        return by_words
    if answer.too_big:
        return False
    return _by_trees(gold, answer)


def _has_value(gold: Side) -> bool:
    """Written alike is equal, except for what equals nothing (0/0)."""
    if gold.number is not None or gold.words is not None or gold.too_big or len(gold.readings) != 1:
        return True
    try:
        return same_answer(gold.readings[0].tree, gold.readings[0].tree)
    except (Unreadable, TooBig):
        return True


def _by_words(gold: Side, answer: Side) -> bool | None:
    gold_choice = choice_of(gold.text)
    if gold_choice is not None:
        answer_choice = choice_of(answer.text)
        if answer_choice is not None:
            return gold_choice[0] == answer_choice[0]
        if gold_choice[1]:
            return bool(equal(gold_side(gold_choice[1]), answer))
    times = clock(gold.text), clock(answer.text)
    if times[0] is not None and times[1] is not None and "" not in (times[0][2], times[1][2]):
        return times[0] == times[1]
    if times[0] is not None and (times[0][2] or times[1] is not None and times[1][2]):
        return times[1] is not None and times[0][:2] == times[1][:2]
    if gold.words is not None:
        return True if gold.words == word_key(answer.text) else (False if not gold.readings or answer.words is not None else None)
    return None


def _by_trees(gold: Side, answer: Side) -> bool | None:
    unsure = not gold.readings or not answer.readings
    for g in gold.readings:
        for a in answer.readings:
            try:
                if same_answer(g.tree, _in_unit(g, a)):
                    return True
            except Unreadable:
                unsure = True
            except (TooBig, RecursionError):
                continue
    return None if unsure else False


def _in_unit(gold: Parsed, answer: Parsed) -> Node:
    factor = unit_factor(gold.units, answer.units)
    return answer.tree if factor == 1 else Mul((Num(factor), answer.tree))
