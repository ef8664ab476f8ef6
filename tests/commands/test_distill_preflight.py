"""What would end `r1 distill` after the teacher has drawn everything ends it before, in a dry run too; so do golds of --held-out."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from r1cli.commands import check, distill, distill_traces, grpo
from r1cli.config import resolve
from r1cli.errors import R1Error
from r1cli.guard import Context
from r1cli.report.console import Console
from tests.tiny import CHAT_TEMPLATE, tiny_model

ROWS = [{"id": f"r{n}", "prompt": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(6)]
BROKEN = "\\frac{1"
CLOSED = CHAT_TEMPLATE.replace("assistant\n{% endif", "assistant\n<think>\n\n</think>\n\n{% endif")


class Drawn(Exception):
    """The teacher would draw now."""


def write(file: str, *changes: dict[str, Any], rows: list[dict[str, Any]] = ROWS) -> str:
    """Rows as a file; the last of them are changed."""
    sound = len(rows) - len(changes)
    changed = [*rows[:sound], *({**row, **new} for row, new in zip(rows[sound:], changes, strict=True))]
    kept = [{name: value for name, value in row.items() if value is not ...} for row in changed]
    Path(file).write_text("".join(json.dumps(row) + "\n" for row in kept))
    return file


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text("def ok(row): return 1.0\ndef level(completions, level): return [0.0] * len(completions)\n")

    def draw(*given: Any, **named: Any) -> None:
        raise Drawn

    monkeypatch.setattr(distill_traces, "draw", draw)
    return tmp_path


def ran(command: str, model: Path, file: str, **given: Any) -> str:
    """What it says on stderr; a run of `distill` gets as far as its teacher."""
    stream = io.StringIO()
    flags: dict[str, Any] = {"inputs": [file], "rewards": "accuracy", **given}
    if command == "distill":
        flags = {"student": str(model), "out": "run", **({} if "traces" in given else {"teacher": str(model)}), **flags}
    else:
        flags |= {"model": str(model), "max_completion_length": "16"} | ({"out": "run"} if command == "grpo" else {})
    found = resolve(command, {name: value for name, value in flags.items() if value is not None}, {})
    try:
        {"check": check, "distill": distill, "grpo": grpo}[command].run(
            found.settings, Context(command, found.sources, Console(stream=stream))
        )
    except Drawn:
        stream.write("drawn")
    return stream.getvalue()


def refused(command: str, model: Path, file: str, **given: Any) -> R1Error:
    with pytest.raises(R1Error) as raised:
        ran(command, model, file, **given)
    assert raised.value.code == 2 and raised.value.hint
    assert not Path("run").exists()
    return raised.value


@pytest.mark.parametrize("dry", [False, True])
def test_a_student_without_an_end_of_turn_is_refused_in_the_words_of_sft(tiny: Path, folder: Path, dry: bool) -> None:
    student = tiny_model(folder / "student")
    for name in ("generation_config.json", "special_tokens_map.json"):
        (student / name).unlink(missing_ok=True)
    for name, key in (("tokenizer_config.json", "eos_token"), ("config.json", "eos_token_id")):
        (student / name).write_text(json.dumps({k: v for k, v in json.loads((student / name).read_text()).items() if k != key}))
    error = refused("distill", student, write("p.jsonl"), teacher=str(tiny), dry_run=dry)
    assert "has no end-of-sequence token: the model could not learn to stop" in error.message
    bare = tiny_model(folder / "bare", chat_template=None)
    assert "no chat template" in refused("distill", bare, "p.jsonl", teacher=str(tiny), dry_run=dry).message
    assert "no chat template" not in ran("distill", bare, "p.jsonl", teacher=str(tiny), template="r1-zero", dry_run=dry)


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize(
    ("rewards", "changes", "said"),
    [
        ("accuracy", [{"answer": BROKEN}, {"answer": ""}], "gold answers: 2 of 6 rows have a gold that cannot be compared with"),
        ("accuracy", [{"answer": ...}], "it has no field `answer`"),
        ("choice", [{"choices": ["red", "green"], "answer": "purple"}], "rows for choice: "),
        ("code", [], "rows for code: 6 of 6 rows cannot be scored by `code`: p.jsonl:1: row `r0`: it has no field `tests`"),
        ("accuracy,language", [{"language": "klingon"}], "p.jsonl:6: row `r5`: unknown language `klingon`"),
        ("accuracy,own.py:level", [], "asks for the column `level`"),
        ("accuracy:set=reasoning", [], "is for rows whose `set` is `reasoning`, and there are none"),
    ],
)
def test_rows_that_no_trace_could_be_judged_of_are_refused(
    tiny: Path, folder: Path, rewards: str, changes: list[dict[str, Any]], said: str, dry: bool
) -> None:
    assert said in refused("distill", tiny, write("p.jsonl", *changes), rewards=rewards, dry_run=dry).message


def test_sound_rows_get_as_far_as_the_teacher(tiny: Path, folder: Path) -> None:
    write("p.jsonl", {"answer": None})
    assert "would draw 6 x 1 completions" in ran("distill", tiny, "p.jsonl", dry_run=True)
    assert ran("distill", tiny, "p.jsonl") == "drawn"
    assert [json.loads(line) for line in Path("run/prompts.jsonl").read_text().splitlines()] == [*ROWS[:5], {**ROWS[5], "answer": None}]


def test_a_refusal_throws_nothing_away(tiny: Path, folder: Path) -> None:
    assert ran("distill", tiny, write("p.jsonl")) == "drawn"
    before = Path("run/prompts.jsonl").read_bytes()
    with pytest.raises(R1Error, match="gold answers"):
        ran("distill", tiny, write("bad.jsonl", {"answer": BROKEN}), force=True)
    assert Path("run/prompts.jsonl").read_bytes() == before


def test_what_is_drawn_already_is_not_refused_for_its_golds(tiny: Path, folder: Path) -> None:
    """Traces whose gold cannot be read are dropped and counted when they are scored; broken fields end the run there all the same."""
    traces = [{**row, "completion": "<think>\nx\n</think>\n2"} for row in ROWS]
    write("t.jsonl", {"answer": BROKEN}, rows=traces)
    said = ran("distill", tiny, "-", inputs=None, traces="t.jsonl", dry_run=True)
    assert "warning: gold answers: 1 of 6 rows" in said and "would score 6 traces" in said
    write("t.jsonl", {"language": "klingon"}, rows=traces)
    with pytest.raises(R1Error, match="unknown language"):
        ran("distill", tiny, "-", inputs=None, traces="t.jsonl", rewards="accuracy,language", dry_run=True)
    said = ran("distill", tiny, "-", inputs=None, traces="t.jsonl", rewards="accuracy,language", dry_run=True, skip_bad=True)
    assert "warning: rows for language: 1 of 6 rows" in said
    write("t.jsonl", {"completion": ...}, rows=traces)
    with pytest.raises(R1Error, match=r"t.jsonl:6: row `r5` has no field `completion`"):
        ran("distill", tiny, "-", inputs=None, traces="t.jsonl", dry_run=True)


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize(
    ("rewards", "said"),
    [("own.py:ok", "needs a reward with a maximum"), ("accuracy=-1", "cannot judge `accuracy`: its weight is negative")],
)
def test_rewards_that_do_not_tell_what_passes_are_refused(tiny: Path, folder: Path, rewards: str, said: str, dry: bool) -> None:
    error = refused("distill", tiny, write("p.jsonl"), rewards=rewards, dry_run=dry)
    assert said in error.message and "--keep passing" not in error.message and "r1 reject --keep CONDITION" in (error.hint or "")


@pytest.mark.parametrize("given", [{}, {"on_policy": True, "steps": "1"}])
def test_problems_of_eval_are_looked_at_before_anything_is_learnt(tiny: Path, folder: Path, given: dict[str, Any]) -> None:
    write("p.jsonl")
    write("test.jsonl", {"answer": BROKEN})
    error = refused("distill", tiny, "p.jsonl", eval="test.jsonl", **given)
    assert error.message.startswith("--eval test.jsonl: gold answers: 1 of 6 rows") and "`r5` (test.jsonl:6)" in error.message
    assert "does not exist" in refused("distill", tiny, "p.jsonl", eval="p.jsonl", rewards="nowhere.py:f,accuracy", **given).message


def test_flags_that_leave_nothing_are_refused(tiny: Path, folder: Path) -> None:
    write("p.jsonl")
    Path("empty.jsonl").touch()
    assert "--limit 0 reads no rows" in refused("distill", tiny, "p.jsonl", limit="0").message
    assert "no rows: the input is empty" in refused("distill", tiny, "empty.jsonl").message


@pytest.mark.parametrize("dry", [False, True])
def test_golds_of_held_out_problems_are_audited_and_their_file_is_named(tiny: Path, folder: Path, dry: bool) -> None:
    write("p.jsonl")
    others = [{**row, "prompt": f"{row['prompt']} Say it."} for row in ROWS]
    write("held.jsonl", {"answer": BROKEN}, {"answer": ""}, rows=others)
    error = refused("grpo", tiny, "p.jsonl", rewards="accuracy,format", template="boxed", held_out="held.jsonl", dry_run=dry)
    assert error.message.startswith("--held-out held.jsonl: gold answers: 2 of 6 rows have a gold that cannot be compared with")
    assert "`r5` (held.jsonl:6)" in error.message
    write("held.jsonl", {"answer": None}, {"language": "klingon"}, rows=others)  # language does not measure them
    assert "would train" in ran("grpo", tiny, "p.jsonl", template="boxed", held_out="held.jsonl", dry_run=True)


@pytest.mark.parametrize(
    ("rewards", "change", "said"),
    [
        ("choice", {"choices": ["red", "green"], "answer": "purple"}, "row `r5`: `answer` 'purple' names no option"),
        ("code", {"tests": ...}, "row `r5`: it has no field `tests`"),
        ("accuracy,language", {"language": "klingon"}, "row `r5`: unknown language `klingon`"),
        ("length:max=64", {"answer": BROKEN}, "row `r5` (p.jsonl:6): `\\frac{1` cannot be read"),
    ],
)
def test_grpo_and_check_name_a_row_that_only_sampling_would_have_met(
    tiny: Path, folder: Path, capsys: pytest.CaptureFixture[str], rewards: str, change: dict[str, Any], said: str
) -> None:
    kinds: dict[str, dict[str, Any]] = {"choice": {"choices": ["red", "green"], "answer": "A"}, "code": {"tests": ["assert f(1) == 2"]}}
    write("p.jsonl", change, rows=[{**row, **kinds.get(rewards, {})} for row in ROWS])
    assert said in refused("grpo", tiny, "p.jsonl", rewards=rewards, dry_run=True).message
    with pytest.raises(R1Error, match=r"1 of \d checks failed"):
        ran("check", tiny, "p.jsonl", rewards=rewards, template="boxed")
    assert said in capsys.readouterr().out


def test_a_template_that_closes_the_reasoning_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_model(folder / "closes", chat_template=CLOSED)
    said = r"reasoning: the prompt ends with '<think>\n\n</think>\n\n': the template turns reasoning off"
    write("p.jsonl")
    heard = ran("grpo", model, "p.jsonl", dry_run=True, held_out=write("h.jsonl", rows=[{**row, "prompt": "Say 2."} for row in ROWS]))
    assert heard.count(f"warning: {said}") == 1 and "take another --template, such as r1-zero, or a chat template" in heard
    assert said not in ran("grpo", model, "p.jsonl", template="r1-zero", dry_run=True)
    ran("check", model, "p.jsonl")
    assert f"warn {said}" in capsys.readouterr().out
    lessons = write("s.jsonl", rows=[{"prompt": "1 + 1?", "completion": "2"}])
    ran("check", model, lessons)
    assert said not in capsys.readouterr().out  # answers without reasoning are learnt as they are
    assert said in ran("distill", model, "p.jsonl", dry_run=True)
    error = refused("distill", model, "p.jsonl", rewards="accuracy,format", dry_run=True)  # what passes reasons, and sft would refuse it
    assert error.message.startswith("reasoning twice: what passes `format` opens reasoning behind a prompt")
    assert said in ran("distill", model, "p.jsonl", rewards="accuracy,format", plain="domain == 'chat'", dry_run=True)
