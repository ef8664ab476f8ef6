"""Values as plain data: what may cross between the candidate's process and the judges.

A value becomes JSON of tagged lists, and comes back as an object of exactly the built-in type: nothing that the candidate defined (an
object that equals everything, say) gets through. Anything else stays where it is and crosses as a reference:

    null, true, 1, 1.5, "s"      themselves (integers beyond 2**53 as ["i", hexadecimal])
    ["l", ...] ["t", ...]        list, tuple
    ["s", ...] ["z", ...]        set, frozenset
    ["d", [key, value], ...]     dict
    ["b", hex] ["c", re, im]     bytes, complex
    ["n", name]                  a built-in type (`int` as an argument)
    ["o", number, truth]         an object in the candidate's table; truth is null where asking for it is an error
"""

import numbers
from collections.abc import Callable
from typing import Any

DEEPEST = 100  # levels of nesting that cross
EXACT = 2**53
TYPES = {kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, object)}
_KINDS: tuple[tuple[Any, str], ...] = ((list, "l"), (tuple, "t"), (set, "s"), (frozenset, "z"))


class NotPlain(Exception):
    """Data that is not in the form above."""


def encode(value: Any, refer: Callable[[Any], list[Any]], depth: int = 0) -> Any:
    """The tagged form of a value, subclasses as their built-in base; `refer(object)` gives the reference for what has none."""
    if value is None or value is True or value is False:
        return value
    if depth > DEEPEST:
        raise NotPlain("nested too deeply")
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return _integer(int.__int__(value))
    if isinstance(value, float):
        return float.__float__(value)
    for kind, tag in _KINDS:
        if isinstance(value, kind):
            return [tag, *(encode(item, refer, depth + 1) for item in kind.__iter__(value))]
    if isinstance(value, dict):
        return ["d", *([encode(k, refer, depth + 1), encode(v, refer, depth + 1)] for k, v in dict.items(value))]
    if isinstance(value, (bytes, bytearray)):
        return ["b", bytes(value).hex()]
    if isinstance(value, complex):
        return ["c", value.real, value.imag]
    for name, kind in TYPES.items():
        if value is kind:
            return ["n", name]
    if isinstance(value, numbers.Integral):  # numpy's integers
        return _integer(int(value))
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Rational):
        return float(value)
    return refer(value)


def decode(data: Any, resolve: Callable[[int, bool | None], Any], depth: int = 0) -> Any:
    """The value of a tagged form; `resolve(number, truth)` gives what stands for a reference. Raises `NotPlain`."""
    if data is None or type(data) in (bool, int, float, str):
        return data
    if type(data) is not list or not data or depth > DEEPEST:
        raise NotPlain("not a tagged value")
    tag, *items = data
    try:
        if tag in ("l", "t", "s", "z"):
            kind = {"l": list, "t": tuple, "s": set, "z": frozenset}[tag]
            return kind([decode(item, resolve, depth + 1) for item in items])
        if tag == "d":
            return {decode(k, resolve, depth + 1): decode(v, resolve, depth + 1) for k, v in items}
        if tag == "i":
            return int(items[0], 16)
        if tag == "b":
            return bytes.fromhex(items[0])
        if tag == "c":
            return complex(float(items[0]), float(items[1]))
        if tag == "n":
            return TYPES[items[0]]
        if tag == "o":
            return resolve(int(items[0]), None if items[1] is None else bool(items[1]))
    except (TypeError, ValueError, LookupError) as error:
        raise NotPlain(f"bad `{tag}`") from error
    raise NotPlain("unknown tag")


def _integer(value: int) -> Any:
    return value if -EXACT <= value <= EXACT else ["i", hex(value)]
