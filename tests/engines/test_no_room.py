"""What is said when vLLM finds no memory, or refuses its settings.

The texts are vLLM 0.32's (v1/core/kv_cache_utils.py, v1/worker/utils.py, config/model.py).
"""

import pytest

from r1cli.engines import load
from r1cli.errors import R1Error

TOO_SMALL = """To serve at least one request with the model's max seq len (8192), (0.18 GiB KV cache is needed, which is larger than the \
available KV cache memory (0.1 GiB). Based on the available memory, the estimated maximum model length is 4608. Try increasing \
`gpu_memory_utilization` (which also controls CPU memory on the CPU backend) or decreasing `max_model_len` when initializing the engine. \
See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."""
TAKEN = """Free memory on device cuda:0 (3.1/79.2 GiB) on startup is less than desired GPU memory utilization (0.9, 71.2 GiB). Decrease \
GPU memory utilization or reduce GPU memory used by other processes."""


@pytest.mark.parametrize(
    ("error", "end", "way"),
    [
        (ValueError(TOO_SMALL), "the estimated maximum model length is 4608", "raise --kv-cache-gib"),
        (ValueError("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"), "blocks", "raise --kv-cache-gib"),
        (ValueError(TAKEN), "used by other processes", "lower --kv-cache-gib"),
        (MemoryError(), "MemoryError", "lower --kv-cache-gib"),
    ],
)
def test_too_little_is_asked_for_more_and_too_much_for_less(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, end: str, way: str
) -> None:
    def engine(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("r1cli.engines.vllm.VllmEngine", engine)
    with pytest.raises(R1Error, match="vLLM has no room for `model`: ") as caught:
        load._load_vllm("model")
    assert caught.value.code == 3
    assert caught.value.message.endswith(end)
    assert (caught.value.hint or "").startswith(way)


def test_what_vllm_refuses_is_said_and_not_that_it_refused_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """pydantic puts a heading before the reason, and its inputs and an address after it."""
    text = """1 validation error for ModelConfig
  Value error, User-specified max_model_len (100000) is greater than the derived max_model_len (max_position_embeddings=8192.0). To allow \
overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1. [type=value_error, input_value=ArgsKwargs((), {'model': ...})]
    For further information visit the page of the error"""

    def engine(*_: object, **__: object) -> None:
        raise ValueError(text)

    monkeypatch.setattr("r1cli.engines.vllm.VllmEngine", engine)
    with pytest.raises(R1Error) as caught:
        load._load_vllm("model")
    said = "User-specified max_model_len (100000) is greater than the derived max_model_len (max_position_embeddings=8192.0)"
    assert caught.value.message == f"vLLM cannot load `model`: {said}"
    assert (caught.value.code, caught.value.hint) == (2, "lower --max-model-len")
