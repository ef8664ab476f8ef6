"""The cache at fixed addresses says what a growing one says, whoever comes and goes; on a GPU its passes are recorded as CUDA graphs."""

import random
from itertools import count

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedConfig, Qwen2Config

from r1cli.engines import recorded
from r1cli.engines.batch import GrowingBatch, Slot
from r1cli.engines.load import load_engine
from r1cli.engines.protocol import Request, SamplingParams
from r1cli.engines.recorded import RecordedBatch, Rooms, agrees, bucket
from r1cli.engines.transformers import CACHE_TOKENS, TransformersEngine, cache_tokens
from r1cli.layers.plain import plain_attention

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EXACT = 2e-5 if DEVICE.type == "cpu" else 1e-4  # of logits of size 6; on a GPU attention is another kernel's


@pytest.fixture
def net(tiny):
    return AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).to(DEVICE).eval().requires_grad_(False)


def slot(key, prompt):
    return Slot(Request(key, prompt, key), torch.Generator())


def follow(net, batch, seed, passes=60):
    """Logits of a batch that sequences of all lengths join and leave by chance, each with its key; the tokens are given."""
    draws, keys, found = random.Random(seed), count(), []
    for number in range(passes):
        joining = draws.choice([0, 0, 0, 1, 3, 12]) if not batch.slots or (number % 20 < 14 and len(batch.slots) < 20) else 0
        starting = [slot(next(keys), [draws.randrange(4, 300) for _ in range(draws.randint(1, 25))]) for _ in range(joining)]
        if not starting and not batch.slots:
            continue
        logits = batch.advance(starting)
        assert torch.isfinite(logits).all()
        found += [(one.request.key, one.length, row) for one, row in zip(batch.slots, logits.cpu(), strict=True)]
        for one in batch.slots:
            one.token_ids.append(draws.randrange(4, 300))
        leaving = [one for one in batch.slots if draws.random() < (0.4 if number % 20 > 14 else 0.05)]
        batch.drop({id(one) for one in leaving})
    return found


@pytest.mark.parametrize("seed", range(3))
def test_whoever_joins_and_leaves_the_logits_are_those_of_a_growing_cache(net, monkeypatch, seed):
    monkeypatch.setattr(recorded, "FEWEST_COLUMNS", 16)
    expected = follow(net, GrowingBatch(net, DEVICE), seed)
    rooms = Rooms(net, 100_000)
    assert agrees(net, DEVICE, rooms)
    found = follow(net, RecordedBatch(net, DEVICE, rooms), seed)
    assert [entry[:2] for entry in found] == [entry[:2] for entry in expected]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours[2], theirs[2], atol=EXACT, rtol=0)
    assert len({rows for rows, _ in rooms._made}) > 1 and len({columns for _, columns in rooms._made}) > 1  # it did grow and shrink


def test_a_room_that_was_used_is_as_good_as_new(net):
    rooms = Rooms(net, 10_000)
    assert agrees(net, DEVICE, rooms)
    first = follow(net, RecordedBatch(net, DEVICE, rooms), 7, passes=8)
    second = follow(net, RecordedBatch(net, DEVICE, rooms), 7, passes=8)
    assert all(torch.equal(a[2], b[2]) for a, b in zip(first, second, strict=True)) and len(first) == len(second) > 0


def test_sizes():
    assert [bucket(wanted, 8, 64) for wanted in (1, 8, 9, 16, 17, 64, 65, 128, 129)] == [8, 8, 16, 16, 32, 64, 128, 128, 192]


def test_old_rooms_make_way_but_never_the_one_in_use(net):
    rooms = Rooms(net, 8 * 256 + 8 * 512)
    like = follow_like(net)
    small, large = rooms.room(like, 1, 10, None), rooms.room(like, 1, 400, None)
    assert rooms.room(like, 1, 10, None) is small and rooms.room(like, 1, 400, small) is large
    rooms.room(like, 1, 900, small)
    assert [(room.rows, room.columns) for room in rooms._made.values()] == [(8, 256), (8, 1024)]


def follow_like(net):
    return net(input_ids=torch.ones(1, 2, dtype=torch.long, device=DEVICE), use_cache=True).past_key_values


def test_layers_that_see_a_window_keep_a_growing_cache():
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    windowed = MistralForCausalLM(MistralConfig(**sizes, num_key_value_heads=1, sliding_window=4)).eval()
    assert not plain_attention(windowed) and not agrees(windowed, torch.device("cpu"), Rooms(windowed, 1000))


class OfNoKind(Exception):
    """As Triton's errors, which are no RuntimeError."""


@pytest.mark.parametrize("broken", [RuntimeError, TypeError, None, OfNoKind])
def test_a_pass_that_cannot_be_recorded_is_not_and_is_said(net, monkeypatch, caplog, broken):
    room, attention = recorded.Room.advance, net.config._attn_implementation

    def advance(self, newest):
        if broken is not None:
            raise broken("operation not permitted when stream is capturing")
        return room(self, newest).roll(1, -1)

    monkeypatch.setattr(recorded.Room, "advance", advance)
    rooms = Rooms(net, 10_000)
    assert not agrees(net, DEVICE, rooms)
    assert "without CUDA graphs" in caplog.text and ("capturing" if broken else "other results") in caplog.text
    assert net.config._attn_implementation == attention and not rooms._made


def test_how_many_tokens_of_cache_a_gpu_holds(net):
    """A tenth of 80 GB for 28 layers of 4 key heads of 128 in bfloat16: 57,344 bytes a position."""
    qwen = Qwen2Config(num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4, hidden_size=3584)
    assert cache_tokens(qwen, 2, 80_000_000_000) == 139_508
    assert cache_tokens(qwen, 2, 0) == cache_tokens(qwen, 2, 8_000_000_000) == CACHE_TOKENS
    assert cache_tokens(PreTrainedConfig(), 2, 80_000_000_000) == CACHE_TOKENS


def test_large_caches_do_not_stay_between_batches(net, monkeypatch):
    rooms = Rooms(net, 10_000)
    assert agrees(net, DEVICE, rooms)
    rooms.leave()
    assert rooms._made
    monkeypatch.setattr(recorded, "KEPT", 100)
    rooms.leave()
    assert not rooms._made


def test_out_of_memory_is_not_mistaken_for_it(net, monkeypatch):
    def advance(self, newest):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(recorded.Room, "advance", advance)
    with pytest.raises(torch.OutOfMemoryError):
        agrees(net, DEVICE, Rooms(net, 10_000))


@needs_gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_on_a_gpu_the_engine_samples_by_graphs_and_follows_new_weights(tiny, dtype):
    engine, plain = (load_engine(str(tiny), engine="transformers", dtype=dtype, batch_size=16) for _ in range(2))
    assert isinstance(engine, TransformersEngine) and engine._rooms is not None and isinstance(plain, TransformersEngine)
    plain._rooms = None
    requests = [Request(key, [40 + key] * (1 + key), key) for key in range(24)]
    params = SamplingParams(max_tokens=40, temperature=1.0, logprobs=True)
    for scale in (1.0, 0.5):
        for one in (engine, plain):
            one.load_weights([(name, weight * scale) for name, weight in own_weights(tiny).items()])
        ours, theirs = ({c.key: c for c in one.sample(requests, params)} for one in (engine, plain))
        assert any(room._graph is not None for room in engine._rooms._made.values())
        same = sum(ours[key].token_ids == theirs[key].token_ids for key in theirs)
        assert same == 24 if dtype == "float32" else same > 8
        for key in theirs:
            if ours[key].token_ids == theirs[key].token_ids:
                assert ours[key].logprobs == pytest.approx(theirs[key].logprobs, abs=1e-3 if dtype == "float32" else 0.1)


def own_weights(folder):
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tied = {"lm_head.weight"} if loaded.config.tie_word_embeddings else set()
    return {name: weight.detach() for name, weight in loaded.named_parameters() if name not in tied}
