"""A checkpoint that a training run removes while another command reads it is named, whatever the library says of the path."""

import shutil
from pathlib import Path

import pytest

from r1cli.commands.gone import naming_gone
from r1cli.errors import R1Error
from r1cli.io.hub import model_folder
from r1cli.io.run_dir import RunDir
from r1cli.io.whole_folder import remove
from r1cli.settings import SftSettings


@pytest.fixture
def run(tiny: Path, tmp_path: Path) -> Path:
    settings = SftSettings(model="m", out=str(tmp_path / "run"), inputs=[], keep=1)
    with RunDir.open(settings.out, settings=settings, sources={}, command="sft") as opened, opened.checkpoint(4) as folder:
        shutil.copytree(tiny, folder, dirs_exist_ok=True)
    return tmp_path / "run"


def test_what_the_library_says_becomes_what_happened(run: Path) -> None:
    from transformers import AutoTokenizer

    folder = Path(model_folder(str(run)))
    assert folder.name == "step_000004"
    shutil.copytree(folder, run / "checkpoints" / "step_000008")
    remove(folder)
    with pytest.raises(R1Error, match=r"step_000004` was removed while it was read: .*\(--keep\)") as caught, naming_gone():
        AutoTokenizer.from_pretrained(str(folder))
    assert "step_000008` is the newest now" in (caught.value.hint or "")
    assert caught.value.code == 1


def test_half_of_it_gone_is_gone(run: Path) -> None:
    folder = Path(model_folder(str(run)))
    (folder / "manifest.json").unlink()
    (folder / "model.safetensors").unlink()
    with pytest.raises(R1Error, match="was removed while it was read"), naming_gone():
        raise R1Error(f"`{folder}` has no weights")
    with pytest.raises(FileNotFoundError), naming_gone():
        raise FileNotFoundError("another file")


def test_one_that_is_there_keeps_its_own_error(run: Path) -> None:
    folder = Path(model_folder(str(run)))
    with pytest.raises(R1Error, match="is torn"), naming_gone():
        raise R1Error(f"`{folder}` is torn")


def test_gone_as_soon_as_it_was_chosen(run: Path) -> None:
    """Between the choice of the newest and the look at its files."""
    with pytest.raises(R1Error, match="was removed while it was read"), naming_gone():
        model_folder(str(run), say=lambda text: remove(run / "checkpoints" / "step_000004"))
