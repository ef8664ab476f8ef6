"""Weights over NCCL: what vLLM's own trainer side makes of our client and tensors, with two recorded servers and no GPU between."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch

from r1cli.engines.fleet import Fleet
from r1cli.engines.nccl import NcclTransfer
from r1cli.errors import R1Error
from tests.fake_server import send

Calls = list[tuple[int, str, Any]]


@pytest.fixture
def servers() -> Iterator[tuple[list[str], Calls]]:
    """Addresses of a server of two workers and one of one, and what was asked of them."""
    calls: Calls = []
    running = []

    def handler(number: int) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                send(self, 200, {"world_size": 2 - number}) if self.path == "/get_world_size" else send(self, 404, {})

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
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(engine, "open_trainer_endpoint", lambda info: info)
    monkeypatch.setattr(
        engine.NCCLTrainerWeightTransferEngine,
        "_broadcast",
        lambda self, source, meta: sent.append([name for (name, _), _ in zip(source, meta, strict=True)]),
    )
    monkeypatch.setattr(engine.NCCLTrainerWeightTransferEngine, "_post_send_sync", lambda self: None, raising=False)
    group = fleet(urls)
    transfer = NcclTransfer(group)
    for scale in (1.0, 2.0):
        transfer.push([("a.weight", torch.ones(2, 3) * scale), ("b.weight", torch.ones(4, dtype=torch.bfloat16))])
    transfer.close()
    group.close()
    assert sent == [["a.weight", "b.weight"]] * 2
    opened = {number: engine.NCCLWeightTransferInitInfo(**body["init_info"]) for number, path, body in calls if "init_weight" in path}
    assert {number: (info.rank_offset, info.world_size) for number, info in opened.items()} == {0: (1, 4), 1: (3, 4)}
    updates = [engine.NCCLWeightTransferUpdateInfo(**body["update_info"]) for _, path, body in calls if path == "/update_weights"]
    assert len(updates) == 4
    assert (updates[0].names, updates[0].dtype_names) == (["a.weight", "b.weight"], ["float32", "bfloat16"])
    assert updates[0].shapes == [[2, 3], [4]]
    once = ["/start_weight_update", "/update_weights", "/finish_weight_update", "/reset_prefix_cache"]
    for number in range(2):
        assert [path for who, path, _ in calls if who == number] == ["/init_weight_transfer_engine", *once, *once]


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
