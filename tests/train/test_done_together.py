"""Of several processes that find their run done, none ends before the main one has written the manifest that was missing."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r1cli.commands.resuming import say_done
from r1cli.io import manifest


@pytest.mark.parametrize("whole", [False, True])
def test_the_others_wait_for_the_main_process(tmp_path: Path, whole: bool) -> None:
    """Threads stand for processes. The main one is slow, as it is with large inputs to hash."""
    (tmp_path / "final").mkdir()
    manifest.write(tmp_path / "final", command="checkpoint", step=4)
    if whole:
        manifest.write(tmp_path, command="sft")
    meeting = threading.Barrier(2)
    came: list[str] = []

    def facts() -> dict[str, Any]:
        time.sleep(0.3)
        came.append("written")
        return {"counts": {"steps": 4}}

    def process(is_main: bool) -> None:
        waits, ends = (lambda: meeting.wait(timeout=30)), (lambda: came.append("ended"))
        accelerator = SimpleNamespace(is_main_process=is_main, wait_for_everyone=waits, end_training=ends)
        context = SimpleNamespace(command="sft", console=SimpleNamespace(summary=lambda lines: came.extend(lines[:1])))
        training: Any = SimpleNamespace(settings=SimpleNamespace(out=str(tmp_path)), context=context, accelerator=accelerator)
        say_done(training, facts)

    both = [threading.Thread(target=process, args=(is_main,)) for is_main in (True, False)]
    for one in both:
        one.start()
    for one in both:
        one.join(timeout=60)
    assert sorted(came) == sorted([*([] if whole else ["written"]), *["sft: already done, 4 steps", "ended"] * 2])
    assert whole or came[0] == "written"
