"""Reward models on servers: a server on this machine that misbehaves on order, and vLLM's own."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from r1cli.engines import fleet
from r1cli.engines.reward_model import load_reward_model
from r1cli.engines.reward_server import ServerRewardModel, origin_of
from r1cli.errors import R1Error
from tests import fake_server as fault
from tests.fake_server import FakeServer
from tests.tiny_reward import tiny_reward_model
from tests.vllm_server import serve

CONVERSATIONS = [("Hi", "x" * number) for number in range(12)]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "FIRST_PAUSE", 0.02)


def scores(url: str, model: str = "", key: str | None = None, given: list | None = None, **options: float) -> list[float | None]:
    settings: dict[str, Any] = {"at_once": 4, "timeout": 5.0, "retries": 3, "patience": 1.0, **options}
    found = ServerRewardModel(url, name="helpful", model=model, key=key, **settings)
    try:
        return found.score(CONVERSATIONS if given is None else given)
    finally:
        found.close()


def test_every_fault_ends_in_the_same_scores() -> None:
    faults = [fault.reset, fault.status(429, {"Retry-After": "0"}), fault.status(500), fault.cut, fault.nonsense, fault.status(503)]
    with FakeServer(faults=faults, key="secret") as server:
        assert scores(server.url, key="secret") == [float(number) for number in range(12)]
    assert len(server.requests) == 12 + len(faults) and server.most_at_once <= 4
    path, body, _ = server.requests[-1]
    assert path == "/classify"
    assert body["use_activation"] is False and body["add_generation_prompt"] is False and body["model"] == "teacher"
    assert [message["role"] for message in body["messages"]] == ["user", "assistant"]


def test_a_conversation_that_is_too_long_has_no_score_and_the_others_have() -> None:
    with FakeServer(refuse="xxxxxxxxx") as server:
        assert scores(server.url) == [*(float(number) for number in range(9)), None, None, None]


def test_a_number_that_is_none_is_handed_on_as_one() -> None:
    with FakeServer(logits=lambda reply: [None]) as server:
        assert [str(score) for score in scores(server.url, given=CONVERSATIONS[:2])] == ["nan", "nan"]


def test_errors_name_the_reward_the_address_and_the_way_out() -> None:
    with FakeServer() as dead:
        pass
    with pytest.raises(R1Error) as caught:
        scores(dead.url)
    assert f"reward model `helpful` ({dead.url}) did not answer within 1 s" in caught.value.message
    assert caught.value.code == 3 and "--runner pooling" in (caught.value.hint or "")
    with FakeServer(always=fault.status(500)) as server, pytest.raises(R1Error, match="answered a request 1 times with an error") as caught:
        scores(server.url, retries=0, at_once=1)
    assert caught.value.code == 3
    with FakeServer(logits=lambda reply: [0.1, 0.9]) as server, pytest.raises(R1Error, match="a classifier with 2 labels") as caught:
        scores(server.url)
    assert caught.value.code == 2
    with FakeServer(always=fault.status(400, message="no such task")) as server, pytest.raises(R1Error, match="no such task") as caught:
        scores(server.url)
    assert caught.value.code == 2
    with FakeServer() as server, pytest.raises(R1Error, match="none called `techer`") as caught:
        scores(server.url, model="techer")
    assert "did you mean `teacher`?" in (caught.value.hint or "")


def test_a_server_that_dies_on_the_way_ends_the_run_with_what_it_said_last() -> None:
    server = FakeServer(seconds=0.05)
    with server:
        model = ServerRewardModel(server.url, name="helpful", model="", key=None, at_once=4, timeout=5.0, retries=3, patience=0.5)
        assert model.score(CONVERSATIONS[:2]) == [0.0, 1.0]
    try:
        with pytest.raises(R1Error, match=r"reward model `helpful` \(.*\) no server gave a score for 0 s") as caught:
            model.score(CONVERSATIONS)
        assert caught.value.code == 3 and "--server-wait" in (caught.value.hint or "")
    finally:
        model.close()


def test_the_classify_interface_is_beside_the_version() -> None:
    for url in ("http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"):
        assert origin_of(url) == "http://h:1/"
    assert origin_of("http://h:1/rm/v1") == "http://h:1/rm/"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllms_own_server_gives_the_scores_of_transformers(tmp_path: Path) -> None:
    folder = tiny_reward_model(tmp_path / "rm")
    here = load_reward_model(str(folder), name="helpful", dtype="float32").score(CONVERSATIONS)
    with serve(folder, max_model_len=128, max_num_seqs=4, log=tmp_path / "log", pooling=True) as url:
        there = scores(url, model="teacher", patience=60.0, timeout=60.0)
        [none] = scores(url, model="teacher", patience=60.0, timeout=60.0, given=[("Hi", "word " * 500)])
    assert there == pytest.approx(here, abs=1e-3)
    assert none is None
