r"""Which option of a multiple-choice question a completion commits to.

    chosen("So it must be the membrane.\n\n**Answer:** (A)", options)        Option("A", "amnion")

Read in this order, in the text after the reasoning; the first that is there decides:

1. the last `<answer>...</answer>` pair, whose inside is then read by the rules below;
2. `\boxed{...}`: all of them must name the same option;
3. statements ("the answer is C", "Answer: (C) iron", "C is correct", "故选C"): the last one counts;
4. the whole text, or its first or last line, when it is nothing but an option: `C`, `(C)`, `C. iron`, `iron`.

A name is the label, the label with its text, or the option's full text. Naming several options ("A or B"), a label with another
option's text, or an open reasoning block names nothing: the result is None. "A" that begins a sentence is an article, not an option.
"""

import re
import unicodedata

from r1cli.text.choices import Option, plain
from r1cli.text.think import split

_LONGEST = 20_000  # characters from the end of a completion that are read: a commitment stands at the end
_MOST_STATEMENTS = 100  # read from the end
_WRAPPER = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|operatorname|mbox|bf|rm)\s?\{([^{}]*)\}")
_BRACES = re.compile(r"\\f?boxed\s?\{|[{}]")
_SPACE = re.compile(r"\\[ ,;:!]|~|\\quad|\\qquad")
_STATEMENT = re.compile(
    r"\b(?:answer|choice|option|solution)\b(?:[ \t]+(?:to|for|here|of|the|this|that|question|problem|therefore|thus|then|must|should|would"
    r"|will|has|have|to)){0,6}[ \t]*(?:\bis\b|\bbe\b|:|=|-{1,2}>?)"
    r"|\b(?:i|we|i'd|i'll|i'll|we'll)[ \t]+(?:\w+[ \t]+)?(?:choose|chose|select|pick|go with|conclude)\b"
    r"|答案(?:应该|应)?(?:是|为|选|:)|(?:故|应|因此|所以)?选(?:择|项)?(?:是|为|:)?",
    re.IGNORECASE,
)
_FILLER = re.compile(
    r"(?:[ \t\n:=]|\b(?:therefore|thus|then|clearly|definitely|most likely|likely|probably|indeed|simply|just|be|option|choice|letter"
    r"|number|answer)\b|选项){0,16}",
    re.IGNORECASE,
)
_CONNECTIVE = r"[ \t]*(?:[,/&+、，]|\bor\b|\band\b|\bnor\b|或者?|和|与)[ \t]*(?:(?:or|and|maybe|possibly|option|choice|both)\b[ \t]*)*"


def chosen(completion: str, options: list[Option], opened: bool = False) -> Option | None:
    """The option a completion commits to, or None. `opened`: the prompt had already opened the reasoning."""
    parts = split(completion, opened)
    if not parts.closed:
        return None
    text = parts.rest if parts.answer is None else parts.answer
    return chosen_in(text[-_LONGEST:], options)


def chosen_in(text: str, options: list[Option]) -> Option | None:
    """As `chosen`, for the text that holds the final answer."""
    plainer = [Option(option.label, _unwrap(option.text)) for option in options]
    found = _commitment(_unwrap(text), plainer)
    return None if found is None else options[plainer.index(found)]


def _commitment(text: str, options: list[Option]) -> Option | None:
    """Rules 2 to 4 of the module."""
    boxes = _boxes(text)
    if boxes:
        named = {_read(box, options) for box in boxes}
        return named.pop() if len(named) == 1 else None
    whole = _read(text, options)
    if whole is not None:
        return whole
    statements = _statements(text, options)
    if statements:
        return statements[-1]
    lines = [_read(line, options) for line in text.split("\n") if line.strip()]
    named = {option for option in lines if option is not None}
    return named.pop() if len(named) == 1 and (lines[0] or lines[-1]) else None  # several: the text lists the options


def _boxes(text: str) -> list[str]:
    r"""The insides of the closed `\boxed{...}`, outermost ones only; linear time."""
    found: list[str] = []
    start, depth = -1, 0
    for match in _BRACES.finditer(text):
        if depth:
            depth += 1 if match[0][-1] == "{" else -1
            if not depth:
                found.append(text[start : match.start()])
        elif match[0][0] == "\\":
            start, depth = match.end(), 1
    return found


def _unwrap(text: str) -> str:
    r"""Without `\text{...}` and its kin, bold and code marks, LaTeX spaces and dollar signs, in NFKC form."""
    text = _SPACE.sub(" ", unicodedata.normalize("NFKC", text).replace("**", "").replace("__", "").replace("`", ""))
    for _ in range(3):
        text, replaced = _WRAPPER.subn(r"\1", text)
        if not replaced:
            break
    return text


def _read(name: str, options: list[Option]) -> Option | None:
    """The option that a text names when it holds nothing else."""
    name = name.strip().strip("*$").strip()
    label, rest = _leading_label(name, options, alone=True)
    if label is not None and not plain(rest.strip("()[]")):
        return label
    same = [option for option in options if plain(option.text) == plain(name)]
    if len(same) == 1:
        return same[0]
    if label is not None and _text_fits(rest, label):
        return label
    return None


def _leading_label(text: str, options: list[Option], alone: bool = False) -> tuple[Option | None, str]:
    """The option whose label opens the text, and what follows it.

    A label is in brackets, or followed by a mark or the end; a bare letter followed by a word ("A cat") is not one. Small letters
    count when the label is the whole text (`alone`), or in brackets.
    """
    for option in options:
        label = re.escape(option.label)
        if match := re.match(rf"[\(\[]\s*{label}\s*[\)\]]", text, re.IGNORECASE):
            return option, text[match.end() :]
        if match := re.match(rf"{label}(?=[.):,;/&。，；、]|\s*$|\s*\n|\s*[-–—]\s|\s*[(（])[.):]?", text):
            return option, text[match.end() :]
        if alone and re.fullmatch(rf"{label}[.)]?", text, re.IGNORECASE):
            return option, ""
    return None, text


def _text_fits(rest: str, label: Option) -> bool:
    """Whether what stands behind a label is that option's text (brackets and dashes around it do not matter)."""
    own = plain(label.text.strip(" ()[]"))
    for found in (plain(rest.strip(" \t\n:()[]")), plain(rest.strip(" \t\n-–—:()[]"))):
        if found and (found == own or (len(own) >= 4 and found.startswith(own) and not found[len(own)].isalnum())):
            return True
    return False


def _statements(text: str, options: list[Option]) -> list[Option | None]:
    """What every statement names, in order; None for one that names several options. Statements that name none are left out."""
    labels = "|".join(re.escape(option.label) for option in options)
    found: dict[int, Option | None] = {}
    verdicts: list[tuple[int, int]] = []
    verdict = re.compile(
        rf"(?<![\w(])\(?({labels})\)?[ \t]+(?:is|must be|would be)[ \t]+(?:the[ \t]+)?(?:correct|right|best|answer)\b[^.:\n]{{0,20}}:?"
    )
    doubt = re.compile(rf"(?:{labels})\)?{_CONNECTIVE}$|\b(?:neither|nor|if|whether)[ \t]+$")
    for match in verdict.finditer(text):
        doubted = doubt.search(text[max(0, match.start() - 40) : match.start()])
        found[match.start()] = None if doubted else next(option for option in options if option.label == match[1])
        verdicts.append(match.span())
    for match in list(_STATEMENT.finditer(text))[-_MOST_STATEMENTS:]:
        if any(start < match.start() < end for start, end in verdicts):
            continue  # "(C) is the right answer: A and B are not" says C
        filler = _FILLER.match(text, match.end())
        starts = (match.end(), filler.end() if filler else match.end())  # "number of birds" may be an option, "number C" is filler
        named, option = next((n for n in (_named_at_start(text[at : at + 600].lstrip(), options) for at in starts) if n[0]), (False, None))
        if named:
            found[match.start()] = option
    return [found[start] for start in sorted(found)]


def _named_at_start(payload: str, options: list[Option]) -> tuple[bool, Option | None]:
    """(whether the payload opens with a name, the option it names; None when it names several or contradicts itself)."""
    named, option = _text_at_start(payload, options)
    if named and option is not None and len(option.text) > 3:
        return named, option  # before the label: "B and C only" may be an option's text
    option, rest = _leading_label(payload, options)
    if option is None:
        if bare := re.match(r"([A-Z])(?=\s+(?:because|since|as|for|which|that|due|and|or|is)\b)", payload):
            option = next((o for o in options if o.label == bare[1]), None)
            rest = payload[bare.end() :]
        if option is None:
            return _text_at_start(payload, options)
    sentence = rest.split("\n")[0]
    labels = "|".join(re.escape(o.label) for o in options)
    more = re.match(rf"\)?(?:{_CONNECTIVE})[\(\[]?({labels})[\)\]]?(?=\s*(?:$|[.,;/&)、，。]|(?:or|and)\b))", sentence)
    if more and more[1] != option.label:
        return True, None
    others = any(_text_fits(sentence, o) for o in options if o is not option and len(plain(o.text)) > 1)
    return True, None if others and not _text_fits(sentence, option) else option


def _text_at_start(payload: str, options: list[Option]) -> tuple[bool, Option | None]:
    """The option whose full text opens the payload (an article before it does not matter), the longest when several do."""
    start = re.sub(r"^(?:the|a|an) ", "", plain(payload[:600]))
    fits = []
    for option in options:
        own = re.sub(r"^(?:the|a|an) ", "", plain(option.text))
        if own and start.startswith(own) and not start[len(own) : len(own) + 1].isalnum():
            fits.append((len(own), option))
    if not fits:
        return False, None
    longest = max(length for length, _ in fits)
    best = [option for length, option in fits if length == longest]
    after = start[longest : longest + 200]
    others = "|".join(re.escape(plain(option.text)) for option in options if option is not best[0])
    if len(best) > 1 or re.match(rf"[.?!]{{0,2}}{_CONNECTIVE}(?:the |a |an )?(?:{others})(?!\w)", after):
        return True, None
    if re.match(r"\s*(?:is|are|was)\b|\s*\d|[.,]\d", after):  # "the answer: iron is wrong"; an option "3" in "3.5"
        return False, None
    return True, best[0]
