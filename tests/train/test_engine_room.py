"""Prompts that the engine has no room for are not drawn: a run of `r1 grpo` in this process, on an engine with a shorter context."""

import io
import json
from pathlib import Path
from typing import Any

from r1cli.commands import grpo_run
from r1cli.guard import Context
from r1cli.report.console import Console
from r1cli.row import Row
from r1cli.settings import GrpoSettings
from r1cli.shared_settings import Changing
from r1cli.train.grpo_config import Prompts

SHORT, LONG = Row({"id": "short", "prompt": "1 + 1?", "answer": "2"}), Row({"id": "long", "prompt": "1 + 1? " * 200, "answer": "2"})


def test_a_run_leaves_out_what_its_engine_has_no_room_for_and_says_so(accelerator: Any, tiny: Path, tmp_path: Path) -> None:
    """The tiny model has 512 positions. Without this the draw of a longer prompt would end the run in its first step."""
    said = io.StringIO()
    settings = GrpoSettings(
        inputs=[], model=str(tiny), out=str(tmp_path / "run"), steps=1, prompts_per_step=2, group_size=2, rewards="accuracy",
        max_completion_length=Changing("4"), held_out_every=1, engine="transformers", dtype="float32", beta=0.0,
    )  # fmt: skip
    prompts, context = Prompts([(0, [LONG, SHORT, LONG])]), Context("grpo", {}, Console(stream=said, progress=False))
    grpo_run.train(settings, context, str(tiny), prompts, [SHORT, LONG], [], 0.0)
    for number in (2, 1):  # of the prompts, and of the problems of --held-out
        left_out = f"{number} prompts left out: longer than what the engine's 512 leave beside --max-completion-length: 508 tokens"
        assert left_out in said.getvalue()
    [line] = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert line["held_out/problems"] == 1.0
    drawn = [json.loads(line)["id"] for line in (tmp_path / "run/samples.jsonl").read_text().splitlines()]
    assert set(drawn) == {"short"}
    assert json.loads((tmp_path / "run/manifest.json").read_text())["counts"]["prompts"] == 1
