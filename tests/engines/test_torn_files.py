"""Files of a model folder that a broken copy left torn: one error that names the file, before an engine starts."""

import shutil
from pathlib import Path

import pytest

from r1cli.engines import load
from r1cli.engines.load import Remote, load_engine
from r1cli.engines.parallel import ParallelEngine
from r1cli.engines.reward_model import load_reward_model
from r1cli.errors import R1Error
from r1cli.model_folder import load_tokenizer


def torn(tiny: Path, folder: Path, name: str) -> str:
    """A copy of a model of which one file is half there."""
    shutil.copytree(tiny, folder)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    return str(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"])
@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_the_file_is_named_before_an_engine_starts(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, engine: str
) -> None:
    folder = torn(tiny, tmp_path / "m", name)
    monkeypatch.setattr(load, "check_engine", lambda *args, **options: None)  # vLLM need not be here: it is not asked
    with pytest.raises(R1Error, match=f"m/{name}` cannot be") as error:
        load_engine(folder, engine=engine)
    assert (error.value.code, error.value.hint) == (2, "copy or fetch the folder again")


def test_so_it_is_with_several_processes_and_with_reward_models(tiny: Path, tmp_path: Path) -> None:
    folder = torn(tiny, tmp_path / "m", "model.safetensors")
    with pytest.raises(R1Error, match=r"m/model.safetensors` cannot be loaded"):
        ParallelEngine(folder, 2, {"batch_size": 1, "trust_remote_code": False})
    with pytest.raises(R1Error, match=r"m/model.safetensors` cannot be loaded"):
        load_reward_model(folder, name="helpful")


def test_a_tokenizer_that_is_none(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "m")
    (folder / "tokenizer.json").write_text('{"model": {"type": "no such"}}')
    for attempt in (
        lambda: load_tokenizer(str(folder), trust_remote_code=False),
        lambda: load_engine(str(folder), engine="server", remote=Remote(urls=("http://127.0.0.1:1",), patience=0.1)),
    ):
        with pytest.raises(R1Error, match=r"the tokenizer of `.*m` cannot be loaded") as error:
            attempt()
        assert error.value.code == 2
