"""An OpenAI-compatible server on a loopback port, for tests: real sockets, completions that follow from (prompt, seed), faults on order.

    with FakeServer(faults=[fault.reset, fault.status(429, {"Retry-After": "0"})]) as server:
        ... server.url ... server.requests ...

Faults are used up one a completion request, in order; afterwards every request is answered.
"""

import hashlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

Fault = Callable[[BaseHTTPRequestHandler], None]


def status(code: int, headers: dict[str, str] | None = None, message: str = "busy") -> Fault:
    """Answer with this status."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        send(handler, code, {"error": {"message": message}}, headers)

    return answer


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Cut the connection without a word, as a killed process does."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.connection.close()


def cut(handler: BaseHTTPRequestHandler) -> None:
    """Promise more bytes than come."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.close_connection = True


def nonsense(handler: BaseHTTPRequestHandler) -> None:
    """200, and no completion."""
    send(handler, 200, {"hello": "world"})


def hang(seconds: float) -> Fault:
    """Answer nothing for a while, then cut."""

    def wait(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return wait


def dribble(seconds: float, *, then: bool = False) -> Fault:
    """Blank bytes for a while, as gateways send them to keep a connection; `then` the answer, else a cut."""

    def blanks(handler: BaseHTTPRequestHandler) -> None:
        choice = {"index": 0, "message": {"role": "assistant", "content": "late"}, "finish_reason": "stop"}
        raw = json.dumps({"choices": [choice], "usage": {"completion_tokens": 1}}).encode()
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        for _ in range(round(seconds / 0.05)):
            handler.wfile.write(b"\n")
            handler.wfile.flush()
            time.sleep(0.05)
        if then:
            handler.wfile.write(raw)

    return blanks


def send(handler: BaseHTTPRequestHandler, code: int, body: Any, headers: dict[str, str] | None = None) -> None:
    raw = json.dumps(body).encode()
    handler.send_response(code)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(raw)), **(headers or {})}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(raw)


class FakeServer:
    """See above. requests: (path, body, headers) of every completion request; most_at_once: most that ran together.

    logits: what a reward model says of a reply, through /classify. says: what a chat model answers to the last message.
    """

    def __init__(
        self,
        *,
        model: str = "teacher",
        faults: Sequence[Fault] = (),
        key: str | None = None,
        seconds: float = 0.0,
        port: int = 0,
        vllm: bool = False,
        reasoning: bool = False,
        refuse: str | None = None,
        finish_reason: str = "stop",
        always: Fault | None = None,
        logits: Callable[[str], Sequence[float | None]] = lambda reply: [float(len(reply))],
        says: Callable[[str], str] | None = None,
    ) -> None:
        self.requests: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()
        self.dead = False
        faults_left = list(faults)
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                """Silent."""

            def do_GET(self) -> None:
                entry = {"id": model, "object": "model", **({"owned_by": "vllm", "max_model_len": 512} if vllm else {})}
                send(self, 200, {"object": "list", "data": [entry]}) if self.path == "/v1/models" else send(self, 404, {})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server._lock:
                    server.requests.append((self.path, body, dict(self.headers)))
                    server._at_once += 1
                    server.most_at_once = max(server.most_at_once, server._at_once)
                    fault = always or (faults_left.pop(0) if faults_left else None)
                try:
                    time.sleep(seconds)
                    if server.dead:
                        reset(self)
                    elif key is not None and self.headers.get("Authorization") != f"Bearer {key}":
                        send(self, 401, {"error": {"message": f"wrong key {self.headers.get('Authorization')}"}})
                    elif fault is not None:
                        fault(self)
                    elif refuse is not None and refuse in json.dumps(body):
                        send(self, 400, {"error": {"message": "This model's maximum context length is 8 tokens"}})
                    elif self.path == "/classify":  # vLLM's, beside /v1
                        send(self, 200, {"data": [{"index": 0, "label": "x", "probs": logits(body["messages"][-1]["content"])}]})
                    else:
                        given = answer(self.path, body, reasoning=reasoning, finish_reason=finish_reason)
                        if says is not None:
                            given["choices"][0]["message"]["content"] = says(body["messages"][-1]["content"])
                        send(self, 200, given)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                finally:
                    with server._lock:
                        server._at_once -= 1

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *args: Any) -> None:
                """A cut connection is what was ordered."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.dead = True  # connections that are open outlive the listening socket
        self._server.shutdown()
        self._server.server_close()


def answer(path: str, body: dict[str, Any], *, reasoning: bool = False, finish_reason: str = "stop") -> dict[str, Any]:
    """The completion of a request: a function of its prompt and seed."""
    asked = json.dumps(body.get("messages", body.get("prompt")))
    text = hashlib.blake2b(f"{asked}/{body['seed']}".encode(), digest_size=4).hexdigest()
    usage = {"prompt_tokens": 3, "completion_tokens": len(text)}
    if path.endswith("/chat/completions"):
        message = {"role": "assistant", "content": text, **({"reasoning_content": f"so {text}"} if reasoning else {})}
        return {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}], "usage": usage}
    choice: dict[str, Any] = {"index": 0, "text": text, "finish_reason": finish_reason}
    if body.get("return_token_ids"):
        choice["token_ids"] = [40 + seed % 10 for seed in range(body["seed"] % 7 + 1)]
    if body.get("logprobs") is not None:
        choice["logprobs"] = {"token_logprobs": [-0.25] * len(choice.get("token_ids", text))}
    return {"choices": [choice], "usage": usage}
