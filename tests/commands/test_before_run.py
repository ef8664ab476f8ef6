"""What a run would refuse once its directory is made is refused before, in a dry run too; steps that are never reached are said."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from r1cli.commands import check, distill, grpo, sft
from r1cli.commands.before_run import beyond, long_warmup, without_effect
from r1cli.commands.preference import all_rewards
from r1cli.config import resolve
from r1cli.errors import R1Error
from r1cli.guard import Context
from r1cli.report.console import Console
from r1cli.settings import SftSettings
from r1cli.train.alarms import COMPARING, SFT_SIGNS, look
from tests.tiny import tiny_tokenizer
from tests.train.test_checkpoint_names import folder_of

FUNCTIONS = """
def two(a, b): return 0.0
def fine(row): return 0.0
def more(row, other): return 0.0
def trl(completions, solution, **columns): return [0.0] * len(completions)
def answers(completions, answer, model, seed, solution=None): return [0.0] * len(completions)
def given(level):
    def wrap(function):
        def inner(completions, **columns): return function(completions, level, **columns)
        return inner
    return wrap
@given(1)
def decorated(completions, level, **columns): return [0.0] * len(completions)
def part(completions, level): return [0.0] * len(completions)
import functools
part = functools.partial(part, level=1)
raising = 3
"""
BAD_REWARDS = [
    ("nowhere.py:fine", "reward file `nowhere.py` does not exist"),
    ("mine.py:two", "takes parameters that are not understood"),
    ("mine.py:more", "takes parameters that are not understood"),
    ("mine.py:trl", "asks for the column `solution`, and no row has such a field"),
    ("mine.py:raising", "is not a function"),
    ("no.such.module:fine", "cannot be imported"),
]


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    row = {"id": 1, "prompt": "What is 1 + 1?", "answer": "2", "completion": "<think>\nx\n</think>\n2"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": row["prompt"], "answer": "2"}) + "\n")
    return tmp_path


def ran(command: str, tiny: Path, **given: Any) -> str:
    """What it says on stderr."""
    stream = io.StringIO()
    flags: dict[str, Any] = {"model": str(tiny), "inputs": ["prompts.jsonl" if command == "grpo" else "rows.jsonl"]}
    flags |= {"out": "run", "dtype": "float32"} if command != "check" else {}
    flags |= {"max_completion_length": "8", "steps": "4"} if command == "grpo" else {}
    found = resolve(command, {name: value for name, value in {**flags, **given}.items() if value is not None}, {})
    {"check": check, "distill": distill, "grpo": grpo, "sft": sft}[command].run(
        found.settings, Context(command, found.sources, Console(stream=stream))
    )
    return stream.getvalue()


@pytest.mark.parametrize(("reward", "said"), BAD_REWARDS)
@pytest.mark.parametrize("dry", [False, True])
def test_a_reward_of_ones_own_is_looked_at_before_the_run_directory_is_made(
    tiny: Path, rows: Path, reward: str, said: str, dry: bool
) -> None:
    with pytest.raises(R1Error, match=said) as caught:
        ran("grpo", tiny, rewards=f"accuracy,{reward}", dry_run=dry)
    assert caught.value.code == 2
    assert not (rows / "run").exists()


@pytest.mark.parametrize(("reward", "said"), BAD_REWARDS[:2])
def test_check_looks_at_them_too(tiny: Path, rows: Path, reward: str, said: str) -> None:
    with pytest.raises(R1Error, match=said):
        ran("check", tiny, rewards=f"accuracy,{reward}")
    with pytest.raises(R1Error, match=said):
        ran("check", tiny, model=None, rewards=f"accuracy,{reward}")


def test_one_that_can_be_called_passes(tiny: Path, rows: Path) -> None:
    for own in ("mine.py:fine,mine.py:answers", "mine.py:decorated,mine.py:part"):
        assert "would train" in ran("grpo", tiny, rewards=f"accuracy=2,{own}", template="boxed", dry_run=True)
        ran("check", tiny, rewards=own)


def test_rows_that_no_reward_scores_need_no_columns(tiny: Path, rows: Path) -> None:
    (rows / "pairs.jsonl").write_text(json.dumps({"prompt": "p", "chosen": "yes", "rejected": "no"}) + "\n")
    (rows / "lessons.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}) + "\n"
    )
    for name in ("pairs", "lessons"):
        ran("check", tiny, model=None, inputs=[f"{name}.jsonl"], rewards="mine.py:trl")


@pytest.mark.parametrize("dry", [False, True])
def test_adapters_of_layers_that_are_not_there(tiny: Path, rows: Path, dry: bool) -> None:
    pytest.importorskip("peft")
    for targets, said in (("q_porj", "--lora-targets q_porj cannot be adapted"), ("embed_tokens", "names the embeddings")):
        with pytest.raises(R1Error, match=said) as caught:
            ran("sft", tiny, lora="2", lora_targets=targets, dry_run=dry)
        assert caught.value.code == 2
        assert not (rows / "run").exists()


@pytest.mark.parametrize("dry", [False, True])
def test_dropout_that_experts_cannot_have(tmp_path: Path, rows: Path, dry: bool) -> None:
    pytest.importorskip("peft")
    experts = Path(folder_of("Qwen3-MoE", tmp_path / "experts"))
    tiny_tokenizer().save_pretrained(experts)
    with pytest.raises(R1Error, match="does not work with lora_dropout"):
        ran("sft", experts, lora="2", lora_dropout="0.1", dry_run=dry)
    assert not (rows / "run").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"rewards": "nowhere.py:fine"}, "does not exist"), ({"lora": "2", "lora_targets": "q_porj"}, "q_porj cannot be adapted")],
)
@pytest.mark.parametrize("dry", [False, True])
def test_distill_looks_before_it_samples(tiny: Path, rows: Path, wrong: dict[str, str], said: str, dry: bool) -> None:
    pytest.importorskip("peft")
    with pytest.raises(R1Error, match=said):
        ran("distill", tiny, model=None, student=str(tiny), teacher=str(tiny), inputs=["prompts.jsonl"], dry_run=dry, **wrong)
    assert not (rows / "run").exists()


def test_a_rank_beyond_the_model_is_said(tiny: Path, rows: Path) -> None:
    pytest.importorskip("peft")
    assert "--lora 100000 is more than the" in ran("sft", tiny, lora="100000", dry_run=True)
    assert "is more than" not in ran("sft", tiny, lora="4", dry_run=True)


def test_a_dry_run_refuses_what_the_run_would(tiny: Path, rows: Path) -> None:
    with pytest.raises(R1Error, match="--resume and --force exclude each other"):
        ran("sft", tiny, dry_run=True, resume=True, force=True)
    if not torch.cuda.is_available():
        with pytest.raises(R1Error, match="float16 needs a GPU"):
            ran("sft", tiny, dry_run=True, dtype="float16")


def late(**given: Any) -> list[str]:
    found = resolve("grpo", {"model": "m", "out": "o", "inputs": ["rows.jsonl"], "steps": "4", **given}, {})
    return beyond(found.settings, all_rewards(found.settings), found.sources)


def test_steps_that_are_never_reached_are_said() -> None:
    [said] = late(add=["more.jsonl@4"])
    assert said == "--add more.jsonl begins at step 4, and --steps is 4: it never counts"
    [said] = late(max_completion_length="16,24@99")
    assert said.startswith("--max-completion-length 24 begins at step 99")
    [said] = late(rewards="accuracy,format=1@7")
    assert said.startswith("reward `format` begins at step 7")
    [said] = late(warmup_steps="4")
    assert said.startswith("--warmup-steps 4: the run has 4 steps")
    assert late(add=["more.jsonl@3"], max_completion_length="16,24@3", rewards="accuracy,format=1@3", warmup_steps="3") == []
    assert long_warmup(resolve("grpo", {"model": "m", "out": "o"}, {}).settings, 1) == []  # none is asked for


ROLLOUTS = {"updates_per_rollout": "2", "epochs_per_rollout": "2", "steps": "9"}  # rollouts begin at 0, 4 and 8


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"add": ["more.jsonl@8"], "max_completion_length": "16,24@7"}, []),
        ({**ROLLOUTS, "add": ["more.jsonl@8"], "steps": "8"}, ["--add more.jsonl begins at step 8, and --steps is 8: it never counts"]),
        ({**ROLLOUTS, "add": ["more.jsonl@8"]}, []),
        (
            {**ROLLOUTS, "rewards": "accuracy,format=1@5", "steps": "8"},
            ["reward `format` begins at step 5, and the run has rollouts of 4 steps, the last of which begins at step 4: it never counts"],
        ),
        ({"save_every": "9"}, ["--save-every 9: the run has 9 steps, no checkpoint is saved before its end"]),
        ({"held_out_every": "9"}, ["--held-out-every 9: the run has 9 steps, the held-out rows are measured before the first step and"]),
        ({"beta": "0.1", "reference_every": "9"}, []),
        ({"beta": "0.1", "reference_every": "10"}, ["--reference-every 10: the run has 9 steps, the reference never follows"]),
        ({"preset": "r1-zero", "updates_per_rollout": "1"}, ["--max-completion-length 65536 begins at step 8200"]),  # no word of its 400
        ({"clip_high": "0.28"}, ["--clip-high: a rollout serves one step, where the ratio is 1 and nothing is clipped"]),
        ({"clip_low": "0.1", "clip_cap": "3"}, ["--clip-low --clip-cap: a rollout serves one step"]),
        ({"clip_high": "0.28", **ROLLOUTS}, []),
        (
            {"stop_on": "zero-gradient,entropy", "alarm_steps": "5"},
            ["--stop-on entropy: the run has 9 rollouts, and a sign must be there in 5, "],
        ),
        (
            {"stop_on": "zero-gradient,entropy"},
            ["--stop-on zero-gradient,entropy: the run has 9 rollouts, and a sign must be there in 10 ("],
        ),
        ({"stop_on": "zero-gradient,entropy", "alarm_steps": "4"}, []),
        ({**ROLLOUTS, "stop_on": "truncated", "alarm_steps": "3"}, []),
        ({**ROLLOUTS, "stop_on": "truncated", "alarm_steps": "4"}, ["--stop-on truncated: the run has 3 rollouts, and"]),
        ({"alarm_steps": "10"}, ["--alarm-steps 10: the run has 9 rollouts"]),
        ({"alarm_steps": "9"}, []),
    ],
)
def test_what_rl_cannot_do_in_a_run_so_short_is_said(given: dict[str, Any], said: list[str]) -> None:
    found = late(**{"steps": "9", **given})
    assert len(found) == len(said) and all(map(str.startswith, found, said)), found


@pytest.mark.parametrize("name", COMPARING)
def test_alarms_that_compare_need_twice_as_many_rollouts(name: str) -> None:
    """What is said before a run, and what the alarms do in one, are two places."""
    bad = {"entropy": 0.01, "reward/accuracy": 0.1, "reward/helpful": 0.9, "length/helpful": 200.0, "length_correlation/helpful": 0.9}
    good = {"entropy": 1.0, "reward/accuracy": 0.6, "reward/helpful": 0.4, "length/helpful": 80.0, "length_correlation/helpful": 0.9}
    common = {"reward": 0.5, "reward_min": 0.0, "reward_max": 1.0, "grad_norm": 0.3}
    for steps, raised in ((3, False), (4, True)):
        memory: dict[str, list[float]] = {}
        records = [{**common, **(good if step < 2 else bad)} for step in range(steps)]
        assert (name in [alarm.name for record in records for alarm in look(record, memory, 2)]) is raised
        assert bool(late(steps=str(steps), stop_on=name, alarm_steps="2")) is not raised


def test_they_are_said_once_and_stop_nothing(tiny: Path, rows: Path) -> None:
    said = ran("grpo", tiny, max_completion_length="8,9@99", rewards="language", dry_run=True)
    assert said.count("--max-completion-length 9 begins at step 99") == 1
    assert "would train" in said
    assert "--warmup-steps 50" in ran("sft", tiny, warmup_steps="50", dry_run=True)


@pytest.mark.parametrize(
    ("command", "given", "said", "hint"),
    [
        ("grpo", {"max_prompt_length": "3"}, "all longer than --max-prompt-length 3", "raise --max-prompt-length: the shortest prompt has"),
        ("sft", {"max_length": "10"}, "1 longer than --max-length 10", "raise --max-length (all rows: "),
        ("grpo", {"limit": "0"}, "--limit 0 reads no rows", "raise --limit"),
        ("sft", {"limit": "0"}, "--limit 0 reads no rows", "raise --limit"),
        ("check", {"limit": "0", "model": None}, "--limit 0 reads no rows", "raise --limit"),
        ("grpo", {"rewards": "accuracy,format=nan"}, "the weight of reward `format` cannot be `nan`", "write format=0.5"),
        ("grpo", {"rewards": "accuracy=-inf"}, "the weight of reward `accuracy` cannot be `-inf`", "write accuracy=0.5"),
    ],
)
def test_a_hint_names_what_left_nothing_over(tiny: Path, rows: Path, command: str, given: dict[str, Any], said: str, hint: str) -> None:
    flags = {"rewards": "language", "dry_run": True} if command == "grpo" else {"dry_run": True} if command == "sft" else {}
    with pytest.raises(R1Error) as caught:
        ran(command, tiny, **flags | given)
    assert said in caught.value.message and (caught.value.hint or "").startswith(hint), caught.value.hint
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("given", "steps", "said"),
    [
        ({}, 1, []),
        ({"save_every": 4}, 5, []),
        ({"save_every": 5}, 5, ["--save-every 5: the run has 5 steps, no checkpoint is saved before its end"]),
        ({"held_out_every": 4}, 5, []),
        ({"held_out_every": 9}, 5, ["--held-out-every 9: the run has 5 steps, the held-out rows are measured after the last one only"]),
        ({"stop_on": "overfitting", "held_out_every": 2}, 7, []),
        (
            {"stop_on": "overfitting", "held_out_every": 2},
            6,
            ["--stop-on overfitting: the run has 6 steps, its held-out loss is measured 3 times, and 4 tell"],
        ),
        ({"stop_on": "diverging"}, 20, []),
        ({"stop_on": "diverging"}, 19, ["--stop-on diverging: the run has 19 steps, and the alarm compares the loss of 10 steps with"]),
        ({"alarm_steps": 3}, 5, ["--alarm-steps 3: the run has 5 steps, and the alarm compares the loss of 3 steps with"]),
        ({"warmup_steps": 5}, 5, ["--warmup-steps 5: the run has 5 steps"]),
    ],
)
def test_flags_that_can_do_nothing_in_a_short_run_are_said(given: dict[str, Any], steps: int, said: list[str]) -> None:
    settings = SftSettings(inputs=[], model="m", out="o", **given)
    found = without_effect(settings, dict.fromkeys(given, "flag"), steps)
    assert len(found) == len(said) and all(map(str.startswith, found, said)), found


@pytest.mark.parametrize(("steps", "raised"), [(3, []), (4, ["overfitting"]), (5, ["overfitting"])])
def test_so_many_measurements_does_the_alarm_take(steps: int, raised: list[str]) -> None:
    memory: dict[str, list[float]] = {}
    records = [{"loss": 1.0, "held_out_loss": float(step)} for step in range(steps)]
    assert [alarm.name for record in records for alarm in look(record, memory, 10, SFT_SIGNS)] == raised
    settings = SftSettings(inputs=[], model="m", out="o", stop_on="overfitting", held_out_every=1)
    assert bool(without_effect(settings, {}, steps)) is not bool(raised)
