"""What SFT keeps beside a checkpoint."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r1cli.commands.sft_run import MEMORY, Wiring, _remember, _remembered, plan
from r1cli.commands.stopping import Stopper
from r1cli.errors import R1Error
from r1cli.guard import Context
from r1cli.report.console import Console
from r1cli.row import Row
from r1cli.settings import SftSettings


@pytest.mark.parametrize("main", [True, False])
def test_what_alarms_remember_is_written_by_the_main_process_alone(tmp_path: Path, main: bool) -> None:
    _remember(SimpleNamespace(is_main_process=main), tmp_path, {"held_out_loss": [1.5]})
    assert (tmp_path / MEMORY).exists() is main
    assert _remembered(tmp_path) == ({"held_out_loss": [1.5]} if main else {})
    assert not main or json.loads((tmp_path / MEMORY).read_text()) == {"held_out_loss": [1.5]}


@pytest.mark.parametrize("text", ['{"said overf', "[1.0]", "\0\0\0"])
def test_a_torn_memory_is_of_a_checkpoint_to_be_removed(tmp_path: Path, text: str) -> None:
    """To remove the file alone would be to go on without what alarms remember."""
    (tmp_path / MEMORY).write_text(text)
    with pytest.raises(R1Error, match=f"`{tmp_path}/{MEMORY}` is not what a checkpoint of r1 holds") as caught:
        _remembered(tmp_path)
    assert caught.value.code == 2 and caught.value.hint == f"remove `{tmp_path}`: --resume then takes the checkpoint before it"


@pytest.mark.parametrize("stop_on", ["diverging,overfitting", "diverging"])
def test_an_alarm_that_ended_the_run_is_named_when_it_goes_on(tmp_path: Path, stop_on: str) -> None:
    (tmp_path / MEMORY).write_text(json.dumps({"said overfitting": [1.0], "stopped overfitting": [1.0], "said diverging": [1.0]}))
    said: list[str] = []
    context = SimpleNamespace(console=SimpleNamespace(warn=said.append))
    training: Any = SimpleNamespace(settings=SimpleNamespace(stop_on=stop_on), checkpoint=tmp_path, context=context)
    Wiring(training, Stopper(), None, 4)  # type: ignore[arg-type]
    assert [line.partition(":")[0] for line in said] == ["--stop-on overfitting has ended this run before"] * ("over" in stop_on)


def test_a_dry_run_looks_at_the_held_out_rows(tiny: Path) -> None:
    """One that does not fit the model's context passed the dry run, and ended the run."""
    heard = io.StringIO()
    context = Context("sft", {}, Console(stream=heard, progress=False))
    settings = SftSettings(inputs=[], model=str(tiny), out="run", template="raw", max_length=4096)
    rows = [Row({"id": name, "prompt": "1 + 1?", "completion": text}) for name, text in (("good", "2"), ("long", "word " * 600))]
    plan(settings, context, str(tiny), rows[:1], rows[:1])
    assert "would measure the loss of 1 held-out rows" in heard.getvalue()
    with pytest.raises(R1Error, match=r"^held-out rows: context: .* the model was made for 512 \(row `long`\)"):
        plan(settings, context, str(tiny), rows[:1], rows)
