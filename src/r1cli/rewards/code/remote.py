"""Programs run by a service over HTTP, for machines that must not, or cannot, run model code themselves.

One request a test, POST of JSON to the URL, with `Authorization: Bearer TOKEN` when there is a token:

    {"language": "python", "source": "...", "stdin": "...", "seconds": 5.0, "memory_mib": 1024}
    -> {"status": "ok" | "timeout" | "memory" | "error", "stdout": "...", "exit_code": 0}

The service never learns what is expected: outputs and values are compared here. A call of a function is sent as a script that reads its
arguments from standard input and prints the value in plain form behind a word drawn for this one run. Tests that are code (a `check`
function with more than plain asserts) need the local sandbox, and say so.
"""

import json
import secrets
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.rewards.code.extract import Program
from r1cli.rewards.code.judge import Verdict, call_request, reply_failure, run_failure
from r1cli.rewards.code.sandbox import Finished, Limits
from r1cli.rewards.code.suite import Suite

NETWORK_SECONDS = 30.0
INSIDE = Path(__file__).parent / "inside"
_DRIVER = """
import json as _json, os as _os, sys as _sys
_modules, _source = {modules!r}, {source!r}
_package = type(_sys)("inside")
_package.__path__ = []
_sys.modules["inside"] = _package
for _name, _text in _modules:
    _module = type(_sys)("inside." + _name)
    _module.__package__ = "inside"
    _sys.modules["inside." + _name] = _module
    setattr(_package, _name, _module)
    exec(compile(_text, _name + ".py", "exec"), _module.__dict__)
_word, _request = _json.loads(_sys.stdin.readline())
_out = _os.dup(1)
_os.dup2(2, 1)
try:
    _reply = _sys.modules["inside.serve"].Candidate(_source).answer(_request)
except BaseException as _error:
    _reply = {{"error": type(_error).__name__}}
_os.write(_out, ("\\n" + _word + _json.dumps(_reply) + "\\n").encode())
"""


class Http:
    """A runner behind a URL."""

    def __init__(self, url: str, limits: Limits, token: str | None = None) -> None:
        self.url = url
        self.limits = limits
        self.token = token

    def judge(self, program: Program, suite: Suite, stop_early: bool) -> Verdict:
        """The verdict on a program; as `Local.judge`, except that test code cannot be run."""
        if suite.script is not None:
            what = "these tests are code, and a remote sandbox runs programs only"
            raise R1Error(what, hint="unset R1_SANDBOX_URL to run them in the local sandbox", code=Exit.ENVIRONMENT)
        verdict = Verdict(suite.size)
        for run in suite.runs:
            if not verdict.add(run_failure(self._run(program, run.stdin), run)) and stop_early:
                return verdict
        for call in suite.calls:
            word = secrets.token_hex(16)
            finished = self._run(Program(_driver(program)), json.dumps([word, call_request(call)]) + "\n")
            failure = finished.status if finished.status != "ok" else reply_failure(_reply(finished.stdout, word), call)
            if not verdict.add(failure) and stop_early:
                return verdict
        return verdict

    def _run(self, program: Program, stdin: str) -> Finished:
        body = {
            "language": program.language,
            "source": program.source,
            "stdin": stdin,
            "seconds": self.limits.seconds,
            "memory_mib": self.limits.memory_mib,
        }
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {self.token}"} if self.token else {})}
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=self.limits.seconds + NETWORK_SECONDS) as response:
                reply = json.loads(response.read(4 * self.limits.output_bytes))
            stdout = str(reply["stdout"]).encode("utf-8", "replace")
            status, code = str(reply["status"]), int(reply["exit_code"])
        except (urllib.error.URLError, TimeoutError, ValueError, KeyError, TypeError) as error:
            what = f"the remote sandbox {self.url} did not answer as it should ({type(error).__name__}: {error})"
            raise R1Error(what, hint="docs/code-rewards.md describes what it must answer", code=Exit.ENVIRONMENT) from None
        if len(stdout) > self.limits.output_bytes:
            return Finished("output")
        return Finished(status, stdout, code)


def _driver(program: Program) -> str:
    modules = [(name, (INSIDE / f"{name}.py").read_text(encoding="utf-8")) for name in ("channel", "plain", "serve")]
    return _DRIVER.format(modules=modules, source=program.source)


def _reply(stdout: bytes, word: str) -> Any:
    """What stands behind the word; None when it is not there exactly once."""
    lines = [line[len(word) :] for line in stdout.decode("utf-8", "replace").split("\n") if line.startswith(word)]
    try:
        return json.loads(lines[0]) if len(lines) == 1 else None
    except (ValueError, RecursionError):
        return None
