"""Every engine against an outside oracle: the Hugging Face model itself, run on one sequence at a time in float32."""

import copy
import itertools

import pytest
import torch
from transformers import AutoModelForCausalLM

from r1cli.engines.load import Remote, load_engine
from r1cli.engines.protocol import Request, SamplingParams
from r1cli.engines.transformers import TransformersEngine
from r1cli.errors import R1Error
from r1cli.train.lora import LoraConfig, add_lora
from tests.tiny import tiny_model
from tests.vllm_server import serve

MAX_LEN = 128
PROMPTS = [[40 + i] * (1 + 3 * i) for i in range(9)]  # lengths 1 to 25: padding and different starts


ENGINES = [pytest.param("vllm", marks=pytest.mark.vllm), "transformers", "recorded",
           pytest.param("server", marks=[pytest.mark.vllm, pytest.mark.slow])]  # fmt: skip


@pytest.fixture(scope="module", params=ENGINES)
def engine(request, tiny, tmp_path_factory):
    """Four slots for nine requests: sequences end, and others take their place."""
    if request.param == "server":
        with serve(tiny, max_model_len=MAX_LEN, max_num_seqs=4, log=tmp_path_factory.mktemp("server") / "log") as url:
            loaded = load_engine(str(tiny), batch_size=4, remote=Remote(urls=(url,), timeout=60.0, patience=30.0))
            yield loaded
            loaded.close()
        return
    name = "transformers" if request.param == "recorded" else request.param
    loaded = load_engine(str(tiny), engine=name, dtype="float32", max_model_len=MAX_LEN, batch_size=4, kv_cache_gib=0.1)
    if request.param == "recorded":  # on a GPU by itself; here the same passes, without the recording
        assert isinstance(loaded, TransformersEngine) and loaded._rooms is None
        loaded.record()
        assert loaded._rooms is not None
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def model(tiny):
    return AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()


def requests(prompts=PROMPTS):
    return [Request(number, ids, 1000 + number) for number, ids in enumerate(prompts)]


def draw(engine, params, given=None):
    return {completion.key: completion for completion in engine.sample(given or requests(), params)}


@torch.no_grad()
def greedy(model, prompt, count, end):
    ids = list(prompt)
    while len(ids) < len(prompt) + count:
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == end:
            break
    return ids[len(prompt) :]


@torch.no_grad()
def logprobs_of(model, prompt, drawn, temperature):
    logits = model(torch.tensor([prompt + drawn])).logits[0, len(prompt) - 1 : -1].float()
    return (logits / temperature).log_softmax(-1)[torch.arange(len(drawn)), torch.tensor(drawn)]


def test_greedy_is_what_the_model_says(engine, model):
    drawn = draw(engine, SamplingParams(max_tokens=12, temperature=0.0, logprobs=True))
    assert sorted(drawn) == list(range(len(PROMPTS)))
    for number, prompt in enumerate(PROMPTS):
        completion = drawn[number]
        assert completion.token_ids == greedy(model, prompt, 12, engine.tokenizer.eos_token_id)
        assert completion.text == engine.tokenizer.decode(completion.token_ids, skip_special_tokens=True)
        expected = logprobs_of(model, prompt, completion.token_ids, 1.0)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_logprobs_are_those_a_trainer_computes(engine, model, temperature):
    for number, completion in draw(engine, SamplingParams(max_tokens=12, temperature=temperature, logprobs=True)).items():
        expected = logprobs_of(model, PROMPTS[number], completion.token_ids, temperature)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)


def test_a_group_computes_most_of_its_prompt_once(engine, model, monkeypatch):
    prompt = [40 + place % 50 for place in range(75)]
    shared = []
    if engine.name == "vllm":
        finished = engine._completion

        def watched(request, output, params):
            shared.append(output.num_cached_tokens)
            return finished(request, output, params)

        monkeypatch.setattr(engine, "_completion", watched)
    drawn = draw(engine, SamplingParams(max_tokens=8, logprobs=True), requests([prompt] * 4))
    for completion in drawn.values():
        expected = logprobs_of(model, prompt, completion.token_ids, 1.0)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)
    assert sorted(shared) in ([], [0, 64, 64, 64])


def test_a_draw_depends_on_its_seed_and_not_on_its_company(engine):
    params = SamplingParams(max_tokens=16, temperature=1.0)
    together = draw(engine, params)
    backwards = draw(engine, params, requests()[::-1])
    alone = draw(engine, params, [requests()[5]])
    assert {key: c.token_ids for key, c in backwards.items()} == {key: c.token_ids for key, c in together.items()}
    assert alone[5].token_ids == together[5].token_ids
    other = draw(engine, params, [Request(5, PROMPTS[5], 77)])
    assert other[5].token_ids != together[5].token_ids


def test_end_tokens_and_lengths(engine):
    end = engine.tokenizer.eos_token_id
    reasons = set()
    for completion in draw(engine, SamplingParams(max_tokens=100, temperature=2.0), [Request(n, [50], n) for n in range(40)]).values():
        reasons.add(completion.finish_reason)
        assert (completion.finish_reason == "stop") == (completion.token_ids[-1] == end)
        assert end not in completion.token_ids[:-1]
        assert completion.finish_reason == "stop" or len(completion.token_ids) == 100
    assert reasons == {"stop", "length"}


def test_a_stop_string_ends_a_completion_and_stays_in_its_text(engine):
    params = SamplingParams(max_tokens=60, temperature=1.5, stop=("an", "1"))
    drawn = draw(engine, params, [Request(n, [50], n) for n in range(8)])
    assert [completion.finish_reason for completion in drawn.values()] == ["stop"] * 8
    for completion in drawn.values():
        found = [completion.text.find(stop) for stop in ("an", "1") if stop in completion.text]
        assert completion.text.endswith(("an", "1"))
        assert min(found) >= len(completion.text) - 2


def test_a_closed_iterator_leaves_the_engine_usable(engine):
    params = SamplingParams(max_tokens=50, temperature=1.0)
    endless = engine.sample((Request(n, [60], n) for n in itertools.count()), params)
    assert next(endless).token_ids
    endless.close()
    assert len(draw(engine, params)) == len(PROMPTS)


def test_a_run_that_ends_does_not_wait_for_a_long_completion(engine):
    """Asked before every step (a server's answers: before each is waited for)."""
    asked = itertools.count()
    engine.stopping = lambda: next(asked) >= 1
    try:
        assert len(draw(engine, SamplingParams(max_tokens=MAX_LEN - 30), requests(PROMPTS[:3]))) <= (engine.name == "server")
    finally:
        engine.stopping = lambda: False
    assert next(asked) < 5
    assert sorted(draw(engine, SamplingParams(max_tokens=2))) == list(range(len(PROMPTS)))


def test_an_error_of_the_source_comes_after_what_was_begun(engine):
    def source():
        yield from requests()[:3]
        raise R1Error("line 4 is bad")

    seen: list = []
    with pytest.raises(R1Error, match="line 4"):
        seen.extend(completion.key for completion in engine.sample(source(), SamplingParams(max_tokens=8)))
    assert sorted(seen) == [0, 1, 2]


def test_a_prompt_without_room_is_refused(engine):
    with pytest.raises(R1Error, match="do not fit 128"):
        draw(engine, SamplingParams(max_tokens=MAX_LEN), [Request(0, [50], 0)])


def test_sampling_leaves_the_trainers_random_state_and_threads_alone(engine):
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    draw(engine, SamplingParams(max_tokens=4))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    torch.set_num_threads(threads)  # vLLM on a CPU replaces this function by one that only warns
    assert torch.is_grad_enabled()


def test_new_weights_are_the_ones_sampled_from(engine, tiny, tmp_path):
    """A tied model: the output layer must follow the embedding (vLLM on a CPU keeps a packed copy of it)."""
    params = SamplingParams(max_tokens=12, temperature=0.0, logprobs=True)
    other = AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path / "other", seed=1), dtype=torch.float32).eval()
    first = draw(engine, params)
    engine.load_weights(other.state_dict().items())
    for number, completion in draw(engine, params).items():
        assert completion.token_ids == greedy(other, PROMPTS[number], 12, engine.tokenizer.eos_token_id)
        expected = logprobs_of(other, PROMPTS[number], completion.token_ids, 1.0)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)
    original = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    engine.load_weights(original.named_parameters())
    assert {key: c.token_ids for key, c in draw(engine, params).items()} == {key: c.token_ids for key, c in first.items()}


def test_merged_adapters_are_what_is_sampled_from(engine, model):
    """The oracle is peft's own forward pass, with the adapter beside the weights."""
    pytest.importorskip("peft")
    params = SamplingParams(max_tokens=12, temperature=0.0, logprobs=True)
    first = draw(engine, params)
    adapted = copy.deepcopy(model)
    lora = add_lora(adapted, LoraConfig(rank=4))
    torch.manual_seed(2)
    with torch.no_grad():
        for weight in lora.weights().values():
            weight.add_(0.05 * torch.randn_like(weight))
    engine.load_weights(lora.merged(dict(adapted.named_parameters())))
    drawn = draw(engine, params)
    assert any(drawn[key].token_ids != first[key].token_ids for key in first)
    for number, completion in drawn.items():
        assert completion.token_ids == greedy(adapted, PROMPTS[number], 12, engine.tokenizer.eos_token_id)
        expected = logprobs_of(adapted, PROMPTS[number], completion.token_ids, 1.0)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)
    engine.load_weights(model.named_parameters())


def test_incomplete_weights_are_refused(tiny, model):
    engine = load_engine(str(tiny), engine="transformers", dtype="float32")
    with pytest.raises(R1Error, match="incomplete"):
        engine.load_weights(list(model.named_parameters())[:-1])
