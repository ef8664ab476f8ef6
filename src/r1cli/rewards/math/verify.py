r"""Is an extracted answer equal to a gold: the order of the questions, and the cache of golds.

1. written alike, up to layout                          true at once (when the gold can be read at all)
2. both plain numbers                                   exact
3. words, letters of choices, times of day              by their keys
4. trees (`structure.py`), compared by kind (`compare.py`), exactly or with 60 digits
5. integrals, limits, sums and the like                 None: `symbolic.py` may know, in a worker

Everything here is bounded: length, depth, digits, powers, terms. An answer that passes a limit is false.
"""

import re
from dataclasses import replace
from fractions import Fraction
from functools import cached_property

from r1cli.rewards.math.compare import same_answer
from r1cli.rewards.math.dates import clock, date_of, is_time, same_date
from r1cli.rewards.math.lexer import MAX_CHARACTERS
from r1cli.rewards.math.nodes import Add, Func, Mul, Node, Num, Pow, Seq, TooBig, Unreadable
from r1cli.rewards.math.numerals import spelled_out
from r1cli.rewards.math.quantities import Measure, compound, is_sum, measure
from r1cli.rewards.math.structure import Parsed, parse
from r1cli.rewards.math.thousands import join_thousands
from r1cli.rewards.math.words import choice_of, glued_letters, is_words, letters_of, named_with_digits, plain_unit, word_key
from r1cli.text.normalise import plain_characters

_NUMBER = re.compile(r"[-+]?(?:\d{1,40}(?:\.\d{1,40})?|\.\d{1,40})")
_LAYOUT = re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|mathstrut)(?![a-zA-Z])|\\!|[$]|(?<!\d)\s+|\s+(?!\d)")
_THIN = re.compile(r"\\[,;: ]|~")
_DOUBLED = re.compile(r"\\\\(?=[a-zA-Z({\[)}\],;:!])")
_TRAILING = re.compile(r"(?:(?<!\\)[.,;。\s]|\\[,;:! ]|\\q?quad)+$")
_CROSS = re.compile(r"(?<=\d)\s+x\s+(?=\d)")
_FRENCH = re.compile(r"([\[\]])([^\[\]]+[,;][^\[\]]+)([\[\]])")
_OUTER = re.compile(r"\\\((.*)\\\)|\\\[(.*)\\\]|\$\$?([^$]*)\$\$?", re.DOTALL)
_LEADING_WORDS = re.compile(
    r"^(?:\\text\{\s*)?(?:so\s+)?(?:the\s+)?(?:final\s+|correct\s+)?answer(?:\s+is)?\s*:?\s*\}?\s*(?=\S)", re.IGNORECASE
)
_ASIDE = re.compile(r"(?<=\d)\s*\\text\{\s*\([A-Za-z ]{1,30}\)\s*\}$")  # 13 (units)
_CONDITION = re.compile(r"(?:\\[ ,;]|\s)*\(([a-z]\s*\\in[^()]{1,40})\)$")  # k\pi (k \in Z)
_LETTER_O = re.compile(r"(?<=\d)\s*\^\{?o\}?(?![a-zA-Z])")
_QUOTED = re.compile(r"""(?<=[\[,\s])(['"])([^'",\[\]]*)\1(?=\s*[,\]])""")  # ['3', '17'] as Python writes it
_TO = re.compile(r"^(?:\\text\{\s*)?(\d+)\s*(?:\\text\{\s*to\s*\}|to)\s*(\d+)\s*\}?$")  # the ratio 3 to 5
_WORDED = re.compile(r"\\(?:text(?:bf|it|rm)?|mathrm|mbox)\{([^{}]*)\}")
_SYMBOLIC = re.compile(r"\\(?:i?int|lim|frac\s?\{d|begin|det|sum|prod)(?![a-z])")  # what only sympy may know
_DECIMAL_COMMA = re.compile(r"(?<![\d,.])(?:0,\d+|\d+,(?:\d{1,2}|\d{4,}))(?![\d,.])")


class Side:
    """A gold or an answer, made ready; it is parsed when first asked, for most answers are told before that.

    text: tidied. key: without layout. number: its value when it is a plain number. reason: why it has no readings, once they were asked
    for.
    too_big: it passes a limit.
    """

    def __init__(self, text: str) -> None:
        self.reason = ""
        self.too_big = len(text) > 4 * MAX_CHARACTERS
        self.text = "" if self.too_big else tidy(text)
        self.key = layout_key(self.text)
        self.number = Fraction(self.key) if _NUMBER.fullmatch(self.key) else None

    @cached_property
    def words(self) -> str | None:
        """Its key as words, None when it is a formula."""
        return word_key(self.text) if self.number is None and is_words(self.text) else None

    @cached_property
    def readings(self) -> tuple[Parsed, ...]:
        """Its trees: a group of three digits may be thousands or a list. Empty when it cannot be read; `reason` then says why."""
        if not self.key:
            self.reason = "it is longer than any answer" if self.too_big else "it is empty"
            return ()
        try:
            return _readings(self.text)
        except TooBig as limit:
            self.reason, self.too_big = str(limit), True
        except Unreadable as reason:
            self.reason = str(reason)
        return ()

    @cached_property
    def measure(self) -> Measure | None:
        """What it is measured in, when it says so."""
        return measure(self.text)

    @cached_property
    def defined(self) -> bool:
        """False for what equals nothing, such as 0/0."""
        if self.number is not None or len(self.readings) != 1 or not isinstance(tree := self.readings[0].tree, Mul | Add | Pow | Func):
            return True
        try:
            return same_answer(tree, tree)
        except (Unreadable, TooBig):
            return True


def tidy(text: str) -> str:
    """An answer with plain characters, without the dollars or brackets around all of it, doubled backslashes or a final full stop."""
    text = plain_characters(text).strip()
    if text.startswith("**") and text.endswith("**") and len(text) > 4:
        text = text[2:-2].strip()
    if "\\\\" in text and "\\begin" not in text:
        text = _DOUBLED.sub(r"\\", text)
    while match := _OUTER.fullmatch(text):
        text = next(g for g in match.groups() if g is not None).strip()
        if not text:
            break
    text = _TRAILING.sub("", text).lstrip("=").lstrip()
    if "answer" in text or "Answer" in text:
        text = _LEADING_WORDS.sub("", text)
    text = _numerals(text)
    if text.endswith((")", ")}")):
        text = _CONDITION.sub(r", \1", _ASIDE.sub("", text))
    if "^o" in text or "^{o}" in text:
        text = _LETTER_O.sub(r"^{\\circ}", text)
    if text.startswith("[") and ("'" in text or '"' in text):
        text = _QUOTED.sub(r"\2", text)
    if text.endswith("}") or " to " in text:
        text = _TO.sub(r"\1:\2", text)
    if " x " in text:
        text = _CROSS.sub(r"\\times ", text)
    french = _FRENCH.fullmatch(text) if "[" in text or "]" in text else None
    return f"{'(' if french[1] == ']' else '['}{french[2]}{')' if french[3] == '[' else ']'}" if french else text


def _numerals(text: str) -> str:
    """A number in words as digits, inside a font macro too."""
    worded = _WORDED.fullmatch(text)
    inside = worded[1] if worded else text
    spelled = spelled_out(inside)
    return spelled if spelled != inside else text


def layout_key(text: str) -> str:
    """A text without layout: equal keys are written alike. Blanks between digits stay, for they part numbers."""
    if "\\" in text:
        text = _THIN.sub(" ", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return _LAYOUT.sub("", text)


def _readings(text: str) -> tuple[Parsed, ...]:
    joined = join_thousands(text, commas=True)
    readings = [parse(joined)]
    bare = plain_unit(joined)
    if bare != joined:
        readings.append(parse(bare))
    single = "," in text and not any(c in text for c in "([{")
    decimal = _DECIMAL_COMMA.sub(lambda m: m[0].replace(",", "."), joined) if single else joined
    for other in (join_thousands(text, commas=False), decimal):
        if other != joined:
            try:
                readings.append(replace(parse(other), comma=other is decimal))
            except Unreadable:
                continue
    return tuple(readings)


def readable(gold: Side) -> bool:
    """Whether a gold can be compared with: it has a reading, or it is words, a choice or a time."""
    return (
        gold.number is not None
        or bool(gold.readings)
        or gold.words is not None
        or choice_of(gold.text) is not None
        or clock(gold.text) is not None
        or date_of(gold.text) is not None
        or is_sum(gold.text)
        or named_with_digits(gold.text)
    )


def equal(gold: Side, answer: Side) -> bool | None:
    """True or False where this stage can tell, None where a symbolic stage may. An unreadable gold is equal to nothing."""
    if not gold.key or not answer.key:
        return False
    if gold.key == answer.key:
        return gold.defined
    if gold.number is not None and answer.number is not None and (gold.number == answer.number or gold.number.denominator == 1):
        return gold.number == answer.number
    by_words = _by_words(gold, answer)
    if by_words is not None:
        return by_words
    return _by_trees(gold, answer)


def _by_words(gold: Side, answer: Side) -> bool | None:
    gold_choice = choice_of(gold.text)
    if gold_choice is not None:
        answer_choice = choice_of(answer.text)
        if answer_choice is not None:
            return gold_choice[0] == answer_choice[0]
        if gold_choice[1]:
            return bool(equal(Side(gold_choice[1]), answer))
    glued = glued_letters(gold.text), glued_letters(answer.text)
    if glued[0] is not None and glued[1] is not None and (glued[0] == glued[1] or len(glued[0]) > 2):
        return glued[0] == glued[1]
    several = letters_of(gold.text)
    if several is not None and letters_of(answer.text) == several:
        return True
    timed = _by_time(gold.text, answer.text)
    if timed is not None:
        return timed
    if gold.words is not None:
        return True if gold.words == word_key(answer.text) else (False if not gold.readings or answer.words is not None else None)
    return True if named_with_digits(gold.text) and word_key(gold.text) == word_key(answer.text) else None


def _by_time(gold: str, answer: str) -> bool | None:
    """Dates, times of day and durations in several units; None when the gold is none of them, nor the answer a date."""
    dates = date_of(gold), date_of(answer)
    if dates[0] is not None or dates[1] is not None:
        return dates[0] is not None and dates[1] is not None and same_date(dates[0], dates[1])
    times = clock(gold), clock(answer)
    if times[0] is not None and times[1] is not None and (times[0] == times[1] or "" not in (times[0][2], times[1][2])):
        return times[0] == times[1]
    if times[0] is not None and (times[0][2] or (times[1] is not None and times[1][2])):
        return times[1] is not None and times[0][:2] == times[1][:2]
    if is_time(gold):
        return is_time(answer) and [int(n) for n in gold.split(":")] == [int(n) for n in answer.split(":")]
    if is_sum(gold) or is_sum(answer):
        totals = compound(gold), compound(answer)
        return totals[0] == totals[1] if None not in totals else (False if is_sum(gold) else None)
    return None


def _by_trees(gold: Side, answer: Side) -> bool | None:
    unsure = not gold.readings or not answer.readings
    if gold.too_big or answer.too_big:
        return False
    factor = Fraction(1)
    if gold.measure is not None and answer.measure is not None:
        if gold.measure[0] != answer.measure[0]:
            return False  # 45 cm^2 is not 45 cm^3
        factor = answer.measure[1] / gold.measure[1]
    for g in gold.readings:
        for a in answer.readings:
            if g.comma and a.comma:
                continue  # -2,1 and -2,10 are lists when both have the comma
            try:
                if _counted_things(g, a) and not same_answer(_by_thing(g), _by_thing(a)):
                    return False  # 7 boys and 9 girls are not 9 boys and 7 girls
                if same_answer(g.tree, a.tree if factor == 1 else Mul((Num(factor), a.tree))):
                    return True
            except Unreadable:
                unsure = True
            except (TooBig, RecursionError):
                continue
    return None if unsure and (_SYMBOLIC.search(gold.text) or _SYMBOLIC.search(answer.text)) else False


def _counted_things(gold: Parsed, answer: Parsed) -> bool:
    """Whether both sides list as many values as they name things, each its own, and the same ones."""
    sides = (gold, answer)
    if not all(isinstance(side.tree, Seq) and len(side.tree.items) == len(set(side.units)) == len(side.units) > 1 for side in sides):
        return False
    return set(gold.units) == set(answer.units)


def _by_thing(side: Parsed) -> Node:
    """The values of a list in the order of the names of their units."""
    assert isinstance(side.tree, Seq)
    pairs = sorted(zip(side.units, side.tree.items, strict=True), key=lambda pair: pair[0])
    return Seq("(", ")", tuple(item for _, item in pairs))
