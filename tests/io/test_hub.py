"""Which model a name means, and what is said when it means none."""

import json
from pathlib import Path

import pytest

from r1cli.errors import R1Error
from r1cli.io.hub import model_folder
from r1cli.io.run_dir import RunDir


def model(path: Path, *without: str, **config: object) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    files = {"config.json": json.dumps({"model_type": "llama", **config}), "model.safetensors": "", "tokenizer.json": "{}"}
    for name, text in files.items():
        if name not in without:
            (path / name).write_text(text)
    return path


def refused(name: Path | str) -> R1Error:
    with pytest.raises(R1Error) as caught:
        model_folder(str(name))
    return caught.value


def test_a_model_folder_is_itself(tmp_path: Path) -> None:
    assert model_folder(str(model(tmp_path / "m"))) == str(tmp_path / "m")


def test_what_a_folder_lacks_is_named(tmp_path: Path) -> None:
    no_config = refused(model(tmp_path / "a", "config.json"))
    assert no_config.message == f"`{tmp_path / 'a'}` is not a model folder: no `config.json`"
    assert no_config.hint == "it holds `model.safetensors`, `tokenizer.json`"
    no_weights = refused(model(tmp_path / "b", "model.safetensors"))
    assert "has no weights (looked for model.safetensors, model.safetensors.index.json, pytorch_model.bin)" in no_weights.message
    assert "has no tokenizer" in refused(model(tmp_path / "c", "tokenizer.json")).message
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty").hint == "the folder is empty"
    assert {error.code for error in (no_config, no_weights)} == {2}


def test_every_shard_must_be_there(tmp_path: Path) -> None:
    path = model(tmp_path / "m", "model.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}))
    (path / "m-1.safetensors").write_text("")
    assert refused(path).message == f"`{path}` lacks 1 of 2 weight files, the first is `m-2.safetensors`"
    (path / "m-2.safetensors").write_text("")
    assert model_folder(str(path)) == str(path)


def test_weights_that_can_run_code_and_code_itself_are_asked_for(tmp_path: Path) -> None:
    pickled = model(tmp_path / "a", "model.safetensors")
    (pickled / "pytorch_model.bin").write_text("")
    assert "safetensors" in (refused(pickled).hint or "")
    assert model_folder(str(pickled), trust_remote_code=True) == str(pickled)
    own_code = model(tmp_path / "b", auto_map={"AutoModel": "x.Y"})
    assert "--trust-remote-code" in (refused(own_code).hint or "")
    assert model_folder(str(own_code), trust_remote_code=True) == str(own_code)


def test_other_kinds_of_folder_are_told_apart(tmp_path: Path) -> None:
    gguf = model(tmp_path / "a", "model.safetensors")
    (gguf / "m.gguf").write_text("")
    assert "GGUF" in refused(gguf).message
    adapter = model(tmp_path / "b", "config.json")
    (adapter / "adapter_config.json").write_text("{}")
    assert "adapter" in refused(adapter).message
    (gguf / "config.json").write_text("{")
    assert "cannot be read" in refused(gguf).message
    assert "is a file, not a model folder" in refused(gguf / "m.gguf").message


def test_a_run_directory_stands_for_its_final_model_or_its_newest_checkpoint(tmp_path: Path) -> None:
    said: list[str] = []
    run = RunDir.open(tmp_path / "run", settings={}, sources={}, command="sft")
    assert "has no model yet" in refused(run.path).message
    with run.checkpoint(3) as folder:
        model(folder)
    assert model_folder(str(run.path), say=said.append) == str(run.path / "checkpoints" / "step_000003")
    assert said == [f"`{run.path}` has no final model: taking its checkpoint `step_000003`"]
    model(run.final)
    run.finish({"command": "sft"})
    assert model_folder(str(run.path), say=said.append) == str(run.final)
    assert len(said) == 1


def test_names_that_are_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model(tmp_path / "runs" / "cold-start")
    assert refused("runs/coldstart").hint == "did you mean `runs/cold-start`?"  # no hub name: the folder runs/ is here
    assert refused("gpt2").message == "no such model folder: `gpt2`"
    assert refused("/no/such/model").code == 2


def test_hub_names_go_through_unless_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert model_folder("org/name-1.5B", say=said.append) == "org/name-1.5B"
    assert said == ["fetching model `org/name-1.5B` from the Hugging Face hub"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert refused("org/name-1.5B").code == 3
    (tmp_path / "hf" / "hub" / "models--org--name-1.5B" / "snapshots" / "abc").mkdir(parents=True)
    assert model_folder("org/name-1.5B", say=said.append) == "org/name-1.5B"
    assert len(said) == 1
