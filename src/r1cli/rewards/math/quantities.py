r"""What a value is measured in: the dimension and size of the unit behind a number, and sums such as `3 hours 20 minutes`.

    measure("45\text{ cm}^2")       ((("length", 2),), 1/10000)     size in square metres
    measure("45\text{ apples}")     None: apples are left out of every comparison
    compound("3 h 20 min")          ((("time", 1),), 12000)

Two sides are told apart by their units only when both are known.
"""

import re
from fractions import Fraction
from functools import lru_cache

Dimension = tuple[tuple[str, int], ...]
Measure = tuple[Dimension, Fraction]

_F = Fraction
_BASE: dict[str, dict[str, Fraction]] = {
    "length": {
        "m meter metre 米": _F(1), "in inch inches 英寸": _F(254, 10000), "ft foot feet 英尺": _F(3048, 10000), "yd yard": _F(9144, 10000),
        "mi mile 英里": _F(1609344, 1000), "厘米": _F(1, 100), "毫米": _F(1, 1000), "千米 公里": _F(1000), "分米": _F(1, 10),
    },
    "mass": {"g gram 克": _F(1), "lb lbs pound": _F(45359237, 100000), "oz ounce": _F(28349523125, 10**9), "t ton tonne 吨": _F(10**6),
             "千克 公斤": _F(1000)},
    "time": {"s sec second 秒": _F(1), "min minute 分钟 分": _F(60), "h hr hour 小时": _F(3600), "d day 天": _F(86400),
             "week 周": _F(604800), "ms": _F(1, 1000), "month 个月": _F(2629800), "yr year 年": _F(31557600)},
    "volume": {"L l liter litre 升": _F(1, 1000), "mL ml 毫升": _F(1, 10**6), "gal gallon": _F(3785411784, 10**12)},
    "dollar": {"$ dollar USD usd buck": _F(1), "cent ¢": _F(1, 100)},
    "euro": {"€ euro EUR": _F(1)}, "sterling": {"£ GBP": _F(1)}, "rupee": {"₹ rupee Rs INR": _F(1)}, "yuan": {"元 yuan RMB CNY": _F(1)},
    "current": {"A amp ampere": _F(1)}, "temperature K": {"K kelvin": _F(1)}, "temperature C": {"°C ℃ celsius": _F(1)},
    "temperature F": {"°F ℉ fahrenheit": _F(1)}, "amount": {"mol mole": _F(1)},
}  # fmt: skip
_DERIVED: dict[str, tuple[Dimension, Fraction]] = {
    "N newton": ((("length", 1), ("mass", 1), ("time", -2)), _F(1000)),
    "J joule": ((("length", 2), ("mass", 1), ("time", -2)), _F(1000)),
    "W watt": ((("length", 2), ("mass", 1), ("time", -3)), _F(1000)),
    "Pa pascal": ((("length", -1), ("mass", 1), ("time", -2)), _F(1000)),
    "Hz hertz": ((("time", -1),), _F(1)),
    "V volt": ((("current", -1), ("length", 2), ("mass", 1), ("time", -3)), _F(1000)),
    "ohm Ω": ((("current", -2), ("length", 2), ("mass", 1), ("time", -3)), _F(1000)),
    "mph": ((("length", 1), ("time", -1)), _F(1609344, 1000 * 3600)), "kph kmh": ((("length", 1), ("time", -1)), _F(1000, 3600)),
}  # fmt: skip
_PREFIXES = {"k": 3, "kilo": 3, "c": -2, "centi": -2, "m": -3, "milli": -3, "M": 6, "mega": 6, "G": 9, "giga": 9, "n": -9, "nano": -9,
             "μ": -6, "µ": -6, "micro": -6, "d": -1}  # fmt: skip
_PREFIXED = frozenset(
    """
    m g s L l N J W V A Pa Hz mol meter metre gram liter litre second joule watt volt newton pascal ohm Ω
    """.split()  # noqa: SIM905
)
_COMPOUNDS = frozenset(("time", "length", "mass", "dollar"))  # dimensions that are written as sums: 5 ft 6 in

_UNWRAP = re.compile(r"\\(?:text(?:rm|bf|it|sf|tt|normal)?|mathrm|mbox|hbox|operatorname|mathit|mathbf|boldsymbol|rm)\s*\{([^{}]*)\}")
_GAPS = re.compile(r"\\[,;:! ]|\\q?quad\b|~|\s+")
_TAIL = re.compile(
    r"(?<=[\d)}\]π])\s*((?:[^\W\d_]|[$°¢€£₹'])[^\d+=<>|()]*?(?:\^?-?\d)?(?:\s?(?:/|\*|·|\s)\s?[^\W\d_]+(?:\^?-?\d)?){0,4})\s*$"
)
_LEAD = re.compile(r"\s*[-+]?\s*\\?(\$|€|£|₹|USD|EUR|GBP|INR|Rs)(?:\.?)\s*[-+]?\s*(?=[\d.\\])")
_PIECE = re.compile(r"([^\W\d_]+|[$°¢€£₹]\w?)(?:\^?(-?\d))?")
_PART = re.compile(r"(\d+(?:\.\d+)?(?:\s?/\s?\d+)?)\s*([A-Za-z]+|[\u4e00-\u9fff]{1,2})\.?\s*(?:,|and\b|\+|又)?\s*")
_AREA = re.compile(r"\b(square|sq|cubic|cu)\.?\s+([A-Za-z]+)|\b([A-Za-z]+)\s+(squared|cubed)\b|(平方|立方)([\u4e00-\u9fff]{1,2})")
_SIGNS = (
    ("^{\\circ}", "°"),
    ("^\\circ", "°"),
    ("\\degree", "°"),
    ("\\$", "$"),
    ("\\Omega", "ohm"),
    ("\\mu", "μ"),
    ("\\cdot", "·"),
    ("\\%", "%"),
    ("\\pi", "π"),
)
_PAIRED = re.compile(r"(?<!\\)\$([^$]*)(?<!\\)\$")
_EXPONENT = re.compile(r"\^\{(-?\d)\}")
_MOST = 80  # characters of the longest unit


@lru_cache(maxsize=4096)
def unit(word: str) -> Measure | None:
    """The dimension and size of one unit word: `km`, `kilometers`, `Hz`, `分钟`; None for a word that is none."""
    for name in (word, word.lower() if len(word) > 2 else word):
        for candidate in (name, name[:-1] if len(name) > 2 and name.endswith("s") else name):
            if candidate in _UNITS:
                return _UNITS[candidate]
            for prefix, power in _PREFIXES.items():
                rest = candidate[len(prefix) :]
                if candidate.startswith(prefix) and rest in _PREFIXED and (len(prefix) > 1) == (len(rest) > 3):
                    dimension, size = _UNITS[rest]
                    return dimension, size * _F(10) ** power
    return None


def _table() -> dict[str, Measure]:
    table: dict[str, Measure] = {}
    for kind, units in _BASE.items():
        dimension: Dimension = (("length", 3),) if kind == "volume" else ((kind, 1),)
        for names, size in units.items():
            table |= dict.fromkeys(names.split(), (dimension, size))
    for names, measured in _DERIVED.items():
        table |= dict.fromkeys(names.split(), measured)
    return table


_UNITS = _table()


def plain_text(text: str) -> str:
    """An answer without font macros, spacing macros and braces around exponents, as units are looked for in it."""
    if text.count("$") - text.count("\\$") > 1:
        text = _PAIRED.sub(r"\1", text)  # "$125$ miles" names no currency
    text = _GAPS.sub(" ", _UNWRAP.sub(r"\1", text))
    for macro, plain in _SIGNS:
        text = text.replace(macro, plain)
    return _EXPONENT.sub(r"^\1", text).replace("° ", "°").strip()


def measure(text: str) -> Measure | None:
    """The measure of the unit after the last number of an answer, or of the currency before it; None without one that is known."""
    if text.isascii() and text.replace(",", "").replace(".", "").lstrip("-").isdigit():
        return None
    plain = plain_text(text)
    if lead := _LEAD.match(plain):
        return unit(lead[1])
    tail = _TAIL.search(plain)
    return None if tail is None or len(tail[1]) > _MOST else _of_words(tail[1])


@lru_cache(maxsize=4096)
def _of_words(words: str) -> Measure | None:
    """The product of units written in words or signs: `km/h`, `square metres`, `m/s^2`, `dollars per hour`."""
    words = _AREA.sub(_powers, words.replace("{", "").replace("}", "").strip(" .,"))
    words = re.sub(r"\bper\b|每", "/", words).replace("·", " ").replace("*", " ")
    powers: dict[str, int] = {}
    size, sign, at = Fraction(1), 1, 0
    for match in _PIECE.finditer(words):
        between = words[at : match.start()].strip()
        if between not in ("", "/"):
            return None
        sign = -1 if between == "/" or sign < 0 else 1  # m/s/s and m/s kg both stay below the line
        at = match.end()
        found = unit(match[1])
        if found is None:
            return None
        power = sign * int(match[2] or 1)
        size *= found[1] ** power
        for kind, exponent in found[0]:
            powers[kind] = powers.get(kind, 0) + exponent * power
    if not at or words[at:].strip(" ."):
        return None
    return tuple(sorted((kind, n) for kind, n in powers.items() if n)), size


def _powers(match: re.Match[str]) -> str:
    word = match[2] or match[3] or match[6]
    return f"{word}^{2 if match[1] in ('square', 'sq') or match[4] == 'squared' or match[5] == '平方' else 3}"


def compound(text: str) -> Measure | None:
    """The total of a sum of amounts in falling units of one kind, such as `5 feet 6 inches`, or of one amount in a unit."""
    plain, at = plain_text(text), 0
    total, kind, last = Fraction(0), None, None
    while at < len(plain):
        match = _PART.match(plain, at)
        found = unit(match[2]) if match else None
        if match is None or found is None or (kind is not None and found[0] != kind) or (last is not None and found[1] >= last):
            return None
        kind, last, at = found[0], found[1], match.end()
        total += Fraction(match[1].replace(" ", "")) * found[1]
    return None if kind is None or kind[0][0] not in _COMPOUNDS else (kind, total)


def is_sum(text: str) -> bool:
    """Whether an answer is a sum of amounts: at least two numbers and two units."""
    return bool(re.search(r"\d\D+\d", text)) and len(_PART.findall(plain_text(text))) > 1 and compound(text) is not None
