"""Named filters for what makes a reasoning hard to read (DeepSeek-R1, section 2.3.3: mixed languages, long paragraphs, code blocks).

    readable                                    all of them with their defaults
    mixed-language,long-paragraph:words=300     some of them, with a threshold

| filter           | drops a row when                                                     | threshold     |
|------------------|----------------------------------------------------------------------|---------------|
| `mixed-language` | fewer words of its reasoning are in the target language              | `share=0.98`  |
| `long-paragraph` | a paragraph of its reasoning has more words                          | `words=200`   |
| `code-block`     | its reasoning holds a fenced code block                              |               |
| `repetition`     | more of the completion's 6-grams are repeats of earlier ones         | `share=0.2`   |
| `truncated`      | it was cut at the length limit (`finish_reason` is "length")         |               |

The paper gives no thresholds; what these keep and drop of real traces stands in docs/rejection.md. A word of another script is foreign by
its letters; which of the languages in Latin letters a word belongs to is a guess by windows of 20 words, so that the first two windows'
worth of them prove nothing (lists of names and units look like any language). A completion without reasoning is looked at as a whole,
except for code, which is nobody's business outside the reasoning. All filters are linear in the length of the text.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from r1cli.errors import Exit, R1Error, nearest
from r1cli.row import Row, require
from r1cli.text.language import SCRIPTS, WINDOW_WORDS, count_words, main_language, normalise_language
from r1cli.text.question import prompt_text
from r1cli.text.repetition import repeated_share, words_of
from r1cli.text.think import opened_by, split

ALL = "readable"
FEWEST_WORDS = 8  # a shorter reasoning is too little to tell its language by
NGRAM = 6
DOUBTFUL_WORDS = 2 * WINDOW_WORDS
_LATIN = re.compile(r"[A-Za-z\xaa\xba\xc0-\xd6\xd8-\xf6\xf8-\u024f\u0300-\u036f\u1e00-\u1eff]+")
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
_FENCE = re.compile(r"^[^\S\n]{0,3}(?:```|~~~)", re.MULTILINE)
Reason = str


@dataclass(frozen=True)
class Kind:
    """A filter: (row, threshold) -> why the row is dropped, None when it is not. option: the threshold's name, "" without one."""

    find: Callable[[Row, float], Reason | None]
    option: str = ""
    default: float = 0.0
    most: float = float("inf")


@dataclass(frozen=True)
class Filter:
    """A filter with its threshold."""

    name: str
    threshold: float

    def __call__(self, row: Row) -> Reason | None:
        return KINDS[self.name].find(row, self.threshold)


def parse(text: str) -> list[Filter]:
    """`--filters` as a list. Raises `R1Error` (exit 2) for an unknown name or threshold, and for a filter named twice."""
    filters: list[Filter] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        filters += [Filter(name, kind.default) for name, kind in KINDS.items()] if entry == ALL else [_entry(entry)]
    names = [found.name for found in filters]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise R1Error(f"filter `{twice}` is named twice in `{text}`", hint=f"name each once; `{ALL}` is all of them", code=Exit.USAGE)
    return filters


def _entry(entry: str) -> Filter:
    name, *options = entry.split(":")
    if name not in KINDS:
        raise R1Error(f"unknown filter `{name}`", hint=nearest(name, [*KINDS, ALL]), code=Exit.USAGE)
    kind, threshold = KINDS[name], KINDS[name].default
    usage = f"write {name}:{kind.option}={kind.default:g}" if kind.option else f"`{name}` takes no threshold"
    for option in options:
        key, _, value = option.partition("=")
        try:
            threshold = float(value)
        except ValueError:
            threshold = -1.0
        if not kind.option or key != kind.option or not 0 <= threshold <= kind.most:
            raise R1Error(f"`{option}` is not a threshold of filter `{name}`", hint=usage, code=Exit.USAGE)
    return Filter(name, threshold)


def reason_of(filters: list[Filter], row: Row) -> Reason | None:
    """The first filter's objection to a row, in the order of the list."""
    return next((reason for each in filters if (reason := each(row)) is not None), None)


def _reasoning(row: Row, *, otherwise_all: bool = True) -> str:
    completion = require(row, "completion", str)
    parts = split(completion, opened_by(row.get("think_prefix")))
    return parts.reasoning or (completion if otherwise_all else "")


def _mixed_language(row: Row, share: float) -> Reason | None:
    language = _target(row)
    if language is None:
        return None
    text = _reasoning(row)
    counts = count_words(text, language)
    if counts.words < FEWEST_WORDS or counts.share >= share:
        return None
    foreign = counts.words - counts.target
    if language in SCRIPTS["latin"][1]:
        strange = count_words(_LATIN.sub(" ", text), language)
        by_script = strange.words - strange.target
        foreign = by_script + max(0, foreign - by_script - DOUBTFUL_WORDS)
    return "mixed languages" if foreign > (1 - share) * counts.words else None


def _target(row: Row) -> str | None:
    if row.get("language") is None:
        return main_language(prompt_text(row))
    try:
        return normalise_language(require(row, "language", str))
    except R1Error as error:
        where = f"{row.where}: " if row.where else ""
        raise R1Error(f"{where}row `{row.get('id')}`: {error.message}", hint=error.hint, code=Exit.USAGE) from None


def _long_paragraph(row: Row, words: float) -> Reason | None:
    longest = max(len(words_of(paragraph)) for paragraph in _BLANK_LINE.split(_reasoning(row)))
    return f"a paragraph of more than {words:g} words" if longest > words else None


def _code_block(row: Row, _: float) -> Reason | None:
    return "a code block in the reasoning" if _FENCE.search(_reasoning(row, otherwise_all=False)) else None


def _repetition(row: Row, share: float) -> Reason | None:
    return f"more than {share:g} of it repeated" if repeated_share(require(row, "completion", str), NGRAM) > share else None


def _truncated(row: Row, _: float) -> Reason | None:
    return "truncated" if row.get("finish_reason") == "length" else None


KINDS = {
    "truncated": Kind(_truncated),
    "mixed-language": Kind(_mixed_language, "share", 0.98, 1.0),
    "long-paragraph": Kind(_long_paragraph, "words", 200.0),
    "code-block": Kind(_code_block),
    "repetition": Kind(_repetition, "share", 0.2, 1.0),
}
