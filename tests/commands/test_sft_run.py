"""What SFT keeps beside a checkpoint."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from r1cli.commands.sft_run import MEMORY, _remember, _remembered


@pytest.mark.parametrize("main", [True, False])
def test_what_alarms_remember_is_written_by_the_main_process_alone(tmp_path: Path, main: bool) -> None:
    _remember(SimpleNamespace(is_main_process=main), tmp_path, {"held_out_loss": [1.5]})
    assert (tmp_path / MEMORY).exists() is main
    assert _remembered(tmp_path) == ({"held_out_loss": [1.5]} if main else {})
    assert not main or json.loads((tmp_path / MEMORY).read_text()) == {"held_out_loss": [1.5]}
