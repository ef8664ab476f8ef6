"""The parts of the engines: choosing tokens, feeding requests, the watchdog, what a model folder says, which engine is taken."""

import json
import subprocess
import sys
import threading
import time

import pytest
import torch

from r1cli.engines import load
from r1cli.engines.choice import choose, sampling_logprobs
from r1cli.engines.feed import Feed
from r1cli.engines.model_files import end_ids, tensor_names, whole_weights
from r1cli.engines.protocol import Request, SamplingParams
from r1cli.engines.watchdog import Watchdog
from r1cli.errors import R1Error
from tests.tiny import tiny_model, tiny_tokenizer

LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().unsqueeze(0)


def probabilities(**params):
    return sampling_logprobs(LOGITS, SamplingParams(max_tokens=1, **params)).exp()[0]


def test_the_sampling_distribution_by_hand():
    torch.testing.assert_close(probabilities(), torch.tensor([0.5, 0.3, 0.15, 0.05]))
    squares = torch.tensor([0.25, 0.09, 0.0225, 0.0025])
    torch.testing.assert_close(probabilities(temperature=0.5), squares / squares.sum())
    torch.testing.assert_close(probabilities(top_k=2), torch.tensor([0.625, 0.375, 0.0, 0.0]))
    torch.testing.assert_close(probabilities(top_p=0.8), torch.tensor([0.625, 0.375, 0.0, 0.0]))
    torch.testing.assert_close(probabilities(top_p=0.81), torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95)
    torch.testing.assert_close(probabilities(top_p=0.1), torch.tensor([1.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(probabilities(temperature=0.0), torch.tensor([0.5, 0.3, 0.15, 0.05]))


def test_draws_follow_the_distribution():
    """20,000 draws: each frequency within 4 standard deviations of its probability, excluded tokens never."""
    params = SamplingParams(max_tokens=1, top_k=3)
    generator = torch.Generator().manual_seed(0)
    logprobs = sampling_logprobs(LOGITS, params)
    drawn = choose(logprobs.expand(20_000, -1), [generator] * 20_000, params)
    counts = torch.bincount(drawn, minlength=4) / 20_000
    expected = torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95
    assert ((counts - expected).abs() <= 4 * (expected * (1 - expected) / 20_000).sqrt()).all()


def test_a_slow_source_does_not_hold_up_what_runs():
    gate = threading.Event()

    def source():
        yield Request(0, [1], 0)
        gate.wait(30)
        yield Request(1, [1], 0)

    feed = Feed(source(), ahead=4)
    assert [request.key for request in feed.take(5, wait=True)] == [0]
    assert feed.take(5, wait=False) == []
    gate.set()
    assert [request.key for request in feed.take(5, wait=True)] == [1]
    assert feed.take(5, wait=True) == []
    assert feed.ended


def test_an_endless_source_is_read_only_a_little_ahead():
    read = []

    def source():
        number = 0
        while True:
            read.append(number)
            yield Request(number, [1], 0)
            number += 1

    feed = Feed(source(), ahead=3)
    feed.take(2, wait=True)
    time.sleep(0.3)
    assert len(read) <= 2 + 3 + 2  # taken, queued, one in the hand of the reader, and one more if take gave only one
    feed.close()


def test_the_watchdog_names_what_is_waited_for(caplog):
    watchdog = Watchdog(limit=0.05)
    with watchdog.waiting("a step that hangs"):
        deadline = time.monotonic() + 10
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.02)
    watchdog.close()
    assert "still waiting for a step that hangs" in caplog.text


def test_a_wait_without_end_ends_the_process_with_what_it_waited_for():
    program = (
        "import time; from r1cli.engines.watchdog import Watchdog\n"
        "with Watchdog(limit=0.1).waiting('a step that hangs', deadline=0.3): time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", timeout=50, check=False)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-3:] == ["error: waited 0 s for a step that hangs, which did not come", "",
                                             "hint: --resume continues; --verbose shows the engine's log"]  # fmt: skip


def test_every_end_token_counts(tmp_path):
    tokenizer = tiny_tokenizer()
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 11}))
    assert end_ids(str(tmp_path), tokenizer) == {7, 9, tokenizer.eos_token_id}
    (tmp_path / "generation_config.json").unlink()
    assert end_ids(str(tmp_path), tokenizer) == {11, tokenizer.eos_token_id}


@pytest.mark.parametrize("tied", [True, False])
def test_tensor_names_are_those_a_trainer_sends(tmp_path, tied):
    folder = tiny_model(tmp_path / "m", tied=tied)
    names = tensor_names(str(folder))
    assert "model.embed_tokens.weight" in names
    assert ("lm_head.weight" in names) is (not tied)


def test_weights_must_be_whole():
    tensor = torch.zeros(1, requires_grad=True)
    got = list(whole_weights([("a", tensor), ("lm_head.weight", tensor)], frozenset({"a"}), tied=True))
    assert [name for name, _ in got] == ["a"]
    assert not got[0][1].requires_grad
    with pytest.raises(R1Error, match="first `b`"):
        list(whole_weights([("a", tensor)], frozenset({"a", "b"}), tied=True))


def test_auto_falls_back_and_says_why(monkeypatch, tiny):
    monkeypatch.setattr(load, "_import_vllm", lambda: "operator torchvision::nms does not exist")
    said: list[str] = []
    engine = load.load_engine(str(tiny), say=said.append)
    assert engine.name == "transformers"
    with pytest.raises(R1Error, match="torchvision::nms") as caught:
        load.load_engine(str(tiny), engine="vllm")
    assert caught.value.code == 3
    with pytest.raises(R1Error, match="no engine named `vlm`"):
        load.load_engine(str(tiny), engine="vlm")
