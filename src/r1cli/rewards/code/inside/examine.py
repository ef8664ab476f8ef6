"""Run tests that are Python code (a `check` function, asserts with computed parts) away from the program that they test.

This process holds the tests and runs in a sandbox of its own. The names under test are stand-ins: calling one sends plain arguments to the
candidate's process and gives back plain data, or another stand-in for an object that has no plain form. The candidate's code never runs
here and its objects never arrive here, so there is no `==` of its making, no harness to patch and no frame to walk.

Messages to the judge: {"ask": request} (answered with the candidate's reply), {"begin": i}, {"passed": i}, {"failed": i}, {"done": n},
{"unsupported": reason} (the tests send something that cannot be sent: an error of the data, not of the program).
"""

import builtins
import sys
import types
from typing import Any

from . import channel, plain


class RemoteError(Exception):
    """The candidate raised something that is no built-in exception, or its reply was not plain data."""


class Unsendable(BaseException):
    """The tests give the program something without a plain form, a function of their own say. No test may catch this."""


class Stub:
    """A stand-in for an object of the candidate's process. Equal to itself alone; truth as told when it was sent."""

    def __init__(self, link: "Link", number: int, truth: bool | None) -> None:
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_truth", truth)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._link.call(self._number, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._link.ask({"do": "get", "on": self._number, "name": name})

    def __setattr__(self, name: str, value: Any) -> None:
        self._link.ask({"do": "set", "on": self._number, "name": name, "value": self._link.encode(value)})

    def __getitem__(self, key: Any) -> Any:
        return self._link.ask({"do": "item", "on": self._number, "key": self._link.encode(key)})

    def __iter__(self) -> Any:
        return iter(self._link.ask({"do": "iter", "on": self._number}))

    def __len__(self) -> int:
        return int(self._link.ask({"do": "len", "on": self._number}))

    def __str__(self) -> str:
        return str(self._link.ask({"do": "text", "on": self._number}))

    def __bool__(self) -> bool:
        if self._truth is None:
            raise RemoteError("the object has no truth value")
        return bool(self._truth)

    __hash__ = object.__hash__


class Link:
    """Requests to the candidate, through the judge."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def ask(self, request: dict[str, Any]) -> Any:
        """The decoded value of the reply; raises what the candidate raised, as a built-in exception or `RemoteError`."""
        return self._value(self._reply(request))

    def call(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call an object of the candidate; arguments that it changed in place are changed here."""
        named = {name: self.encode(arg) for name, arg in kwargs.items()}
        reply = self._reply({"do": "call", "on": number, "args": [self.encode(arg) for arg in args], "kwargs": named})
        value = self._value(reply)
        for given, after in zip(args, reply.get("args") or (), strict=False):
            now = self.decode(after)
            if type(given) is list and type(now) is list:
                given[:] = now
            elif type(given) in (dict, set) and type(now) is type(given):
                given.clear()
                given.update(now)
        return value

    def encode(self, value: Any) -> Any:
        return plain.encode(value, _refer)

    def decode(self, data: Any) -> Any:
        try:
            return plain.decode(data, lambda number, truth: Stub(self, number, truth))
        except plain.NotPlain as error:
            raise RemoteError(str(error)) from error

    def _reply(self, request: dict[str, Any]) -> dict[str, Any]:
        channel.send(self.fd, {"ask": request})
        reply = channel.receive(self.fd)
        if type(reply) is not dict:
            raise RemoteError("no reply")
        if "error" in reply:
            kind = getattr(builtins, str(reply["error"]), None)
            if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, (AssertionError, UnicodeError)):
                raise kind()
            raise RemoteError(reply["error"])
        return reply

    def _value(self, reply: dict[str, Any]) -> Any:
        return self.decode(reply.get("value"))


def _refer(value: Any) -> list[Any]:
    if isinstance(value, Stub):
        return ["o", value._number, True]
    raise Unsendable(f"a {type(value).__name__} as an argument")


def examine(job: dict[str, Any], fd: int) -> None:
    """Run the tests in order and report each.

    job: setup (trusted code, run first), after (trusted code that may use the names under test), names (the names under test), modules
    (standard modules that the tests use), tests (sources), entry (what `check` is called with, or None)
    """
    sys.stdout = sys.stderr
    module = types.ModuleType("tests")
    sys.modules["tests"] = module
    names = module.__dict__
    link = Link(fd)
    for name in job["modules"]:
        names[name] = __import__(name)
    exec(compile(job["setup"], "setup.py", "exec"), names)
    for name in job["names"]:
        try:
            names[name] = link.ask({"do": "name", "name": name})
        except Exception:
            names.pop(name, None)  # the program does not define it: the tests that need it fail with a NameError
    try:
        exec(compile(job["after"], "setup.py", "exec"), names)
    except Exception:
        names.clear()  # the program has not what the set-up builds on: every test fails
    for index, test in enumerate(job["tests"]):
        channel.send(fd, {"begin": index})
        try:
            exec(compile(test, "test.py", "exec"), names)
            if job["entry"]:
                names["check"](names[job["entry"]])
        except channel.Gone:
            raise
        except Unsendable as error:
            channel.send(fd, {"unsupported": str(error)})
            return
        except BaseException:
            channel.send(fd, {"failed": index})
        else:
            channel.send(fd, {"passed": index})
    channel.send(fd, {"done": len(job["tests"])})
