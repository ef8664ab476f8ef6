"""torch's files of a checkpoint: nothing in them is executed, and what they cannot be is said with their name."""

import io
import pickle
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from r1cli.errors import R1Error
from r1cli.train.checkpoints import STATE, load_state
from r1cli.train.progress import Progress
from r1cli.train.random_states import load_random
from r1cli.train.state_files import read, write, writing


class Hostile:
    """A pickle that touches a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def in_torchs_way(thing: Any, path: Path) -> None:
    torch.save(thing, path)


def in_an_old_way(thing: Any, path: Path) -> None:
    torch.save(thing, path, _use_new_zipfile_serialization=False)


def bare(thing: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(thing))


def loaded(name: str, folder: Path, accelerator: Any) -> None:
    """Read a file of a checkpoint as a resumed run does."""
    if name == STATE:
        load_state(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))]), folder)
    elif name == "grpo_progress_0.pt":
        Progress.load(folder, 0, 1)
    else:
        load_random(accelerator, folder)


FILES = [STATE, "grpo_progress_0.pt", "random_state_0.pt"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("save", [in_torchs_way, in_an_old_way, bare])
def test_a_hostile_file_is_refused_by_name(accelerator: Any, tmp_path: Path, name: str, save: Any) -> None:
    mark = tmp_path / "mark"
    save({"step": 1, "optimizer": Hostile(mark), "processes": 1}, tmp_path / name)
    with pytest.raises(R1Error, match=rf"`.*{name}` is not what a checkpoint of r1 holds: ") as caught:
        loaded(name, tmp_path, accelerator)
    assert caught.value.code == 2 and "--resume then takes the checkpoint before it" in (caught.value.hint or "")
    assert "\n" not in caught.value.message and not mark.exists()
    pickle.loads(pickle.dumps(Hostile(mark)))
    assert mark.exists(), "it would have"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", ["torn", "empty", "text", "a list", "a name less"])
def test_a_file_that_is_something_else_is_refused_by_name(accelerator: Any, tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    if content in ("torn", "empty", "text"):
        torch.save({"step": 1, "weights": torch.ones(1000)}, path)
        path.write_bytes({"torn": path.read_bytes()[:2000], "empty": b"", "text": b"not torch's"}[content])
    else:
        torch.save([1, 2] if content == "a list" else {"step": 1}, path)
    with pytest.raises(R1Error, match=rf"`.*{name}` is not what a checkpoint of r1 holds: "):
        loaded(name, tmp_path, accelerator)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write({"step": 3, "weights": torch.arange(5)}, tmp_path / "a.pt")
    for mmap in (False, True):
        found = read(tmp_path / "a.pt", "step", mmap=mmap)
        assert found["step"] == 3 and torch.equal(found["weights"], torch.arange(5))


def test_a_signal_amid_torchs_writing_is_no_error_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(io.BytesIO):
        def write(self, data: Any) -> int:
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "open", lambda path, mode: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        write({"weights": torch.ones(5)}, tmp_path / "a.pt")


def test_a_full_disk_is_an_error_of_the_disk(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        for state in ({"weights": torch.ones(1 << 17)}, {"many": [torch.ones(9) for _ in range(1000)]}):
            with pytest.raises(OSError) as caught:
                write(state, tmp_path / "a.pt")
            assert caught.value.strerror == "File too large"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    for theirs in (SafetensorError("Error while serializing: I/O error: File too large (os error 27)"), RuntimeError("file write failed")):
        with pytest.raises(OSError, match=r"File too large|file write failed"), writing():
            raise theirs
