"""Limits on what a row may be: how long its texts are, which language they are in."""

from collections.abc import Callable, Sequence

from r1cli.errors import Exit, R1Error
from r1cli.row import Row
from r1cli.steps.decontaminate import texts_of
from r1cli.steps.keep import Judge
from r1cli.text.language import main_language, normalise_language


def limits_of(chars: str | None, languages: Sequence[str]) -> list[Judge]:
    """`--chars` and `--language` as judges: a row -> why it is dropped, or None. Raises `R1Error` (exit 2) for what cannot be read."""
    judges: list[Judge] = []
    if chars is not None:
        judges.append(_within(*span_of(chars)))
    if languages:
        judges.append(_in_language(frozenset(normalise_language(code) for code in languages)))
    return judges


def span_of(text: str) -> tuple[int, float]:
    """`100..2000`, `100..` or `..2000`: the lowest and the highest number allowed."""
    low, dots, high = text.partition("..")
    if not dots or not (low or high) or any(part and not part.isdecimal() for part in (low, high)):
        raise R1Error(f"`--chars {text}` is not a range", hint="write 100..20000, 100.. or ..20000", code=Exit.USAGE)
    lowest, highest = int(low or 0), int(high) if high else float("inf")
    if lowest > highest:
        raise R1Error(f"`--chars {text}` is empty: {low} is more than {high}", hint=f"write {high}..{low}", code=Exit.USAGE)
    return lowest, highest


def _within(lowest: int, highest: float) -> Callable[[Row], str | None]:
    def judge(row: Row) -> str | None:
        length = sum(map(len, texts_of(row)))
        if length < lowest:
            return f"shorter than {lowest} characters"
        return f"longer than {highest} characters" if length > highest else None

    return judge


def _in_language(wanted: frozenset[str]) -> Callable[[Row], str | None]:
    def judge(row: Row) -> str | None:
        found = main_language("\n".join(texts_of(row)))
        return None if found is None or found in wanted else f"in another language ({found})"  # a bare formula is in none

    return judge
