"""What `r1 distill --on-policy` looks at before weights are loaded."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r1cli.commands import distill, on_policy_run
from r1cli.errors import R1Error
from r1cli.guard import Context
from r1cli.io.fields import FieldMap
from r1cli.io.stream import RowReader
from r1cli.report.console import Console
from r1cli.row import Row
from r1cli.settings import DistillSettings
from r1cli.text.prompts import PromptRenderer
from tests.tiny import CHAT_TEMPLATE, tiny_model, tiny_tokenizer

PROMPTS = [Row({"id": n, "prompt": "What is 1 + 1?" * (1 + 20 * n)}) for n in range(2)]


class Loaded(Exception):
    """Weights would be loaded now."""


def prepare(monkeypatch: pytest.MonkeyPatch, student: Path, teacher: Path, *, dry: bool = False, **values: Any) -> str:
    """What was said before weights are loaded, or before the plan of a dry run."""
    heard = io.StringIO()

    def stop(*given: Any, **named: Any) -> None:
        raise Loaded

    monkeypatch.setattr(on_policy_run, "Training", stop)
    settings = DistillSettings(student=str(student), teacher=str(teacher), out="run", inputs=[], on_policy=True, **values)
    context = Context("distill", {}, Console(stream=heard))
    if dry:
        on_policy_run.plan(settings, context, str(student), PROMPTS, RowReader([], FieldMap(()), None, False))
    else:
        with pytest.raises(Loaded):
            on_policy_run.train(settings, context, str(student), PROMPTS, None, 0.0)  # type: ignore[arg-type]
    return heard.getvalue()


@pytest.mark.parametrize("dry", [False, True])
def test_a_completion_that_either_model_has_no_positions_for_fails(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry: bool
) -> None:
    short = tiny_model(tmp_path / "short", max_length=64)
    assert "warning" not in prepare(monkeypatch, tiny, tiny, dry=dry, max_completion_length=100)
    for student, teacher in ((tiny, short), (short, tiny)):
        with pytest.raises(R1Error, match=r"context: prompt and completion need 1\d\d tokens, the model has 64"):
            prepare(monkeypatch, student, teacher, dry=dry, max_completion_length=100)
        prepare(monkeypatch, student, teacher, dry=dry, max_completion_length=16)  # the longer prompt is left out, the shorter one fits


@pytest.mark.parametrize("dry", [False, True])
def test_a_template_that_ends_turns_otherwise_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry: bool) -> None:
    odd = tiny_model(tmp_path / "odd", chat_template=CHAT_TEMPLATE.replace("<|im_end|>", "<|bos|>"))
    said = prepare(monkeypatch, odd, odd, dry=dry, max_completion_length=16)
    assert "end of turn: the chat template ends a turn with `<|bos|>`, sampling stops at `<|im_end|>`" in said


def test_dropout_of_the_adapters_is_refused(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    values: dict[str, Any] = {"student": str(tiny), "teacher": str(tiny), "out": str(tmp_path / "run"), "inputs": [], "on_policy": True}
    context = Context("distill", {"lora_dropout": "flag"}, Console(stream=io.StringIO()))
    with pytest.raises(R1Error, match="--lora-dropout would train another student"):
        distill.run(DistillSettings(**values, lora=4, lora_dropout=0.1), context)


def test_prompts_that_do_not_fit_the_shorter_of_the_models_are_left_out() -> None:
    heard = io.StringIO()
    sampler: Any = SimpleNamespace(renderer=PromptRenderer(tiny_tokenizer()), room=lambda: 496, params=SimpleNamespace(max_tokens=16))
    context = Context("distill", {}, Console(stream=heard))
    assert on_policy_run._fitting(PROMPTS, sampler, context, None) == PROMPTS
    assert on_policy_run._fitting(PROMPTS, sampler, context, 64) == PROMPTS[:1]
    assert "1 prompts left out: longer than 48 tokens" in heard.getvalue()
