"""vLLM's sleep mode: which of its calls happen, and in which order. The calls are recorded; test_vllm_gpu.py makes them on a GPU."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from r1cli.engines.load import load_engine
from r1cli.engines.protocol import SamplingParams
from r1cli.engines.vllm import VllmEngine
from r1cli.errors import R1Error


class Recorded:
    """Stands in for `vllm.LLM`."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def sleep(self, level: int = 1, mode: str = "abort") -> None:
        self.calls.append(("sleep", level))

    def wake_up(self, tags: list[str] | None = None) -> bool:
        self.calls.append(("wake_up", tags))
        return True

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        self.calls.append((method, [name for name, _ in kwargs["weights_iterator"]]))

    def reset_prefix_cache(self) -> bool:
        self.calls.append("reset_prefix_cache")
        return True


class Patient:
    def waiting(self, what: str, limit: float = 0.0) -> Any:
        return nullcontext()


def engine(*, sleep: bool) -> Any:
    made: Any = object.__new__(VllmEngine)
    made._llm, made._watchdog, made._running, made._sleep, made._resting = Recorded(), Patient(), {}, sleep, False
    made._on_cpu, made._tied, made._tensor_names, made._logprobs = False, False, frozenset({"norm.weight"}), True
    made.model = "a folder"
    return made


def test_the_cache_wakes_after_the_weights_are_in() -> None:
    made = engine(sleep=True)
    made.rest()
    made.rest()  # a second time is nothing
    with pytest.raises(R1Error, match="vLLM sleeps and has no weights"):
        next(made.sample([], SamplingParams(max_tokens=1)))
    made.load_weights([("norm.weight", torch.ones(2))])
    assert made._llm.calls == [
        ("sleep", 2),
        ("wake_up", ["weights"]),
        ("reload_weights", ["norm.weight"]),
        ("wake_up", ["kv_cache"]),
        "reset_prefix_cache",
    ]
    made.load_weights([("norm.weight", torch.ones(2))])
    assert made._llm.calls[-2:] == [("reload_weights", ["norm.weight"]), "reset_prefix_cache"]


def test_without_sleep_nothing_rests() -> None:
    made = engine(sleep=False)
    made.rest()
    assert made._llm.calls == []


def test_an_engine_without_sleep_is_refused(tiny: Any) -> None:
    with pytest.raises(R1Error, match="the engine `transformers` has no sleep mode"):
        load_engine(str(tiny), engine="transformers", sleep=True)
