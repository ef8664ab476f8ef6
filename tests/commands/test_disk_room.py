"""What the disk must hold: as much as the run is still going to write."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from r1cli.commands.disk_room import check_room
from r1cli.errors import R1Error


@pytest.mark.parametrize("limit", [{"save_every": 1}, {"save_every": 0, "time_limit": 60.0}])
@pytest.mark.parametrize(("start", "refused"), [(2, True), (3, False), (4, False), (5, False)])
def test_a_run_that_has_only_its_model_to_save_needs_no_room_for_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: int, refused: bool, limit: dict[str, float]
) -> None:
    """Of 4 steps, a checkpoint after each but the last, or wherever the time ends. Moments make a checkpoint thrice the model; the disk
    holds half of it."""
    weight = torch.nn.Parameter(torch.zeros(1000))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=6000))
    training = SimpleNamespace(
        run=SimpleNamespace(path=tmp_path),
        policy=SimpleNamespace(parameters=lambda: [weight]),
        reference=None,
        merged=True,
        settings=SimpleNamespace(keep=2, **limit),
        start_step=start,
        context=SimpleNamespace(console=SimpleNamespace(warn=lambda text: None)),
    )
    if refused:
        with pytest.raises(R1Error, match=r"a checkpoint takes 0\.0114 MiB, and the disk of .* has 0\.00572 MiB free"):
            check_room(training, 4)  # type: ignore[arg-type]
    else:
        check_room(training, 4)  # type: ignore[arg-type]
