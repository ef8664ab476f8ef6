"""The judge: runs a program's tests in sandboxes and counts what passes. Every verdict is made here, in the parent, from plain data.

runs    one fresh process a test; its standard output is compared, and it must end by itself with exit code 0
calls   one process that is told arguments and sends back values; each value is compared here
script  two processes: one with the tests (the examiner), one with the program; they talk through this one, in plain data

An exit code alone never passes anything, nor does a printed word: the candidate's process does not know what is expected of it.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from shutil import which
from typing import Any, Protocol

from r1cli.errors import Exit, R1Error
from r1cli.rewards.code.compare import same_output, same_value
from r1cli.rewards.code.extract import Program
from r1cli.rewards.code.inside import channel, plain
from r1cli.rewards.code.sandbox import Finished, Limits, Process, Sandbox
from r1cli.rewards.code.stopwatch import Stopwatch
from r1cli.rewards.code.suite import EQUAL, IS, TRUE, Call, Run, Script, Suite

COMPILE = Limits(seconds=60, memory_mib=2048, file_mib=64, disk_mib=256)
COMPILER = ("-x", "c++", "-std=c++17", "-O2", "-pipe", "-w", "-o")
LOADER_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")


@dataclass
class Verdict:
    """How many of the tests passed, and why others did not (wrong, timeout, crash, output, disk, compile, budget)."""

    total: int
    passed: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def add(self, failure: str | None) -> bool:
        """Count one test; None is passed. Returns whether it passed."""
        if failure is None:
            self.passed += 1
        else:
            self.failures[failure] += 1
        return failure is None


class Runner(Protocol):
    """Where programs run: this machine (`Local`), or another one (`remote.Http`)."""

    def judge(self, program: Program, suite: Suite, stop_early: bool) -> Verdict:
        """The verdict on a program. stop_early: the first failure decides, the rest is not run."""
        ...


class Local:
    """Sandboxes on this machine. limits: a test's. budget: seconds all the tests of a row may take together (see `stopwatch.py`)."""

    def __init__(self, sandbox: Sandbox, limits: Limits, budget: float) -> None:
        self.sandbox = sandbox
        self.limits = limits
        self.budget = budget

    def judge(self, program: Program, suite: Suite, stop_early: bool) -> Verdict:
        verdict = Verdict(suite.size)
        if suite.runs:
            self._runs(program, suite.runs, verdict, stop_early)
        elif program.language != "python":
            verdict.failures["compile"] += suite.size  # calls are made from Python only
        elif suite.script is not None:
            self._script(program, suite.script, verdict, stop_early)
        else:
            self._calls(program, suite.calls, verdict, stop_early)
        return verdict

    def _runs(self, program: Program, runs: list[Run], verdict: Verdict, stop_early: bool) -> None:
        used = 0.0
        with self._ready(program) as start:
            for run in runs:
                if used >= self.budget:
                    passed = verdict.add("budget")
                elif start is None:
                    passed = verdict.add("compile")
                else:
                    with self.sandbox.start(start[0], self.limits, also_run=start[1]) as process:
                        finished = process.finish(run.stdin.encode("utf-8", "replace"))
                    used += finished.seconds
                    passed = verdict.add(run_failure(finished, run))
                if stop_early and not passed:
                    return

    @contextmanager
    def _ready(self, program: Program) -> Iterator[tuple[dict[str, Any], tuple[str, ...]] | None]:
        """The job that runs the program and what it may execute; None when it does not compile. Holds the compiled file while open."""
        if program.language == "python":
            yield {"mode": "script", "source": program.source}, ()
            return
        compiler = which("g++")
        if compiler is None:
            what = "a C++ program cannot be judged: `g++` is not installed"
            raise R1Error(what, hint="install g++, or leave such rows out", code=Exit.ENVIRONMENT)
        with self.sandbox.prepare(COMPILE) as compiling:
            binary = f"{compiling.box}/program"
            job = {"mode": "exec", "spawn": True, "command": [compiler, *COMPILER, binary, "-"]}
            self.sandbox.begin(compiling, job, ("/usr", *LOADER_FOLDERS))
            finished = compiling.finish(program.source.encode("utf-8", "replace"))
            compiled = finished.status == "ok" and not finished.code
            yield ({"mode": "exec", "command": [binary]}, (binary, *LOADER_FOLDERS)) if compiled else None

    def _calls(self, program: Program, calls: list[Call], verdict: Verdict, stop_early: bool) -> None:
        rest, used = list(calls), 0.0
        while rest and used < self.budget:  # a process that dies in a test is started anew for the next
            with self._serving(program, len(rest)) as process:
                if isinstance(process, str):
                    verdict.failures[process] += len(rest)
                    return
                alive = True
                while rest and alive and used < self.budget:
                    watch = process.stopwatch(self.limits.seconds)
                    failure, alive = call_failure(process, rest.pop(0), watch)
                    used += watch.used
                    if not verdict.add(failure) and stop_early:
                        return
        if rest:
            verdict.failures["budget"] += len(rest)

    @contextmanager
    def _serving(self, program: Program, tests: int) -> Iterator[Process | str]:
        """The program's process, loaded, or why it could not load. One that raised while loading answers every call with its error."""
        with self.sandbox.start({"mode": "serve", "source": program.source}, self._together(tests), talk=True) as process:
            try:
                process.receive(process.stopwatch(self.limits.seconds))
            except channel.Gone as gone:
                yield gone_failure(gone)
            else:
                yield process

    def _together(self, tests: int) -> Limits:
        """The limits of a process that takes several tests, and loads before the first."""
        return replace(self.limits, seconds=min(self.budget + self.limits.seconds, self.limits.seconds * (tests + 1)))

    def _script(self, program: Program, script: Script, verdict: Verdict, stop_early: bool) -> None:
        tests = len(script.tests)
        job = {"mode": "examine", **vars(script)}
        with self._serving(program, tests) as candidate:
            if isinstance(candidate, str):
                verdict.failures[candidate] += tests
                return
            self._examine(candidate, job, tests, verdict, stop_early)

    def _examine(self, candidate: Process, job: dict[str, Any], tests: int, verdict: Verdict, stop_early: bool) -> None:
        """Start the examiner and pass its questions to the candidate, until it is done or one of them fails."""
        with self.sandbox.start(job, self._together(tests), talk=True) as examiner:
            asking, answering = (process.stopwatch(self.limits.seconds) for process in (examiner, candidate))
            told = 0
            try:
                while "done" not in (message := examiner.receive(asking)):
                    if "ask" in message:
                        candidate.send(message["ask"], answering)
                        examiner.send(candidate.receive(answering), asking)
                    elif "unsupported" in message:
                        what = f"tests that pass {message['unsupported']} to the program are not supported"
                        raise R1Error(what, hint="leave out the row, or rewrite its tests with plain data", code=Exit.USAGE)
                    elif "begin" in message:
                        asking, answering = (process.stopwatch(self.limits.seconds) for process in (examiner, candidate))
                    else:
                        told += 1
                        if not verdict.add(None if "passed" in message else "wrong") and stop_early:
                            return
            except channel.Gone as gone:
                verdict.failures[gone_failure(gone)] += tests - told


def gone_failure(gone: channel.Gone) -> str:
    """What an end of the conversation counts as."""
    return str(gone) if str(gone) in ("timeout", "disk") else "crash"


def run_failure(finished: Finished, run: Run) -> str | None:
    """Why a run fails its test, or None."""
    if finished.status != "ok":
        return finished.status
    if finished.code:
        return "crash"
    try:
        output = finished.stdout.decode("utf-8")
    except UnicodeDecodeError:
        return "wrong"
    return None if same_output(output, run.stdout) else "wrong"


def call_failure(process: Process, call: Call, watch: Stopwatch) -> tuple[str | None, bool]:
    """(why a call fails its test or None, whether the process can be asked again)."""
    try:
        process.send(call_request(call), watch)
        reply = process.receive(watch)
    except channel.Gone as gone:
        return gone_failure(gone), False
    return reply_failure(reply, call), True


def call_request(call: Call) -> dict[str, Any]:
    """The request that a call is, as `inside/serve.py` reads it."""
    arguments = {"args": [plain.encode(arg, _no_reference) for arg in call.args]}
    arguments["kwargs"] = {name: plain.encode(arg, _no_reference) for name, arg in call.kwargs.items()}  # type: ignore[assignment]
    return {"do": "method" if call.method else "function", "name": call.name, **arguments}


def reply_failure(reply: Any, call: Call) -> str | None:
    """Why the reply to a call fails its test, or None. Only here is a candidate's value compared."""
    if type(reply) is not dict or "value" not in reply:
        return "crash"
    try:
        value = plain.decode(reply["value"], Opaque)
    except (plain.NotPlain, RecursionError):
        return "wrong"
    if call.how == "json":
        same = same_value(value, call.expected) or (call.wrapped and same_value(value, call.expected[0]))
    elif call.how == TRUE:
        same = (value.truth if isinstance(value, Opaque) else bool(value)) is call.expected
    elif call.how == IS:
        same = value is call.expected
    else:
        assert call.how == EQUAL
        same = value == call.expected
    return None if same else "wrong"


class Opaque:
    """Stands for an object of the candidate that is not plain data: equal to nothing but itself."""

    def __init__(self, number: int, truth: bool | None) -> None:
        self.truth = truth


def _no_reference(value: Any) -> list[Any]:
    raise plain.NotPlain(f"a {type(value).__name__} in a test's arguments")
