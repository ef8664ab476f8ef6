"""`r1 sft`, `grpo`, `distill` and `check` as a shell runs them, on the tiny model."""

import json
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file

from r1cli.commands.held_out import held_back
from r1cli.commands.sft import question_of
from r1cli.row import Row
from tests.contract.conftest import Run, assert_error, command_line, environment

SUMS = [(a, b) for a in range(1, 5) for b in range(1, 4)]
PROMPTS = "".join(
    json.dumps({"id": f"{a}+{b}", "prompt": f"What is {a} + {b}?", "answer": str(a + b), "language": "en"}) + "\n" for a, b in SUMS
)
LESSONS = "".join(
    json.dumps(
        {
            "id": f"{a}+{b}",
            "messages": [
                {"role": "user", "content": f"What is {a} + {b}?"},
                {"role": "assistant", "content": f"<think>{a} + {b}</think> <answer>{a + b}</answer>"},
            ],
        }
    )
    + "\n"
    for a, b in SUMS
)
GRPO = [
    "--engine",
    "transformers",
    "--rewards",
    "mine.py:brief,format",
    "--steps",
    "4",
    "--prompts-per-step",
    "2",
    "--group-size",
    "4",
    "--max-completion-length",
    "24",
    "--lr",
    "1e-3",
    "--no-mask-truncated",  # the tiny model never ends its turn
    "--dtype",
    "float32",
    "--save-every",
    "1",
    "--keep",
    "9",
]


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def figures(run: Path) -> list[dict[str, Any]]:
    """What a run measured, without what depends on the clock."""
    return [{k: v for k, v in record.items() if not k.startswith(("time", "seconds", "tokens_per_second"))} for record in records(run)]


def test_sft_learns_and_leaves_a_plain_model(r1: Run, tiny: Path, tmp_path: Path) -> None:
    words = ["sft", "--model", str(tiny), "-o", "run", "--epochs", "6", "--batch-rows", "4", "--lr", "1e-2", "-"]
    done = r1(*words, stdin=LESSONS)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    losses = [record["loss"] for record in records(tmp_path / "run")]
    assert len(losses) == 18 and losses[-1] < losses[0] / 2
    assert {"config.json", "model.safetensors", "tokenizer.json", "manifest.json"} <= {p.name for p in (tmp_path / "run/final").iterdir()}
    assert_error(r1(*words, stdin=LESSONS), 2, "`run`", "--resume")
    scored = r1("eval", "--model", "run", "--engine", "transformers", "--max-completion-length", "8", "--json", "-", stdin=PROMPTS)
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["samples"] == len(SUMS)


def test_sft_leaves_out_long_rows_and_says_so(r1: Run, tiny: Path) -> None:
    long = json.dumps({"id": "long", "prompt": "a", "completion": "word " * 200})
    done = r1("sft", "--model", str(tiny), "-o", "run", "--max-length", "100", "--dry-run", "-", stdin=LESSONS + long + "\n")
    assert done.returncode == 0, done.stderr
    assert "1 rows left out: longer than --max-length 100 tokens (`long`)" in done.stderr
    assert "12 rows" in done.stderr


def test_sft_counts_what_it_leaves_out(r1: Run, tiny: Path, tmp_path: Path) -> None:
    long = json.dumps({"id": "long", "prompt": "a", "completion": "word " * 200}) + "\n"
    done = r1(
        "sft", "--model", str(tiny), "-o", "run", "--max-length", "100", "--epochs", "1", "--batch-rows", "7", "-", stdin=long + LESSONS
    )
    assert done.returncode == 0, done.stderr
    counted = json.loads((tmp_path / "run/manifest.json").read_text())["counts"]
    assert counted == {"rows": 13, "trained_on": 12, "too_long": 1, "bad": 0, "steps": 2}
    assert "sft: 12 rows, 2 steps" in done.stderr and len(records(tmp_path / "run")) == 2


def test_sft_measures_rows_it_never_trains_on(r1: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "held.jsonl").write_text("".join(LESSONS.splitlines(keepends=True)[:3]))
    train = "".join(LESSONS.splitlines(keepends=True)[3:])
    words = ["sft", "--model", str(tiny), "--lr", "1e-2", "--epochs", "8", "--batch-rows", "9", "--dtype", "float32", "-o", "run"]
    done = r1(*words, "--held-out", "held.jsonl", "--held-out-every", "4", "-", stdin=train)
    assert done.returncode == 0, done.stderr
    measured = {record["step"]: record["held_out_loss"] for record in records(tmp_path / "run") if "held_out_loss" in record}
    assert list(measured) == [4, 8]
    assert measured[8] < measured[4]
    assert f"held out {measured[8]:.4f}" in done.stderr


def test_a_share_of_the_rows_is_kept_back_like_a_file_of_them(r1: Run, tiny: Path, tmp_path: Path) -> None:
    words = [
        "sft",
        "--model",
        str(tiny),
        "--lr",
        "1e-2",
        "--epochs",
        "2",
        "--batch-rows",
        "9",
        "--dtype",
        "float32",
        "--held-out-every",
        "1",
    ]
    done = r1(*words, "-o", "run", "--held-out", "25%", "-", stdin=LESSONS)
    assert done.returncode == 0, done.stderr
    assert "held out: 3 of 12 rows, about 3 of 12 prompts\n" in done.stderr
    lines = LESSONS.splitlines(keepends=True)
    prompts = [question_of(Row(json.loads(line))) for line in lines]
    back = held_back(SimpleNamespace(held_out="25%", seed=0), prompts, print)
    (tmp_path / "held.jsonl").write_text("".join(line for line, kept in zip(lines, back, strict=True) if kept))
    train = "".join(line for line, kept in zip(lines, back, strict=True) if not kept)
    done = r1(*words, "-o", "file", "--held-out", "held.jsonl", "-", stdin=train)
    assert done.returncode == 0, done.stderr
    assert "held_out_loss" in records(tmp_path / "run")[0]
    counts = json.loads((tmp_path / "run/manifest.json").read_text())["counts"]
    assert counts == {"rows": 9, "trained_on": 9, "too_long": 0, "bad": 0, "steps": 2, "held_out": 3}
    assert figures(tmp_path / "run") == figures(tmp_path / "file")


def test_sft_refuses_to_measure_what_it_trains_on(r1: Run, tiny: Path, tmp_path: Path) -> None:
    chats = [json.loads(line) for line in LESSONS.splitlines()[:3]]
    pairs = [{"id": c["id"], "prompt": c["messages"][0]["content"], "completion": c["messages"][1]["content"]} for c in chats]
    (tmp_path / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*chats[:1], *pairs[1:]]))
    done = r1("sft", "--model", str(tiny), "-o", "run", "--held-out", "held.jsonl", "-", stdin=LESSONS)
    assert_error(done, 2, "held.jsonl:1: row `1+1` of --held-out is also trained on (3 of 3 are)", "--validation")
    assert not (tmp_path / "run").exists()


def test_bad_held_out_rows_are_left_out_and_other_ones_are_said_on_resuming(r1: Run, tiny: Path, tmp_path: Path) -> None:
    lines = LESSONS.splitlines(keepends=True)
    bad = "broken\n" + json.dumps({"id": "n", "prompt": "q", "completion": None}) + "\n"
    (tmp_path / "held.jsonl").write_text("".join(lines[:3]) + bad)
    words = ["sft", "--model", str(tiny), "--batch-rows", "9", "--save-every", "1", "--held-out", "held.jsonl", "-o", "run", "-"]
    train = "".join(lines[3:])
    assert_error(r1(*words, "--epochs", "2", stdin=train), 2, "held.jsonl:4: not valid JSON", "--skip-bad")
    done = r1(*words, "--epochs", "2", "--skip-bad", stdin=train)
    assert done.returncode == 0, done.stderr
    assert "2 bad held-out rows left out, the first: held.jsonl:4: not valid JSON" in done.stderr
    made = json.loads((tmp_path / "run/manifest.json").read_text())
    expected = {"rows": 9, "trained_on": 9, "too_long": 0, "bad": 0, "steps": 2, "held_out": 3, "held_out_bad": 2}
    assert made["counts"] == expected
    (measured,) = (source for source in made["inputs"] if source.get("role") == "held-out")
    assert (measured["name"], measured["rows"], measured["bad"]) == ("held.jsonl", 4, 1) and len(measured["sha256"]) == 64
    (tmp_path / "held.jsonl").write_text("".join(lines[:2]) + bad)
    again = r1(*words, "--epochs", "3", "--skip-bad", "--resume", stdin=train)
    assert again.returncode == 0, again.stderr
    assert "the held-out rows are not those that the run measured before" in again.stderr
    same = r1(*words, "--epochs", "4", "--skip-bad", "--resume", stdin=train)
    assert same.returncode == 0 and "not those that the run measured" not in same.stderr, same.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "x", "text": "no"}', "stdin:1: row `x` has neither `messages` nor `prompt` and `completion`"),
        ('{"id": "x", "messages": [{"role": "user", "content": "hi"}]}', "has no assistant message"),
        ('{"id": "x", "messages": [{"role": "assistant", "content": "hi"}]}', "starts with an assistant message"),
        ('{"id": "x", "messages": [{"role": "user"}]}', "message 1 needs `role` and `content`"),
    ],
)
def test_sft_names_the_row_it_cannot_learn(r1: Run, tiny: Path, line: str, message: str) -> None:
    done = r1("sft", "--model", str(tiny), "-o", "run", "--dry-run", "-", stdin=line + "\n")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr.splitlines()[0]


def test_grpo_killed_and_resumed_is_the_run_that_was_not(r1: Run, tiny: Path, tmp_path: Path) -> None:
    words = ["grpo", "--model", str(tiny), *GRPO, "problems.jsonl"]
    (tmp_path / "problems.jsonl").write_text(PROMPTS)
    (tmp_path / "mine.py").write_text("def brief(row):\n    return -len(row['completion']) / 100\n")
    straight = r1(*words, "-o", "straight")
    assert straight.returncode == 0, straight.stderr
    assert straight.stdout == ""
    killed = subprocess.Popen([*command_line(), *words, "-o", "killed"], cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not (tmp_path / "killed/checkpoints/step_000002/manifest.json").exists():
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    resumed = r1(*words, "-o", "killed", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert figures(tmp_path / "killed") == figures(tmp_path / "straight")
    ours, theirs = (load_file(tmp_path / name / "final/model.safetensors") for name in ("killed", "straight"))
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    assert [record["step"] for record in records(tmp_path / "killed")] == [1, 2, 3, 4]
    assert all(record["updates"] == 1 and record["grad_norm"] > 0 for record in records(tmp_path / "killed"))
    samples = [json.loads(line) for line in (tmp_path / "straight/samples.jsonl").read_text().splitlines()]
    assert {"step", "prompt", "completion", "rewards", "reward", "advantage"} <= set(samples[0])


def test_grpo_refuses_golds_it_cannot_compare_with(r1: Run, tiny: Path) -> None:
    row = json.dumps({"id": "x", "prompt": "What?", "answer": "\\frac{1"})
    done = r1("grpo", "--model", str(tiny), "--engine", "transformers", "-o", "run", "-", stdin=row + "\n")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: gold answers: 1 of 1 rows")


def test_distill_from_traces_keeps_every_artefact(r1: Run, tiny: Path, tmp_path: Path) -> None:
    rows = [
        {
            "id": f"{a}+{b}",
            "prompt": f"What is {a} + {b}?",
            "answer": str(a + b),
            "sample": 0,
            "finish_reason": "stop",
            "completion": f"<think>\nI add {a} and {b}.\n</think>\n<answer>\\boxed{{{a + b + (a == b)}}}</answer>",
        }
        for a, b in SUMS
    ]
    (tmp_path / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = r1("distill", "--traces", "traces.jsonl", "--student", str(tiny), "--epochs", "1", "--batch-rows", "4", "-o", "run")
    assert done.returncode == 0, done.stderr
    kept = [json.loads(line) for line in (tmp_path / "run/kept.jsonl").read_text().splitlines()]
    assert {row["id"] for row in kept} == {f"{a}+{b}" for a, b in SUMS if a != b}
    assert len((tmp_path / "run/train.jsonl").read_text().splitlines()) == len(kept)
    assert (tmp_path / "run/final/model.safetensors").is_file()
    adapted = r1("distill", "--traces", "traces.jsonl", "--student", str(tiny), "--lora", "4", "--lr", "1e-2", "-o", "adapted")
    assert adapted.returncode == 0, adapted.stderr
    base, taught = load_file(tiny / "model.safetensors"), load_file(tmp_path / "adapted/final/model.safetensors")
    moved = {name for name in base if not (taught[name] == base[name].to(taught[name].dtype)).all()}
    assert moved and all("_proj" in name for name in moved) and taught.keys() == base.keys()


def test_check_audits_golds_and_a_model(r1: Run, tiny: Path) -> None:
    done = r1("check", "--model", str(tiny), "--json", "-", stdin=PROMPTS)
    assert done.returncode == 1, done.stderr  # the tiny model has room for 512 tokens, the default completion alone is 1,024
    found = {finding["name"]: finding["level"] for finding in json.loads(done.stdout)["findings"]}
    assert found == {"end of turn": "ok", "prompt length": "ok", "context": "fail", "gold answers": "ok", "gold reward": "ok"}
    done = r1("check", "--rewards", "accuracy", "-", stdin='{"id": "odd", "prompt": "x", "answer": ""}\n')
    assert done.returncode == 1
    assert "fail gold answers" in done.stdout


def test_check_reads_sft_rows_too(r1: Run, tiny: Path) -> None:
    row = json.dumps({"id": "twice", "prompt": "a", "completion": "b<|im_end|>c"})
    done = r1("check", "--model", str(tiny), "--json", "-", stdin=LESSONS + row + "\n")
    assert done.returncode == 0, done.stderr
    found = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found["early end"]["level"] == "warn" and "1 of 13 answers" in found["early end"]["text"]


@pytest.mark.parametrize(
    ("words", "rows", "message", "hint"),
    [
        (["sft"], json.dumps({"id": 1, "prompt": "a", "completion": "b<|im_end|>c"}), "error: early end: 1 of 1 answers", "r1 adds it"),
        (
            ["sft"],
            json.dumps({"id": 1, "prompt": "a", "completion": "b " * 900}),
            "error: context: the longest row has",
            "--max-length 512",
        ),
        (["grpo", "--rewards", "accuracy=boxed", "--template", "r1-zero"], "", "reward `accuracy` gives 0.00 on average", "--template"),
        (["grpo", "--max-completion-length", "4000"], "", "error: context: prompt and completion need", "--max-completion-length"),
    ],
)
def test_training_stops_at_what_the_preflight_finds(
    r1: Run, tiny: Path, tmp_path: Path, words: list[str], rows: str, message: str, hint: str
) -> None:
    short = ["--max-completion-length", "16"] if words[0] == "grpo" and "--max-completion-length" not in words else []
    done = r1(*words, *short, "--model", str(tiny), "-o", "run", "-", stdin=rows + "\n" if rows else PROMPTS)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert any(message in line for line in lines) and hint in lines[-1]
    assert not (tmp_path / "run").exists()
