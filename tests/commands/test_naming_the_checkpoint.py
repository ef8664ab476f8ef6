"""A run that breaks names the checkpoint to go on from."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from r1cli.commands.training import Training
from r1cli.errors import R1Error
from r1cli.io import manifest
from r1cli.io.checkpoint_folders import checkpoint_folder
from r1cli.train.update import NotFinite


def broken(run: Path) -> R1Error:
    training = SimpleNamespace(settings=SimpleNamespace(out=str(run)))
    with pytest.raises(NotFinite) as caught, Training.naming_the_checkpoint(training):  # type: ignore[arg-type]
        raise NotFinite("the loss of step 31 is not finite (nan); the weights were not touched", hint="lower --lr")
    return caught.value


def test_the_last_whole_checkpoint_is_named(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        checkpoint_folder(tmp_path, step).mkdir(parents=True)
    for step in (10, 20):
        manifest.write(checkpoint_folder(tmp_path, step), command="checkpoint", started=0.0, step=step)
    error = broken(tmp_path)
    assert error.message.endswith(f"the weights were not touched; the last checkpoint is `{checkpoint_folder(tmp_path, 20)}`")
    assert (error.hint, error.code) == ("lower --lr", 1)


def test_without_one_it_says_so(tmp_path: Path) -> None:
    assert broken(tmp_path).message.endswith("; there is no checkpoint yet")


def test_other_errors_pass_as_they_are(tmp_path: Path) -> None:
    training = SimpleNamespace(settings=SimpleNamespace(out=str(tmp_path)))
    with pytest.raises(R1Error, match=r"^full disk$"), Training.naming_the_checkpoint(training):  # type: ignore[arg-type]
        raise R1Error("full disk")
