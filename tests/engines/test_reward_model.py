"""Reward models in this process, compared with transformers' own forward pass of one conversation at a time."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from r1cli.engines import reward_model
from r1cli.engines.reward_model import load_reward_model
from r1cli.errors import R1Error
from tests.tiny import tiny_model
from tests.tiny_reward import tiny_reward_model

CONVERSATIONS = [(f"What is {n}?", "word " * (n * n % 11) + "end") for n in range(12)]


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_model, "_loaded", {})


def plainly(folder: Path) -> list[float]:
    """The logits as transformers gives them, without batches and padding."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    found = []
    for prompt, reply in CONVERSATIONS:
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]
        ids = tokenizer.apply_chat_template(messages, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            found.append(model(input_ids=ids).logits.item())
    return found


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("tokens", [1, 200, 0])
def test_scores_are_those_of_transformers_whatever_the_batches(tmp_path: Path, pad: bool, tokens: int) -> None:
    folder = tiny_reward_model(tmp_path / "rm", pad=pad)
    model = load_reward_model(str(folder), name="h", dtype="float32", batch_tokens=tokens)
    assert model.score(CONVERSATIONS) == pytest.approx(plainly(folder), abs=1e-5)


def test_in_bfloat16_the_last_layer_is_exact(tmp_path: Path) -> None:
    folder = tiny_reward_model(tmp_path / "rm")
    scores = load_reward_model(str(folder), name="h", dtype="bfloat16").score(CONVERSATIONS)
    assert any(torch.tensor(score).bfloat16().item() != score for score in scores), "a logit in bfloat16 has 8 bits"
    assert scores == pytest.approx(plainly(folder), abs=0.3)


def test_a_conversation_beyond_the_context_has_no_score(tmp_path: Path) -> None:
    folder = tiny_reward_model(tmp_path / "rm", max_length=64)
    model = load_reward_model(str(folder), name="h", dtype="float32")
    assert model.max_length == 64
    short, long = model.score([("Hi", "there"), ("Hi", "there " * 100)])
    assert long is None and short == pytest.approx(model.score([("Hi", "there")])[0], abs=1e-5)


def test_a_folder_is_loaded_once_and_equal_weights_are_held_once(tmp_path: Path) -> None:
    first, second, other = (
        tiny_reward_model(tmp_path / name, seed=seed, head_seed=head) for name, seed, head in (("a", 0, 0), ("b", 0, 1), ("c", 1, 1))
    )
    one, again, two, three = (load_reward_model(str(folder), name="h", dtype="float32")._model for folder in (first, first, second, other))
    assert one is again
    places = [[weight.data_ptr() for weight in model.model.parameters() if weight.dim() == 2] for model in (one, two, three)]
    assert places[0] == places[1] and not set(places[0]) & set(places[2])
    assert one.score.weight.data_ptr() != two.score.weight.data_ptr()
    fresh = load_reward_model(str(second), name="h", dtype="float32").score(CONVERSATIONS)
    assert fresh == pytest.approx(plainly(second), abs=1e-5)


def test_what_is_no_reward_model_is_refused(tmp_path: Path) -> None:
    two = tiny_reward_model(tmp_path / "two", labels=2)
    language = tiny_model(tmp_path / "lm")
    bare = tiny_reward_model(tmp_path / "bare", chat_template=None)
    for folder, message in ((two, "it has 2 labels"), (language, "it has 2 labels"), (bare, "reward model `h` has no chat template")):
        with pytest.raises(R1Error, match=message) as caught:
            load_reward_model(str(folder), name="h")
        assert caught.value.code == 2 and caught.value.hint
    assert load_reward_model(str(bare), name="h", template="plain").score([("Hi", "there")])


def test_a_missing_last_layer_is_not_made_up(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "lm")
    config = (folder / "config.json").read_text().replace('"vocab_size"', '"id2label": {"0": "score"}, "vocab_size"')
    (folder / "config.json").write_text(config)
    with pytest.raises(R1Error, match=r"`score.weight` is not among its weights and would be random"):
        load_reward_model(str(folder), name="h")
