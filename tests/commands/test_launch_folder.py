"""The folder of a launch goes at its end, and when its launch was killed at the next one's start."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from r1cli.commands import launch_folder


def test_folders_of_launches_that_were_killed_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = "from r1cli.commands.launch_folder import own_folder\nwith own_folder() as folder: print(folder, flush=True); input()"
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", program], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdin is not None
    left = Path(process.stdout.readline().strip())
    (left / "stdin").touch()
    with launch_folder.own_folder() as own:
        assert own.is_dir() and left.is_dir()
    os.utime(left, (0, 0))
    with launch_folder.own_folder():
        assert left.is_dir(), "it is old, and its launch still runs"
    process.kill()
    process.communicate()
    elsewhere = tmp_path / "r1-launch-another-machine-x"
    elsewhere.mkdir()
    os.utime(elsewhere, (0, 0))
    with launch_folder.own_folder() as own:
        assert not left.exists() and elsewhere.is_dir()
    assert not own.exists()
