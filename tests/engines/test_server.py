"""The server engine against a server on this machine that misbehaves on order."""

import logging
import threading
import time

import pytest

from r1cli.engines import fleet, patience
from r1cli.engines.addresses import check_url, root_of
from r1cli.engines.fleet import Fleet, retry_after
from r1cli.engines.load import Remote, load_engine
from r1cli.engines.openai_api import Malformed, completion_of, error_text
from r1cli.engines.protocol import Request, SamplingParams
from r1cli.errors import R1Error
from tests import fake_server as fault
from tests.fake_server import FakeServer

PARAMS = SamplingParams(max_tokens=8)


def requests(count: int) -> list[Request]:
    return [Request(number, [], 100 + number, f"prompt {number}") for number in range(count)]


def draw(*servers, count=12, params=PARAMS, model="teacher", given=None, batch_size=4, **remote):
    options = {"timeout": 5.0, "patience": 3.0, **remote}
    engine = load_engine(str(model), batch_size=batch_size, remote=Remote(urls=tuple(s.url for s in servers), **options))
    try:
        return {c.key: c for c in engine.sample(requests(count) if given is None else given, params)}
    finally:
        engine.close()


def expected(count=12):
    with FakeServer() as server:
        return {key: c.text for key, c in draw(server, count=count).items()}


def texts(drawn):
    return {key: completion.text for key, completion in drawn.items()}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(fleet, "FIRST_PAUSE", 0.02)


def test_every_fault_ends_in_the_same_completions():
    faults = [fault.reset, fault.status(429, {"Retry-After": "0"}), fault.status(500), fault.cut, fault.nonsense, fault.status(503)]
    with FakeServer(faults=faults) as server:
        drawn = draw(server)
    assert texts(drawn) == expected()
    assert len(server.requests) == 12 + len(faults)
    assert {c.num_tokens for c in drawn.values()} == {8}


def test_no_more_at_once_than_asked_for_and_no_less():
    with FakeServer(seconds=0.1) as server:
        draw(server, count=16, batch_size=4)
    assert server.most_at_once == 4


def test_a_fleet_shares_the_work_and_outlives_a_member():
    with FakeServer(seconds=0.02) as one, FakeServer(seconds=0.02) as two:
        assert texts(draw(one, two, count=40)) == expected(40)
        shares = len(one.requests), len(two.requests)
        assert min(shares) >= 10, shares
    dying = FakeServer(seconds=0.05)
    dying.__enter__()
    with FakeServer(seconds=0.02) as other:
        engine = load_engine("teacher", batch_size=4, remote=Remote(urls=(dying.url, other.url), timeout=5.0, patience=3.0))
        drawn = {}
        for completion in engine.sample(requests(40), PARAMS):
            drawn[completion.key] = completion
            if len(drawn) == 5:
                dying.__exit__(None, None, None)
        engine.close()
    assert texts(drawn) == expected(40)


def test_a_server_that_is_not_up_yet_is_waited_for_and_a_dead_one_has_a_deadline():
    with FakeServer() as server:
        port = server.port
    late = threading.Timer(0.5, lambda: started.append(FakeServer(port=port).__enter__()))
    started: list[FakeServer] = []
    late.start()
    assert texts(draw(server, patience=20.0)) == expected()
    started[0].__exit__(None, None, None)
    begun = time.monotonic()
    with pytest.raises(R1Error, match=r"no server answered within 1 s \(http://127.0.0.1:\d+: .*onnect") as caught:
        draw(server, patience=1.0)
    assert caught.value.code == 3
    assert time.monotonic() - begun < 10


def test_waiting_is_not_done_in_silence(monkeypatch, caplog):
    """Of a server that is not there, and of one that goes away; each is said once."""
    monkeypatch.setattr(patience, "SAID_AFTER", 0.0)
    monkeypatch.setattr(fleet, "LONG_SECONDS", 0.2)
    with caplog.at_level(logging.WARNING, "r1cli"):
        with pytest.raises(R1Error, match="no server answered"):
            load_engine("teacher", remote=Remote(urls=("http://127.0.0.1:1",), patience=1.0))
        with FakeServer() as server:
            engine = load_engine("teacher", batch_size=2, remote=Remote(urls=(server.url,), timeout=1.0, patience=3.0))
            drawing = engine.sample(requests(50), PARAMS)
            next(drawing)
            server.__exit__(None, None, None)
            with pytest.raises(R1Error, match="no server gave"):
                list(drawing)
            engine.close()
    first, second = (record.getMessage() for record in caplog.records if record.name == "r1cli")
    assert first.startswith("waiting up to 1 s for a server (http://127.0.0.1:1: ")
    assert second.startswith(f"waiting up to 3 s for a server that gives a completion ({server.url}")


def test_a_rate_limit_is_waited_out_as_long_as_the_server_says_and_halves_what_it_gets():
    with FakeServer(faults=[fault.status(429, {"Retry-After": "1"})]) as server:
        begun = time.monotonic()
        drawn = draw(server, count=3, batch_size=1)
        assert time.monotonic() - begun >= 1.0
    assert len(drawn) == 3
    with FakeServer(seconds=0.3, faults=[fault.status(429)] * 2) as server:  # longer than eight requests take to be sent: one breakdown
        fleet_of_one = Fleet([server.url], key=None, at_once=8, timeout=5, retries=2, patience=5)
        for number in range(8):
            fleet_of_one.submit(number, "/completions", {"prompt": "a", "seed": number}, lambda raw: raw)
        for _ in range(8):
            fleet_of_one.done.get(timeout=10)
        assert fleet_of_one.servers[0].limit in (4, 5)  # halved once by one breakdown, one more after each full round
        fleet_of_one.close()


def test_a_server_that_hangs_is_given_up_and_asked_again():
    with FakeServer(faults=[fault.hang(3.0)]) as server:
        assert texts(draw(server, count=3, timeout=0.5)) == expected(3)


def test_bytes_that_keep_a_connection_alive_do_not_put_off_the_deadline():
    """Each of them starts httpx's own read timeout anew."""
    with FakeServer(faults=[fault.dribble(20.0)]) as server:
        begun = time.monotonic()
        assert texts(draw(server, count=3, timeout=0.5)) == expected(3)
        assert time.monotonic() - begun < 10.0
    with (
        FakeServer(always=fault.dribble(20.0)) as server,
        pytest.raises(R1Error, match=r"no server gave.*no whole answer within the 0\.3 s of --request-timeout"),
    ):
        draw(server, count=3, timeout=0.3, patience=0.5)


def test_a_slow_answer_within_the_deadline_is_taken():
    with FakeServer(always=fault.dribble(1.0, then=True)) as server:
        assert texts(draw(server, count=2, timeout=10.0)) == {0: "late", 1: "late"}
        assert len(server.requests) == 2


def test_endless_trouble_ends_with_its_reason():
    with FakeServer(always=fault.status(500, message="out of memory")) as server, pytest.raises(R1Error, match=r"3 times.*out of memory"):
        draw(server, retries=2)
    with (
        FakeServer(always=fault.status(429, message="quota")) as server,
        pytest.raises(R1Error, match=r"no server gave.*429 quota") as caught,
    ):
        draw(server, patience=0.5)
    assert caught.value.code == 3


def test_what_was_drawn_before_the_end_has_come_out():
    seen = []
    with FakeServer() as server:
        engine = load_engine("teacher", batch_size=2, remote=Remote(urls=(server.url,), timeout=1.0, patience=0.5))
        with pytest.raises(R1Error, match="no server gave"):
            for completion in engine.sample(requests(50), PARAMS):
                seen.append(completion.key)
                if len(seen) == 10:
                    server.__exit__(None, None, None)
        engine.close()
        assert len(seen) >= 10


def test_the_key_comes_from_the_environment_and_is_in_no_message(monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", "sk-secret")
    with FakeServer(key="sk-secret") as server:
        assert len(draw(server, api_key_env="TEACHER_KEY")) == 12
    with FakeServer(key="another") as server, pytest.raises(R1Error, match="refuses the key: 401") as caught:
        draw(server, api_key_env="TEACHER_KEY")
    assert "sk-secret" not in str(caught.value)
    said: list[str] = []
    with pytest.raises(R1Error, match="no server answered"):
        load_engine("teacher", say=said.append, remote=Remote(urls=("http://192.0.2.1",), api_key_env="TEACHER_KEY", patience=0.2))
    assert said == ["the key goes to http://192.0.2.1 unencrypted: https:// would protect it"]
    monkeypatch.delenv("TEACHER_KEY")
    with pytest.raises(R1Error, match="`TEACHER_KEY` holds no key"):
        load_engine("teacher", remote=Remote(urls=("http://127.0.0.1:1",), api_key_env="TEACHER_KEY"))
    with pytest.raises(R1Error, match="a user name or a password"):
        check_url("http://me:secret@host/v1")


def test_training_processes_do_not_share_servers(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(R1Error, match="cannot share a server"):
        load_engine("teacher", remote=Remote(urls=("http://127.0.0.1:1",)))


def test_one_row_that_is_too_long_does_not_end_the_run():
    with FakeServer(refuse="prompt 3") as server:
        drawn = draw(server)
    assert [key for key, c in drawn.items() if c.finish_reason == "refused"] == [3]
    assert "maximum context length" in drawn[3].text
    with FakeServer(always=fault.status(400, message="temperature must be below 2")) as server, pytest.raises(R1Error, match="below 2"):
        draw(server)


def test_an_unknown_model_and_a_wrong_path_are_named():
    with FakeServer() as server:
        with pytest.raises(R1Error, match="does not serve `teachr`") as caught:
            draw(server, model="teachr")
        assert caught.value.hint == "did you mean `teacher`?"
        with FakeServer(model="other") as other, pytest.raises(R1Error, match="does not serve `teacher`"):
            draw(server, other)


def test_a_local_folder_sends_tokens_and_gets_tokens(tiny):
    given = [Request(number, [40 + number, 41], number) for number in range(4)]
    with FakeServer(model=str(tiny), vllm=True) as server:
        drawn = draw(server, model=tiny, given=given, params=SamplingParams(max_tokens=8, logprobs=True, stop=("x",)))
    path, body, _ = server.requests[0]
    assert path == "/v1/completions"
    assert body["prompt"] in [[40 + number, 41] for number in range(4)]
    assert (body["top_k"], body["repetition_penalty"], body["include_stop_str_in_output"]) == (0, 1.0, True)
    assert body["stop_token_ids"]
    for completion in drawn.values():
        assert completion.token_ids
        assert completion.logprobs == [-0.25] * len(completion.token_ids)


def test_services_get_only_what_every_service_knows():
    with FakeServer() as server:
        draw(server, given=[Request(0, [], 7, [{"role": "user", "content": "?"}])])
    path, body, _ = server.requests[0]
    assert path == "/v1/chat/completions"
    assert set(body) == {"model", "max_tokens", "temperature", "top_p", "seed", "messages"}


def test_closing_the_iterator_gives_up_what_runs_and_leaves_the_engine_usable():
    with FakeServer(seconds=0.2) as server:
        engine = load_engine("teacher", batch_size=4, remote=Remote(urls=(server.url,), timeout=5.0))
        drawing = engine.sample(requests(100), PARAMS)
        next(drawing)
        drawing.close()
        assert len(server.requests) < 20
        assert len(list(engine.sample(requests(3), PARAMS))) == 3
        engine.close()


@pytest.mark.parametrize(("message", "finish", "text"), [
    ({"content": "b", "reasoning_content": "a"}, "stop", "<think>\na\n</think>\n\nb"),
    ({"content": "b", "reasoning": "a\n"}, "stop", "<think>\na\n</think>\n\nb"),
    ({"content": "", "reasoning_content": "a"}, "length", "<think>\na\n"),
    ({"content": "b", "reasoning_content": None}, "stop", "b"),
])  # fmt: skip
def test_reasoning_comes_back_in_tags(message, finish, text):
    import json

    raw = json.dumps({"choices": [{"message": message, "finish_reason": finish}], "usage": {"completion_tokens": 5}}).encode()
    assert completion_of(raw, requests(1)[0], PARAMS).text == text


def test_a_stop_string_the_server_left_out_is_put_back():
    raw = b'{"choices": [{"text": "a", "finish_reason": "stop", "stop_reason": "END"}], "usage": {"completion_tokens": 2}}'
    assert completion_of(raw, requests(1)[0], SamplingParams(max_tokens=8, stop=("END",))).text == "aEND"


def test_answers_that_are_none():
    for raw in (b"", b"{", b"{}", b'{"choices": []}', b'{"choices": [{"text": "a", "finish_reason": "stop"}]}', b"[1]"):
        with pytest.raises(Malformed):
            completion_of(raw, requests(1)[0], PARAMS)
    filtered = b'{"choices": [{"text": "", "finish_reason": "content_filter"}], "usage": {"completion_tokens": 0}}'
    assert completion_of(filtered, requests(1)[0], PARAMS).finish_reason == "refused"


def test_addresses_and_waits():
    assert root_of("http://h:8000") == root_of("http://h:8000/v1/") == "http://h:8000/v1/"
    assert root_of("https://api.example.com/compatible/v3") == "https://api.example.com/compatible/v3/"
    assert (retry_after("2.5"), retry_after(None), retry_after("soon"), retry_after("-3")) == (2.5, None, None, 0.0)
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    for url in ("127.0.0.1:8000", "ftp://host", "", "http://"):
        with pytest.raises(R1Error, match="not the address"):
            check_url(url)
    assert error_text(b'{"error": {"message": "a\\nb."}}') == "a b"
    assert error_text(b"<html>") == "<html>"
