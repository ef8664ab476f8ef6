"""Files of a model or of a checkpoint that are torn, missing or of another model: an error that names them and the way out."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from r1cli.commands.resuming import Standing, check_resumable
from r1cli.engines.model_files import end_ids
from r1cli.errors import R1Error
from r1cli.model_folder import load_tokenizer, loading
from r1cli.settings import DistillSettings, GrpoSettings, SftSettings
from r1cli.train.lora import ADAPTER, WEIGHTS
from r1cli.train.model import check_vocabulary, check_weights, load_config, load_reference
from tests.contract.conftest import Run, assert_error
from tests.contract.test_launch import rewind
from tests.contract.test_training import LESSONS
from tests.contract.test_training_survives import SFT, contents
from tests.tiny import tiny_tokenizer

Damage = Callable[[Path], Any]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def emptied(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("name", "damage", "load"),
    [
        ("model.safetensors", cut, check_weights),
        ("model.safetensors", emptied, check_weights),
        ("model.safetensors", cut, lambda folder: load_reference(folder, dtype="float32")),
        ("model.safetensors", Path.unlink, lambda folder: load_reference(folder, dtype="float32")),
        ("config.json", emptied, load_config),
        ("config.json", Path.unlink, load_config),
        ("tokenizer.json", cut, load_tokenizer),
        ("tokenizer.json", lambda path: path.write_text("{}"), load_tokenizer),
        ("tokenizer_config.json", emptied, load_tokenizer),
        ("generation_config.json", cut, lambda folder: end_ids(folder, SimpleNamespace(eos_token_id=1))),
        ("generation_config.json", lambda path: path.write_text("[]"), lambda folder: end_ids(folder, SimpleNamespace(eos_token_id=1))),
    ],
)
def test_a_damaged_model_is_named(model: Path, name: str, damage: Damage, load: Callable[[str], Any]) -> None:
    damage(model / name)
    with pytest.raises(R1Error, match=f"`{model}.*(cannot be|is not)") as caught:
        load(str(model))
    assert caught.value.code == 2 and caught.value.hint == "copy or fetch the folder again"


def test_weights_of_another_shape_are_named_and_other_errors_pass(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))
    with pytest.raises(R1Error, match=r"its weights have other shapes than its config.json says"):
        load_reference(str(model), dtype="float32")
    with pytest.raises(RuntimeError, match="out of memory"), loading(model):
        raise RuntimeError("out of memory")
    with pytest.raises(R1Error, match="the machine has no memory for it") as caught, loading(model):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")  # of mapping a whole file
    assert caught.value.code == 3 and "fetch" not in (caught.value.hint or "")
    with pytest.raises(R1Error, match=r"^mine$"), loading(model):
        raise R1Error("mine")


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(model: Path) -> None:
    tokenizer, config = tiny_tokenizer(), load_config(str(model))
    assert check_vocabulary("model", tokenizer, config) == frozenset()
    tokenizer.add_tokens([f"<extra_{number}>" for number in range(400)])
    with pytest.raises(R1Error, match=r"the tokenizer of `model` has .* tokens, the model 384") as caught:
        check_vocabulary("model", tokenizer, config)
    assert caught.value.code == 2 and "resize_token_embeddings" in (caught.value.hint or "")


def test_a_special_token_that_nothing_writes_may_have_no_row(model: Path) -> None:
    """As Gemma 3's text models are published, with the tokenizer of those that see."""
    config = load_config(str(model))
    for used in (None, "eos_token", "chat_template", "model"):
        tokenizer = tiny_tokenizer(385 if used == "model" else 384)
        config.vocab_size = len(tokenizer) - (used == "model")
        tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"]})
        image = tokenizer.convert_tokens_to_ids("<image>")
        if used == "eos_token":
            tokenizer.eos_token = "<image>"
        elif used == "chat_template":
            tokenizer.chat_template += "<image>"
        if used is None:
            assert check_vocabulary("model", tokenizer, config) == {image}
        else:
            with pytest.raises(R1Error, match=r"has .* tokens, the model"):
                check_vocabulary("model", tokenizer, config)


@pytest.mark.parametrize(
    ("name", "damage", "lora"),
    [
        ("training_state.pt", Path.unlink, None),
        ("random_state_0.pt", Path.unlink, None),
        ("grpo_progress_0.pt", Path.unlink, None),
        ("model.safetensors", Path.unlink, None),
        ("model.safetensors", cut, None),
        ("config.json", Path.unlink, None),
        (f"{ADAPTER}/{WEIGHTS}", cut, 4),
        (f"{ADAPTER}/{WEIGHTS}", Path.unlink, 4),
    ],
)
def test_a_damaged_checkpoint_is_to_be_removed(model: Path, tmp_path: Path, name: str, damage: Damage, lora: int | None) -> None:
    folder = tmp_path / "run/checkpoints/step_000004"
    shutil.copytree(model, folder)
    (folder / ADAPTER).mkdir()
    shutil.copy(model / "model.safetensors", folder / ADAPTER / WEIGHTS)
    for state in ("training_state.pt", "random_state_0.pt", "grpo_progress_0.pt"):
        torch.save({}, folder / state)
    accelerator: Any = SimpleNamespace(distributed_type="NO", num_processes=1)
    settings = GrpoSettings(inputs=[], model=str(model), out=str(tmp_path / "run"), lora=lora)
    check_resumable(accelerator, settings, Standing(None, 4), str(tmp_path))
    damage(folder / name)
    with pytest.raises(R1Error) as caught:
        check_resumable(accelerator, settings, Standing(None, 4), str(tmp_path))
    assert str(folder) in caught.value.message and caught.value.code == 2
    assert caught.value.hint == f"remove `{folder}`: --resume then takes the checkpoint before it"


@pytest.mark.parametrize(("way", "needed"), [("sft", True), ("distill", True), ("on policy", False)])
def test_what_alarms_remember_is_part_of_a_checkpoint(model: Path, tmp_path: Path, way: str, needed: bool) -> None:
    """Of those that have it; a student that samples has no alarms."""
    folder = tmp_path / "run/checkpoints/step_000004"
    shutil.copytree(model, folder)
    for state in ("training_state.pt", "random_state_0.pt"):
        torch.save({}, folder / state)
    here: dict[str, Any] = {"inputs": [], "out": str(tmp_path / "run")}
    distill = DistillSettings(**here, student=str(model), on_policy=way == "on policy")
    settings = SftSettings(**here, model=str(model)) if way == "sft" else distill
    accelerator: Any = SimpleNamespace(distributed_type="NO", num_processes=1)
    if needed:
        with pytest.raises(R1Error, match=f"`{folder}` has no `alarms.json` to resume from") as caught:
            check_resumable(accelerator, settings, Standing(None, 4), str(tmp_path))
        assert caught.value.hint == f"remove `{folder}`: --resume then takes the checkpoint before it"
        (folder / "alarms.json").write_text("{}")
    check_resumable(accelerator, settings, Standing(None, 4), str(tmp_path))


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(r1: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "lessons.jsonl").write_text(LESSONS)
    words = ["sft", "--model", str(model), *SFT, "--save-every", "1", "--keep", "9", "lessons.jsonl", "-o", "run"]
    weights = (model / "model.safetensors").read_bytes()
    cut(model / "model.safetensors")
    assert_error(r1(*words), 2, f"`{model}/model.safetensors` cannot be loaded", "copy or fetch the folder again")
    assert not (tmp_path / "run").exists()
    (model / "model.safetensors").write_bytes(weights)
    assert r1(*words).returncode == 0
    rewind(tmp_path / "run", 5)
    cut(tmp_path / "run/checkpoints/step_000005/model.safetensors")
    before = contents(tmp_path / "run")
    wrong = "`run/checkpoints/step_000005/model.safetensors` cannot be loaded"
    assert_error(r1(*words, "--resume"), 2, wrong, "remove `run/checkpoints/step_000005`: --resume then takes the checkpoint before it")
    assert contents(tmp_path / "run") == before
    shutil.rmtree(tmp_path / "run/checkpoints/step_000005")
    with (tmp_path / "run/metrics.jsonl").open("ab") as file:
        file.write(b"\0" * 200 + b"\n")
    done = r1(*words, "--resume")
    assert done.returncode == 0 and "resuming `run/checkpoints/step_000004`" in done.stderr, done.stderr
    assert "1 damaged lines left out" in done.stderr
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run/final") is not None
