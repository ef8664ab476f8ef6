r"""Answers in prose: after an anchor such as "the answer is", and the last value of a text without one."""

import re

# what may follow a word for "answer" so that it announces one; a word that needs nothing after it has an empty rule
_MODAL = r"(?:could|might|may|must|should|would|will|can)\s+(?:\w+\s+)?be"
_NOT = r"(?:is|was|are|can|could|must|should|may|would)(?:n['’]t|\s?not)\b"
_ANNOUNCES = re.compile(rf"s?\b\W{{0,4}}(?:(?:{_MODAL}|ist|is|are|be|equals|est|es)\b(?!n['’]t)|è|é|:|：|=|(?=\s*{_NOT}))")
_WORDS = dict.fromkeys(("answer", "final result", "réponse", "reponse", "respuesta", "antwort", "risposta", "resposta"), _ANNOUNCES)
_WORDS |= {word: re.compile(r"(?:应该|应)?(?:是|为|：|:)") for word in ("答案",)}
_WORDS |= {"故选": re.compile(r"[\s:：]{0,3}(?=[a-j])")}
_WORDS |= {word: re.compile(r"[\s:*：]{0,4}") for word in ("final answer", "ответ", "الجواب", "الإجابة", "उत्तर")}
_WORDS |= {"答え": re.compile(r"(?:は|：|:)"), "답": re.compile(r"(?:은|:)")}
_SENTENCE_END = re.compile(
    r"(?<![\d\s])\.(?=\s|$|\*)|(?<=\d)\.(?=\s+[A-Z\u0080-\uffff]|\s*$)|[。！!？?]"
    r"|\n|<\||</|\s\((?:not|i\.e|since|because|as|rounded)\b|\bI hope\b|,?\s\b(?:since|because)\b|,\s*(?:I|we|but|as|which|so|if|when)\b"
)
_LEAD = re.compile(r'(?:[\s*:：="“]|[-–]\s)*(?:(?:is|are|be|approximately|about|exactly|equal to|simply|just|est|es|是|为)\b[\s*:：]*)*')
_MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_JOINED = re.compile(r"(?:\s|,|;|and|or|\\q?quad|和|或)*")
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,3}(?:\{,\}\d{3})+|\d{1,3}(?:,\\!\s?\d{3})+|\d+(?:[.,]\d+)?|\.\d+)"
_FRACTION = r"\\[dtc]?frac\s*(?:\{[^{}]{1,40}\}|\d)\s*(?:\{[^{}]{1,40}\}|\d)"
_DATE = r"\d{1,2}[/.]\d{1,2}[/.]\d{4}|\d{4}[-/]\d{1,2}[-/]\d{1,2}|\d{1,2}:\d{2}(?::\d{2})?(?:\s?[ap]\.?m\b\.?)?"
_VALUE = re.compile(
    rf"(?<![A-Za-z0-9_.\\^/:-])(?:{_DATE})(?![\d/:-])|(?<![A-Za-z0-9_.\\^/])[-−+]?\s?[$€£¥]?\s?-?(?:{_NUMBER}(?:[eE][-+]?\d{{1,4}}(?!\w))?(?:\s?/\s?\d+|\s+\d+/\d+)?(?:\s?\\?%|\s?percent)?|{_FRACTION})"
)
_PAIR = re.compile(r"[(\[]\s*[-−+]?[\w./\\{}^]{1,30}(?:\s*,\s*[-−+]?[\w./\\{}^]{1,30}){1,9}\s*[)\]]")
_BOLD = re.compile(r"\*\*([^*\n]{1,60})\*\*")
_BOUNDS = r"at least|at most|less than|more than|greater than|fewer than|no more than|no less than|over|under|up to|below|above"
_NO_VALUE = re.compile(rf"(?:{_NOT}|not\b|never\b|(?:{_BOUNDS})\b)", re.IGNORECASE)
_DENIED = re.compile(r"(?:\bnot|n['’]t|\bcannot|\bnever)\s+(?:be\s+|equal\s+(?:to\s+)?)?(?:the\s+answer\s+)?$", re.IGNORECASE)
_HEDGE = re.compile(r",?\s*(?:[a-z]+,?\s+)?(?:or|或)\s*(?:(?:maybe|possibly|perhaps|even|else)\s*)?")
_OPERAND = re.compile(r"(?:[\d)}\]]|\b[a-z])\s*$")
_SYMBOL_ONLY = re.compile(r"\s*\\?[A-Za-z]+(?:_\{?\w+\}?)?\s*")
_LATIN_WORD = re.compile(r"(?<!\\)[A-Za-z]{2,}")
_HAN = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]{2}")
_MARKED = re.compile(r"[$€£¥%]|\s?[$€£¥%]")
_MACRO = re.compile(r"\\(?:text|mathrm|mbox|begin|end|left|right)\*?(?:\{[^{}]*\})?|\\[a-zA-Z]+")
_WORD_BEFORE = re.compile(r"\bI\b|\b(?!or\b|and\b|sin\b|cos\b|tan\b|ln\b|log\b|sqrt\b|pi\b)[A-Za-z]{2,}")
_END = 300
_LONG = 4000
_SHORT_LINE = 120
MAX_ANCHORS = 20


def anchored(text: str, words: tuple[str, ...] = ()) -> str | None:
    """What follows the last anchor that a value or words follow; None without one. With `words`, only anchors that hold one of them."""
    low = text.lower()
    if len(low) != len(text):  # a letter whose lower case is longer: positions would not fit
        low = text
    places = sorted(
        (end for word, rule in _WORDS.items() if not words or word in words for end in _announced(low, word, rule)), reverse=True
    )
    return next((value for end in places if (value := _committed(text[end:]))), None)


def _announced(low: str, word: str, rule: re.Pattern[str]) -> list[int]:
    """Where the announcements by one word end, the last ones of many."""
    ends: list[int] = []
    at = low.rfind(word)
    while at >= 0 and len(ends) < MAX_ANCHORS:
        match = rule.match(low, at + len(word))
        if match is not None and not (word.isascii() and low[at - 1 : at].isalpha() and at):
            ends.append(match.end())
        at = low.rfind(word, 0, at)
    return ends


def _committed(text: str) -> str:
    """The value at the start of what follows an anchor: formulas in dollars, else the sentence, or the last value in it."""
    text = text[_LEAD.match(text).end() :]  # type: ignore[union-attr]
    formula = _formulas_at_start(text)
    if formula is not None:
        return formula
    end = _SENTENCE_END.search(text)
    sentence = text[: end.start()] if end else text
    sentence = sentence.strip().strip("*").strip().rstrip(".,;").strip()
    if not sentence or _NO_VALUE.match(sentence):
        return sentence
    if len(sentence) <= 40 and not _prose_around_value(sentence):
        return sentence
    return _marked_value(sentence) or last_value(sentence) or sentence


def _marked_value(sentence: str) -> str | None:
    """The last number of a sentence that stands beside a currency sign, which tells it from times and counts."""
    marked = [m for m in _VALUE.finditer(sentence) if _MARKED.match(m[0]) or _MARKED.match(sentence, m.end())]
    return marked[-1][0].strip() if marked and "=" not in sentence and "\\" not in sentence else None


def _prose_around_value(sentence: str) -> bool:
    """Whether words stand before a value, so that the sentence is not the value itself."""
    first = _VALUE.search(sentence)
    if first is None:
        return False
    before = sentence[: first.start()]
    return len(_LATIN_WORD.findall(before)) > 1 or _HAN.search(before) is not None


def _formulas_at_start(text: str) -> str | None:
    """A formula, or formulas joined by commas and connectives, at the start; None when it starts otherwise."""
    values, at, joined = [], 0, ", "
    while (match := _MATH.match(text, at)) is not None:
        values.append(next(g for g in match.groups() if g is not None))
        gap = _JOINED.match(text, match.end())
        between = gap[0] if gap else ""
        joined = " or " if "or" in between or "或" in between else joined
        at = match.end() + len(between)
    return joined.join(value.strip() for value in values) if values else None


def last_value(text: str) -> str | None:
    """The value a text ends on: the whole of a short line, the last formula that is more than a name, or the last number."""
    whole = _end_of(text.strip())
    if not whole:
        return None
    values = list(_VALUE.finditer(whole))
    formulas = [m for m in _MATH.finditer(whole) if _is_value(next(g for g in m.groups() if g is not None))]
    if not values and not formulas and len(whole) < _LONG and (bold := _BOLD.findall(whole)):
        return bold[-1].strip()
    if len(whole) <= _SHORT_LINE and "\n" not in whole and _is_bare(whole, formulas):
        return whole
    number = values[-1] if values else None
    formula = formulas[-1] if formulas else None
    if formula is not None and (number is None or number.start() < formula.end()):
        return next(g for g in formula.groups() if g is not None).strip()
    if number is None:
        return None
    if (pair := _pair_around(whole, number)) is not None:
        return pair
    if _DENIED.search(whole, max(0, number.start() - 40), number.start()):
        return f"not {number[0].strip()}"
    if len(values) > 1 and _HEDGE.fullmatch(whole, values[-2].end(), number.start()):
        return f"{values[-2][0].strip()} or {number[0].strip()}"
    return _with_sign(whole, number)


def _pair_around(text: str, number: re.Match[str]) -> str | None:
    """The bracket of values that a number is the last of, as in "the point (3, 4)"."""
    start = max(text.rfind("(", 0, number.start()), text.rfind("[", 0, number.start()))
    match = _PAIR.match(text, start) if start >= 0 and number.start() - start < 80 else None
    return match[0] if match is not None and match.end() > number.end() else None


def _end_of(text: str) -> str:
    """The last lines of a text, enough of them to hold its last value."""
    if len(text) <= 2 * _END:
        return text
    cut = max(text.rfind("\n", 0, len(text) - _END) + 1, len(text) - 4 * _END)
    if text.count("$", 0, cut) % 2:
        cut = text.find("$", cut) + 1  # a formula was cut in two: begin after it
    end = text[cut:]
    return end if any(c.isdigit() for c in end) else text


def _with_sign(text: str, match: re.Match[str]) -> str:
    """A matched number; a sign after another value is an operator, not its own."""
    value, before = match[0].strip(), text[: match.start()]
    if value[:1] in "-−+" and (_OPERAND.search(before) or (value[1:2].isspace() and before[-2:].strip())):
        return value[1:].strip()
    return value


def _is_value(formula: str) -> bool:
    """Whether a formula says more than the name of a quantity, and is no prose between two stray dollars."""
    words = re.findall(r"(?<!\\)\b[A-Za-z]{3,}\b", re.sub(r"\\(?:text|mathrm|mbox|begin|end)\*?\{[^{}]*\}", "", formula))
    return not _SYMBOL_ONLY.fullmatch(formula) and len(words) <= 1 and "?" not in formula


def _is_bare(whole: str, formulas: list[re.Match[str]]) -> bool:
    """Whether a short line is an answer by itself: one formula, or no sentence around a value."""
    if formulas and formulas[-1].start() == 0 and formulas[-1].end() == len(whole):
        return True
    plain = _MACRO.sub(lambda m: " " * len(m[0]), whole)
    has_value = _VALUE.search(whole) is not None
    words = re.findall(r"[A-Za-z]{2,}|[\u3040-\u30ff\u4e00-\u9fff]+", plain)
    if not has_value:
        return len(words) <= 6
    first = _VALUE.search(whole)
    if (
        formulas
        or whole.count("*") > 1
        or first is None
        or _WORD_BEFORE.search(plain[: first.start()])
        or _HAN.search(whole[: first.start()])
    ):
        return False
    others = [w for w in words if w.lower() not in ("or", "and", "percent", "pct")]
    return len(others) <= (0 if "=" in whole else 2)
