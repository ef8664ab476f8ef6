"""Engines that are refused before anything is loaded."""

import pytest

from r1cli.engines.asked import ENGINES, check_engine
from r1cli.errors import R1Error
from r1cli.shared_settings import ENGINES as CHOICES

URLS = ["http://127.0.0.1:1/v1"]


def test_every_engine_can_be_asked_for_by_a_flag() -> None:
    assert ENGINES == CHOICES
    with pytest.raises(R1Error, match="no engine named `tgi`") as caught:
        check_engine("tgi")
    assert all(name in (caught.value.hint or "") for name in CHOICES)


def test_an_engine_that_is_not_there_or_cannot_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(R1Error, match="the engine `transformers` has no sleep mode"):
        check_engine("transformers", sleep=True)
    with pytest.raises(R1Error, match="the engine `server` has no sleep mode"):
        check_engine("auto", urls=URLS, sleep=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for engine, sleep, said, code in (("vllm", False, "`vllm` is not installed", 3), ("auto", True, "and vLLM is not installed", 2)):
        with pytest.raises(R1Error, match=said) as caught:
            check_engine(engine, sleep=sleep)
        assert caught.value.code == code
    check_engine("auto")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    check_engine("auto", sleep=True)
    check_engine("vllm", sleep=True)


def test_a_server_without_its_key_or_of_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(R1Error, match="`NO_SUCH_KEY` holds no key"):
        check_engine("auto", urls=URLS, api_key_env="NO_SUCH_KEY")
    with pytest.raises(R1Error, match="several training processes cannot share a server"):
        check_engine("auto", urls=URLS, processes=2)
    check_engine("auto", processes=2)
