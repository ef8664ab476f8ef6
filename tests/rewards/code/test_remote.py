"""The HTTP runner, against a small service that runs what it is sent in a plain subprocess."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from r1cli.errors import Exit, R1Error
from r1cli.rewards.code.remote import Http
from r1cli.rewards.code.reward import CodeReward
from r1cli.rewards.code.sandbox import Limits
from r1cli.row import Row


class Service(BaseHTTPRequestHandler):
    """Runs Python; a program that says "teapot" gets no sensible answer."""

    requests: list[dict[str, Any]] = []  # noqa: RUF012  # shared on purpose

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append({**request, "token": self.headers["Authorization"]})
        command = [sys.executable, "-I", "-c", request["source"]]
        done = subprocess.run(command, input=request["stdin"], capture_output=True, text=True, timeout=60, check=False)
        reply = {"status": "ok", "stdout": done.stdout, "exit_code": done.returncode}
        body = b"I am one" if "teapot" in request["source"] else json.dumps(reply).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        Service.requests.clear()
        yield f"http://127.0.0.1:{server.server_port}/run"
        server.shutdown()
        thread.join()


def score(url: str, source: str, tests: Any) -> float | None:
    row = Row({"id": 1, "prompt": "", "tests": tests, "completion": f"```python\n{source}\n```"})
    return CodeReward(Http(url, Limits(), "secret"), fraction=True).score(row)


def test_scripts_and_calls(url: str) -> None:
    assert score(url, "print(int(input()) * 2)", {"inputs": ["2", "3"], "outputs": ["4", "7"]}) == 0.5
    assert score(url, "def f(x):\n    print('noise')\n    return (x, {x})", ["assert f(1) == (1, {1})", "assert f(2) == (2, {3})"]) == 0.5
    assert {request["token"] for request in Service.requests} == {"Bearer secret"}
    assert not any("(2, {3})" in json.dumps(request) for request in Service.requests)  # what is expected never leaves


def test_a_program_cannot_answer_for_the_driver(url: str) -> None:
    assert score(url, "import os\nprint({'value': 3})\nos._exit(0)", ["assert f(1) == 3"]) == 0.0


def test_what_a_service_may_get_wrong_is_an_error_of_the_environment(url: str) -> None:
    for address, source in ((url, "print('teapot')"), ("http://127.0.0.1:9/", "print(1)")):
        with pytest.raises(R1Error, match="did not answer") as error:
            score(address, source, {"inputs": [""], "outputs": ["1"]})
        assert error.value.code == Exit.ENVIRONMENT
    with pytest.raises(R1Error, match="tests are code"):
        score(url, "def f(x): return x", ["assert abs(f(1)) == 1"])
