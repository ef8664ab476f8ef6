"""Which language the words of a text are in: counted by script, then by vocabulary, and only then asked of langdetect.

    counts = count_words("So we have two cases, 第一种情况是偶数。", target="en")
    counts.words, counts.target, counts.share        # 13, 5, 0.3846

What is a word (`r1cli.text.prose` has taken mathematics, code, URLs and tags out before):

- a run of letters of an alphabet, hyphens and apostrophes inside it included (`AM-GM`, `that's`), is one word;
- every Han character is one word; a run of kana is one word, a run of hangul is one word (Koreans write spaces);
- scripts without spaces (Thai, Lao, Khmer, Burmese): every four characters begun are one word.

A script that only one of the candidate languages uses decides by itself: Han is Chinese, except in a sentence that also holds kana,
where it is Japanese. A script of several languages (Latin, Cyrillic, Arabic, Devanagari) is decided in windows of about 20 words:
function words first (most English windows end there), then langdetect with a fixed seed and only the candidate languages. A window
below 8 words is too short for langdetect: it is the target's unless its function words say otherwise.

Everything is deterministic and linear in the length of the text; langdetect is imported when the first window needs it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from r1cli.errors import Exit, R1Error, nearest
from r1cli.text.prose import prose_of
from r1cli.text.vocabulary import FUNCTION_WORDS

WINDOW_WORDS = 20  # langdetect is right on practically every window of this length
SHORT_WINDOW = 8  # below this many words langdetect guesses
CLEAR_SHARE = 0.25  # a window with this share of one language's function words, and twice those of any other, needs no langdetect

ACCENTED_SHARE = 0.2  # English has names with accents (Erdős), not every fifth word; langdetect takes Czech for it, not having been asked

# Languages by script. The first column is how the script is recognised; the languages are those langdetect has a profile of.
SCRIPTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "han": (r"[\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]", ("zh", "ja")),
    "kana": (r"[\u3041-\u3096\u30a1-\u30fa\u30fc]+", ("ja",)),
    "hangul": (r"[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]+", ("ko",)),
    "latin": (
        r"[A-Za-z\xaa\xba\xc0-\xd6\xd8-\xf6\xf8-\u024f\u0300-\u036f\u1e00-\u1eff]++"
        r"(?:['’\-][A-Za-z\xc0-\xd6\xd8-\xf6\xf8-\u024f\u0300-\u036f\u1e00-\u1eff]++)*+",
        ("en", "fr", "de", "es", "it", "pt", "nl", "af", "ca", "cs", "cy", "da", "et", "fi", "hr", "hu", "id", "lt", "lv", "no", "pl",
         "ro", "sk", "sl", "so", "sq", "sv", "sw", "tl", "tr", "vi"),
    ),
    "cyrillic": (r"[\u0400-\u052f]+(?:-[\u0400-\u052f]+)*", ("ru", "uk", "bg", "mk")),
    "arabic": (r"[\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufeff]+", ("ar", "fa", "ur")),
    "devanagari": (r"[\u0900-\u0963\u0966-\u097f]+", ("hi", "mr", "ne")),
    "hebrew": (r"[\u0590-\u05ff]+", ("he",)),
    "greek": (r"[\u0370-\u03ff\u1f00-\u1fff]+", ("el",)),
    "bengali": (r"[\u0980-\u09ff]+", ("bn",)),
    "gurmukhi": (r"[\u0a00-\u0a7f]+", ("pa",)),
    "gujarati": (r"[\u0a80-\u0aff]+", ("gu",)),
    "tamil": (r"[\u0b80-\u0bff]+", ("ta",)),
    "telugu": (r"[\u0c00-\u0c7f]+", ("te",)),
    "kannada": (r"[\u0c80-\u0cff]+", ("kn",)),
    "malayalam": (r"[\u0d00-\u0d7f]+", ("ml",)),
    "unspaced": (r"[\u0e01-\u0e4e\u0e80-\u0eff\u1000-\u109f\u1780-\u17d3]+", ("th",)),
    "other": (r"[^\W\d_]+", ()),
}  # fmt: skip
LANGUAGES = tuple(sorted({language for _, languages in SCRIPTS.values() for language in languages}))
CANDIDATES = 7  # Latin-script languages told apart by default, besides the target: each more costs time and certainty
UNSPACED_CHARACTERS = 4

_WORD = re.compile("|".join(f"(?P<{script}>{pattern})" for script, (pattern, _) in SCRIPTS.items()) + r"|(?P<stop>[!?。…]|\.\s|\n)")
_SINGLE_WORD = re.compile(r"[aAI]\Z|[^\x00-\x7f]\Z")  # the one-letter words that are not taken for a variable: a, I, à, ó, ...


@dataclass(frozen=True)
class WordCount:
    """Words of a text and how many of them are in the target language."""

    words: int
    target: int

    @property
    def share(self) -> float:
        """Target-language words / all words; 1.0 for a text without words."""
        return self.target / self.words if self.words else 1.0


def normalise_language(code: str) -> str:
    """An ISO 639-1 code in the form used here: `zh-CN` and `zh_TW` are `zh`, `nb` and `nn` are `no`. Unknown codes: `R1Error`, exit 2."""
    base = re.split(r"[-_]", code.strip().lower())[0]
    base = {"nb": "no", "nn": "no", "iw": "he", "in": "id"}.get(base, base)
    if base not in LANGUAGES:
        raise R1Error(f"unknown language `{code}`", hint=nearest(base, LANGUAGES) + " (ISO 639-1 codes)", code=Exit.USAGE)
    return base


def count_words(text: str, target: str) -> WordCount:
    """How many words of `text` are in the language `target`, mathematics, code, URLs and tags left out."""
    target = normalise_language(target)
    decided = {script: target in languages for script, (_, languages) in SCRIPTS.items()}
    words = found = 0
    windows: dict[str, list[list[str]]] = {}
    for sentence in _sentences(prose_of(text)):
        japanese = any(script == "kana" for script, _ in sentence)
        runs: dict[str, list[str]] = {}
        for script, word in sentence:
            if _is_shared(script):
                runs.setdefault(script, []).append(word)
                continue
            units = -(-len(word) // UNSPACED_CHARACTERS) if script == "unspaced" else 1
            words += units
            in_target = target == ("ja" if japanese else "zh") if script == "han" else decided[script]
            found += units if in_target else 0
        for script, run in runs.items():
            _append(windows.setdefault(script, []), run)
    for script, script_windows in windows.items():
        for window in script_windows:
            words += len(window)
            if decided[script] and _window_is(tuple(window), target, script):
                found += len(window)
    return WordCount(words, found)


def main_language(text: str) -> str | None:
    """The language most words of `text` are in; None when it has no words (a bare formula) or an unknown script."""
    scripts: dict[str, list[str]] = {}
    kana = False
    for sentence in _sentences(prose_of(text)):
        for script, word in sentence:
            kana = kana or script == "kana"
            scripts.setdefault("han" if script == "kana" else script, []).append(word)
    if not scripts:
        return None
    script = max(scripts, key=lambda name: len(scripts[name]))
    languages = SCRIPTS[script][1]
    if script == "han":
        return "ja" if kana else "zh"
    if len(languages) < 2:
        return languages[0] if languages else None
    candidates = _candidates(languages[0], script)
    words = tuple(scripts[script])
    hits = _hits(words, candidates)
    best = max(candidates, key=lambda language: hits[language])
    others = max(n for language, n in hits.items() if language != best)
    enough = CLEAR_SHARE * len(words) if len(words) >= WINDOW_WORDS else 2
    if hits[best] >= max(enough, 2 * others):
        return best
    if len(words) < SHORT_WINDOW:
        return best if hits[best] > others else languages[0]
    chances = _detect(" ".join(words), languages)
    return max(chances, key=lambda language: chances[language]) if chances else languages[0]


def _sentences(prose: str) -> Iterator[list[tuple[str, str]]]:
    """(script, word) pairs, a list for each sentence or line that has words; variables (single Latin letters) left out."""
    sentence: list[tuple[str, str]] = []
    for match in _WORD.finditer(prose):
        script = match.lastgroup or "other"
        if script == "stop":
            if sentence:
                yield sentence
            sentence = []
        elif script == "latin":
            if _is_word(match.group(), prose, match.end()):
                sentence.append((script, match.group()))
        elif script != "greek" or len(match.group()) > 1:  # one Greek letter is a symbol
            sentence.append((script, match.group()))
    if sentence:
        yield sentence


def _is_word(token: str, prose: str, end: int) -> bool:
    """Whether a Latin token is a word of a language: not `x`, not `a-b`, and `a` or `I` only before another word."""
    if len(token) > 3:
        return True
    if len(token) > 1:
        return token.isalpha() or any(len(part) > 1 for part in re.split(r"['’\-]", token))
    return bool(_SINGLE_WORD.match(token)) and prose[end : end + 1] == " " and prose[end + 1 : end + 2].isalpha()


def _append(windows: list[list[str]], run: list[str]) -> None:
    """Add the words of one sentence: to the last window while it is below 20 words, else as a new one."""
    if windows and len(windows[-1]) < WINDOW_WORDS:
        windows[-1].extend(run)
    else:
        windows.append(run)


def _is_shared(script: str) -> bool:
    return script in ("latin", "cyrillic", "arabic", "devanagari")


def _candidates(target: str, script: str) -> tuple[str, ...]:
    """The languages a window of this script may be in: the common ones and the target."""
    common = SCRIPTS[script][1][:CANDIDATES]
    return common if target in common else (*common, target)


def _hits(words: tuple[str, ...], candidates: tuple[str, ...]) -> dict[str, int]:
    """Function words of each language among `words`."""
    hits = dict.fromkeys(candidates, 0)
    for word in words:
        for language in FUNCTION_WORDS.get(word.lower(), ()):
            if language in hits:
                hits[language] += 1
    return hits


def _window_is(words: tuple[str, ...], target: str, script: str) -> bool:
    """Whether a window of words is in the target language."""
    candidates = _candidates(target, script)
    hits = _hits(words, candidates)
    others = max((n for language, n in hits.items() if language != target), default=0)
    if hits[target] >= max(CLEAR_SHARE * len(words), 2 * others, 1):
        return True
    if len(words) < SHORT_WINDOW:
        return hits[target] >= others
    if target == "en" and sum(not word.isascii() for word in words) > ACCENTED_SHARE * len(words):
        return False
    chances = _detect(" ".join(words), candidates)
    return chances.get(target, 0.0) >= 0.5 if chances else hits[target] >= others


@lru_cache(maxsize=8192)
def _detect(text: str, candidates: tuple[str, ...]) -> dict[str, float]:
    """langdetect's probability of each candidate language; empty when it finds nothing to judge by."""
    from langdetect.lang_detect_exception import LangDetectException

    detector = _factory(candidates).create()
    detector.append(text)
    try:
        return {found.lang: found.prob for found in detector.get_probabilities()}
    except LangDetectException:  # "No features in text": all capitals, say
        return {}


@cache
def _factory(candidates: tuple[str, ...]) -> Any:
    """A langdetect factory with these languages only. Its seed makes every answer a function of the text alone."""
    from importlib.resources import files

    from langdetect.detector_factory import DetectorFactory
    from langdetect.lang_detect_exception import LangDetectException

    profiles = files("langdetect") / "profiles"
    factory = DetectorFactory()
    try:
        factory.load_json_profile([(profiles / language).read_text(encoding="utf-8") for language in candidates])
    except LangDetectException as error:
        cause = error.__context__
        if cause is None or isinstance(cause, Exception):
            raise
        raise cause from None  # Ctrl-C or the time limit, which its bare `except` took for a broken profile
    factory.set_seed(0)
    return factory
