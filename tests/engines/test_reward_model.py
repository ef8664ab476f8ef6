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


def adapter(path: Path, base: Path, seed: int) -> Path:
    """A LoRA adapter with a last layer of its own, as peft saves it, beside the base's tokenizer."""
    peft = pytest.importorskip("peft")
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj"], init_lora_weights=False, modules_to_save=["score"])
    torch.manual_seed(seed)
    wrapped = peft.get_peft_model(model, config)
    torch.nn.init.normal_(wrapped.base_model.model.score.modules_to_save["default"].weight)
    wrapped.save_pretrained(path)
    AutoTokenizer.from_pretrained(base).save_pretrained(path)
    return path


def test_adapters_on_one_base_hold_it_once_and_score_as_peft_does(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = tiny_model(tmp_path / "base")
    folders = [adapter(tmp_path / name, base, seed) for seed, name in enumerate(("a", "b"))]
    loaded = [load_reward_model(str(folder), name="h", dtype="float32") for folder in folders]
    for folder, model in zip(folders, loaded, strict=True):
        plain = peft.PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(base, num_labels=1), folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(base)
        expected = []
        for prompt, reply in CONVERSATIONS:
            messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]
            with torch.inference_mode():
                expected.append(plain(input_ids=tokenizer.apply_chat_template(messages, return_tensors="pt")["input_ids"]).logits.item())
        assert model.score(CONVERSATIONS) == pytest.approx(expected, abs=1e-4)
    one, two = ({n: w.data_ptr() for n, w in model._model.named_parameters()} for model in loaded)
    same = {name for name in one if one[name] == two[name]}
    assert {name for name in one if "lora_" in name or "modules_to_save" in name}.isdisjoint(same)
    assert {name for name in one if "proj" in name and "lora_" not in name} <= same


def test_an_adapter_without_a_last_layer_is_refused(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = tiny_model(tmp_path / "base")
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path / "a")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "a")
    with pytest.raises(R1Error, match="does not hold the last layer `score`"):
        load_reward_model(str(tmp_path / "a"), name="h")
