"""Weights over NCCL: what vLLM's own trainer side makes of our client and tensors, with two recorded servers and no GPU between."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from r1cli.engines import nccl
from r1cli.engines.fleet import Fleet
from r1cli.engines.nccl import EarlierTrainer, NcclTransfer
from r1cli.errors import R1Error
from tests.fake_server import send

PAIRS = [("a.weight", torch.ones(2, 3)), ("b.weight", torch.ones(4, dtype=torch.bfloat16))]
Calls = list[tuple[int, str, Any]]


@pytest.fixture
def servers() -> Iterator[tuple[list[str], Calls]]:
    """Addresses of a server of two workers and one of one, and what was asked of them."""
    with two_servers({"backend": "nccl"}) as found:
        yield found


@contextmanager
def two_servers(transfer: Any) -> Iterator[tuple[list[str], Calls]]:
    calls: Calls = []
    running = []

    def handler(number: int) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/get_world_size":
                    send(self, 200, {"world_size": 2 - number})
                elif self.path.startswith("/server_info"):
                    send(self, 200, {"vllm_config": {"weight_transfer_config": transfer}})
                else:
                    send(self, 404, {})

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                calls.append((number, self.path, json.loads(self.rfile.read(length)) if length else None))
                send(self, 200, {"success": True})

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    for number in range(2):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler(number))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
    yield [f"http://127.0.0.1:{server.server_port}/v1" for server in running], calls
    for server in running:
        server.shutdown()
        server.server_close()


def fleet(urls: list[str]) -> Fleet:
    return Fleet(urls, key=None, at_once=4, timeout=10.0, retries=1, patience=5.0)


@pytest.mark.vllm
def test_vllms_trainer_side_finds_what_it_needs(servers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = pytest.importorskip("vllm.distributed.weight_transfer.nccl_engine")
    urls, calls = servers
    sent: list[list[str]] = []
    left: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(engine, "open_trainer_endpoint", lambda info: info)
    monkeypatch.setattr(
        engine.NCCLTrainerWeightTransferEngine,
        "_broadcast",
        lambda self, source, meta: sent.append([name for (name, _), _ in zip(source, meta, strict=True)]),
    )
    monkeypatch.setattr(engine.NCCLTrainerWeightTransferEngine, "_post_send_sync", lambda self: None, raising=False)
    monkeypatch.setattr(engine.NCCLTrainerWeightTransferEngine, "shutdown", lambda self: left.append(True))
    group = fleet(urls)
    transfer = NcclTransfer(group)
    for scale in (1.0, 2.0):
        transfer.push([("a.weight", torch.ones(2, 3) * scale), ("b.weight", torch.ones(4, dtype=torch.bfloat16))])
    transfer.close()
    group.close()
    assert sent == [["a.weight", "b.weight"]] * 2
    assert left == [True]
    opened = {number: engine.NCCLWeightTransferInitInfo(**body["init_info"]) for number, path, body in calls if "init_weight" in path}
    assert {number: (info.rank_offset, info.world_size) for number, info in opened.items()} == {0: (1, 4), 1: (3, 4)}
    updates = [engine.NCCLWeightTransferUpdateInfo(**body["update_info"]) for _, path, body in calls if path == "/update_weights"]
    assert len(updates) == 4
    assert (updates[0].names, updates[0].dtype_names) == (["a.weight", "b.weight"], ["float32", "bfloat16"])
    assert updates[0].shapes == [[2, 3], [4]]
    once = ["/start_weight_update", "/update_weights", "/finish_weight_update", "/reset_prefix_cache"]
    for number in range(2):
        assert [path for who, path, _ in calls if who == number] == [
            "/init_weight_transfer_engine", *once, *once, "/shutdown_weight_transfer_engine",
        ]  # fmt: skip


def test_the_trainers_side_before_vllm_0_27(servers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own calls ran on a GPU with vLLM 0.26 (test_vllm_gpu.py); here the order of ours."""
    urls, calls = servers
    sent: list[Any] = []

    class Engine:
        @staticmethod
        def trainer_init(info: dict[str, Any]) -> Any:
            sent.append(info["world_size"])
            return SimpleNamespace(destroy=lambda: sent.append("left"))

        @staticmethod
        def trainer_send_weights(iterator: Iterator[Any], given: dict[str, Any]) -> None:
            sent.append(([name for name, _ in iterator], given["packed"]))

    module = ModuleType("vllm.distributed.weight_transfer.nccl_engine")
    module.NCCLWeightTransferEngine = Engine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    group = fleet(urls)
    transfer = NcclTransfer(group, EarlierTrainer)
    transfer.push(PAIRS)
    transfer.push(PAIRS)
    transfer.close()
    group.close()
    names = ["a.weight", "b.weight"]
    assert sent == [4, (names, True), (names, True), "left"]
    [update, *_] = [body["update_info"] for _, path, body in calls if path == "/update_weights"]
    assert update == {"names": names, "dtype_names": ["float32", "bfloat16"], "shapes": [[2, 3], [4]], "packed": True}
    once = ["/start_weight_update", "/update_weights", "/finish_weight_update", "/reset_prefix_cache"]
    asked = [path for who, path, _ in calls if who == 0]
    assert asked == ["/init_weight_transfer_engine", *once, *once, "/shutdown_weight_transfer_engine"]


def test_a_refusal_ends_the_wait_for_the_group(servers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL waits for its peers inside C++; a server that said no will not come."""
    urls, _ = servers
    said = R1Error("the server could not open the NCCL group")
    ended, free = [], threading.Event()

    def end(error: R1Error) -> None:  # in truth it does not return
        ended.append(error)
        free.set()

    def connect(client: Any, *_: Any) -> Any:
        threading.Thread(target=client._refused, args=(said,)).start()
        assert free.wait(20)
        raise said

    monkeypatch.setattr(nccl, "end_with", end)
    monkeypatch.setattr(nccl, "LEFT_ALONE_SECONDS", 0.05)
    group = fleet(urls)
    transfer = NcclTransfer(group, connect)
    with pytest.raises(R1Error, match="could not open"):
        transfer.push(PAIRS)
    assert ended == [said]

    def polite(client: Any, *_: Any) -> Any:
        client._refused(said)
        raise said

    transfer._connect = polite
    with pytest.raises(R1Error, match="could not open"):  # the wait was over before: nothing to end
        transfer.push(PAIRS)
    time.sleep(0.2)
    assert ended == [said]
    transfer.close()
    group.close()


def test_the_trainers_own_failure_waits_for_no_server() -> None:
    """A server that sits in NCCL, because the trainer left it there, answers when its own patience ends."""
    answers, before = threading.Event(), set(threading.enumerate())
    waited = nccl.begun([lambda: answers.wait(60)])  # type: ignore[list-item]
    assert not answers.is_set()  # begun came back
    assert [thread.daemon for thread in threading.enumerate() if thread not in before] == [True]
    answers.set()
    waited()

    def refused() -> None:
        raise R1Error("no")

    with pytest.raises(R1Error, match="no"):
        nccl.begun([lambda: None, refused])()


def test_the_address_is_one_that_servers_elsewhere_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    class Probe:
        def __init__(self, *_: Any) -> None:
            self.found = ""

        def __enter__(self) -> "Probe":
            return self

        def __exit__(self, *_: Any) -> None:
            pass

        def connect(self, address: tuple[str, int]) -> None:
            self.found = "127.0.0.1" if address[0].startswith("127.") else "192.0.2.7"

        def getsockname(self) -> tuple[str, int]:
            return self.found, 1

    monkeypatch.setattr(nccl.socket, "socket", Probe)
    assert nccl._own_address(["http://127.0.0.1:1/v1", "http://192.0.2.9:1/v1"]) == "192.0.2.7"
    assert nccl._own_address(["http://127.0.0.1:1/v1"]) == "127.0.0.1"


def test_a_server_that_was_not_started_for_it_is_named() -> None:
    with two_servers(None) as (urls, _):
        group = fleet(urls)
        transfer = NcclTransfer(group)
        with pytest.raises(R1Error, match="was not started for it"):
            transfer.push(PAIRS)
        transfer.close()
        group.close()


def test_a_server_without_the_endpoints_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.fake_server import FakeServer

    with FakeServer() as server:
        group = fleet([server.url])
        transfer = NcclTransfer(group)
        with pytest.raises(R1Error, match="takes no weights by NCCL") as caught:
            transfer.push([("a", torch.ones(1))])
        assert "--weight-transfer-config" in (caught.value.hint or "")
        transfer.close()
        group.close()
