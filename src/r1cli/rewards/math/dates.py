"""Dates and times of day: read from how people write them, compared as what they say.

date_of("May 5th, 2020"), date_of("2020-05-05")     (2020, 5, 5)
clock("3:45 p.m.")                                  (3, 45, "p")
"""

import re

from r1cli.rewards.math.quantities import plain_text

_MONTHS = {name: n for n, names in enumerate(
    ("january jan", "february feb", "march mar", "april apr", "may", "june jun", "july jul", "august aug", "september sep sept",
     "october oct", "november nov", "december dec"), 1) for name in names.split()}  # fmt: skip
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_DAY = r"(?P<d>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?:,?\s+(?P<y>\d{4}))?"
_WRITTEN = [
    re.compile(rf"(?:the\s+)?(?P<m>{_MONTH})\.?\s+(?:the\s+)?{_DAY}{_YEAR}"),
    re.compile(rf"(?:the\s+)?{_DAY}\s+(?:of\s+)?(?P<m>{_MONTH})\.?{_YEAR}"),
    re.compile(r"(?P<y>\d{4})\s*[-/.年]\s*(?P<m>\d{1,2})\s*[-/.月]\s*(?P<d>\d{1,2})日?"),
    re.compile(r"(?P<m>\d{1,2})\s*月\s*(?P<d>\d{1,2})\s*[日号]"),
]
_ENDS_IN_YEAR = re.compile(r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4})")
_WEEKDAY = re.compile(r"^(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?,?\s+(?=\S)")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})\s*([ap])?\.?\s*(?:m\b)?\.?|(\d{1,2})\s*([ap])\.?\s*m\b\.?")
_HAN_CLOCK = re.compile(r"(上午|下午|早上|晚上|凌晨)?(\d{1,2})[时点](?:(\d{1,2})分?|整)?")
_TIME = re.compile(r"(\d{1,2})(?::(\d{2})){1,2}")


def date_of(text: str) -> tuple[int | None, int, int] | None:
    """(year or None, month, day), or None when a text is no date. `03/04/2020` is read as month and day; see `same_date`."""
    if not any(c.isdigit() for c in text):
        return None
    plain = _WEEKDAY.sub("", plain_text(text).lower().strip(" .,"))
    for form in _WRITTEN:
        if match := form.fullmatch(plain):
            parts = match.groupdict()
            month = _MONTHS.get(parts["m"]) or int(parts["m"])
            year = int(parts["y"]) if parts.get("y") else None
            return (year, month, int(parts["d"])) if 1 <= month <= 12 and 1 <= int(parts["d"]) <= 31 else None
    if match := _ENDS_IN_YEAR.fullmatch(plain):
        first, second, year = int(match[1]), int(match[3]), int(match[4])
        first, second = (second, first) if first > 12 or match[2] == "." else (first, second)
        return (year, first, second) if 1 <= first <= 12 and 1 <= second <= 31 else None
    return None


def same_date(gold: tuple[int | None, int, int], answer: tuple[int | None, int, int]) -> bool:
    """Whether two dates are one: a gold without a year says nothing about it."""
    return gold[1:] == answer[1:] and (gold[0] is None or gold[0] == answer[0])


def clock(text: str) -> tuple[int, int, str] | None:
    """(hours, minutes, "a" or "p" or "") of a time of day; None when it is none."""
    if not any(c in text for c in ":时点mM"):
        return None
    plain = plain_text(text).lower()
    if match := _CLOCK.fullmatch(plain):
        hour, minute, half = match[1] or match[4], match[2] or "0", match[3] or match[5] or ""
    elif match := _HAN_CLOCK.fullmatch(plain.replace(" ", "")):
        hour, minute = match[2], match[3] or "0"
        half = {"上午": "a", "早上": "a", "凌晨": "a", "下午": "p", "晚上": "p"}.get(match[1] or "", "")
    else:
        return None
    return (int(hour), int(minute), half) if int(minute) <= 59 and int(hour) <= 24 else None


def is_time(text: str) -> bool:
    """Whether `a:bc` can only be a time, never a ratio: a ratio is written in lowest terms and without leading zeros."""
    match = _TIME.fullmatch(text)
    if match is None:
        return False
    parts = [int(part) for part in text.split(":")]
    return bool(re.search(r":0\d", text)) or (len(parts) == 3 and max(parts[1:]) <= 59 and min(map(len, text.split(":")[1:])) == 2)
