"""Run a program and answer calls of its functions with plain data. This is the candidate's process: it is told arguments, never answers.

Requests and replies (values in the form of `plain.py`):

    {"do": "name", "name": "f"}                              -> {"value": ...}      a global name of the program
    {"do": "function", "name": "f", "args", "kwargs"}        -> {"value": ...}      the value of f(...)
    {"do": "method", "name": "f", "args", "kwargs"}          -> {"value": ...}      the same, or of Solution().f(...) (LeetCode style)
    {"do": "call", "on": 3, "args": [...], "kwargs": {}}     -> {"value": ..., "args": [...]}   args: when the call changed one in place
    {"do": "get" | "set" | "item" | "iter" | "len" | "text", "on": 3, ...} -> {"value": ...}
    anything that raises                                     -> {"error": "ValueError"}
"""

import sys
import types
from typing import Any

from . import channel, plain


class Candidate:
    """The program's globals and the table of its objects that the other side holds references to."""

    def __init__(self, source: str) -> None:
        module = types.ModuleType("solution")
        sys.modules["solution"] = module
        self.names = module.__dict__
        self.objects: list[Any] = []
        exec(compile(source, "solution.py", "exec"), self.names)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request."""
        do = request["do"]
        if do == "name":
            return {"value": self.encode(self.names[request["name"]])}
        if do in ("function", "method"):
            function = self.method(request["name"]) if do == "method" else self.names[request["name"]]
            return self.call(function, request["args"], request["kwargs"])
        on = self.objects[request["on"]]
        if do == "call":
            return self.call(on, request["args"], request["kwargs"])
        if do == "get":
            return {"value": self.encode(getattr(on, request["name"]))}
        if do == "set":
            setattr(on, request["name"], self.decode(request["value"]))
            return {"value": None}
        if do == "item":
            return {"value": self.encode(on[self.decode(request["key"])])}
        if do == "iter":
            return {"value": self.encode(list(on))}
        return {"value": self.encode(len(on) if do == "len" else str(on))}

    def method(self, name: str) -> Any:
        """The function under test, by name: of a fresh `Solution` object, or global."""
        if "Solution" in self.names:
            found = getattr(self.names["Solution"](), name, None)
            if found is not None:
                return found
        return self.names[name]

    def call(self, function: Any, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Call, and tell of lists, dicts and sets among the arguments that it changed."""
        given = [self.decode(arg) for arg in args]
        value = function(*given, **{key: self.decode(arg) for key, arg in kwargs.items()})
        reply = {"value": self.encode(value)}
        after = [self.encode(arg) for arg in given]
        return reply if after == args else {**reply, "args": after}

    def encode(self, value: Any) -> Any:
        return plain.encode(value, self.refer)

    def decode(self, data: Any) -> Any:
        return plain.decode(data, lambda number, truth: self.objects[number])

    def refer(self, value: Any) -> list[Any]:
        self.objects.append(value)
        truth: bool | None
        try:
            truth = bool(value)
        except Exception:
            truth = None  # asking for it is an error (an array of several numbers, say): so it is in the test
        return ["o", len(self.objects) - 1, truth]


def serve(source: str, fd: int) -> None:
    """Answer requests until the other side closes. A program that fails to load answers every request with its error."""
    candidate: Candidate | None = None
    failure = ""
    try:
        candidate = Candidate(source)
    except BaseException as error:  # the candidate's SystemExit too: its functions are gone, but the judge decides that
        failure = type(error).__name__
    channel.send(fd, {"loaded": candidate is not None, "error": failure})
    while True:
        request = channel.receive(fd)
        try:
            reply = candidate.answer(request) if candidate else {"error": failure}
        except BaseException as error:
            reply = {"error": type(error).__name__}
        try:
            channel.send(fd, reply)
        except (channel.Gone, ValueError, RecursionError):  # too long, or not JSON after all
            channel.send(fd, {"error": "ReplyError"})
