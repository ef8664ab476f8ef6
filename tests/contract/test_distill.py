"""`r1 distill` as a shell runs it, on the tiny model: killed at every stage, from traces, on policy."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.contract.conftest import Run, assert_error, command_line, environment
from tests.fake_server import FakeServer

MADE = ("prompts.jsonl*", "traces.jsonl", "kept.jsonl*", "train.jsonl*", "scores.json*", "eval.jsonl", "final/*")
SUMS = [(a, b) for a in range(1, 5) for b in range(1, 4)]


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


PROMPTS = [{"id": f"{a}+{b}", "prompt": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in SUMS]
HELD_OUT = [{"id": "5+5", "prompt": "What is 5 + 5?", "answer": "10"}, {"id": "copy", "prompt": "what is  1 + 1?", "answer": "2"}]
TRACES = [
    {
        **row,
        "sample": 0,
        "finish_reason": "stop",
        "domain": "math" if n % 2 else "chat",
        "completion": f"<think>\nI add them up.\n</think>\n<answer>{row['answer']}</answer>",
    }
    for n, row in enumerate(PROMPTS)
]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "prompts.jsonl").write_text(lines(*PROMPTS))
    (tmp_path / "test.jsonl").write_text(lines(*HELD_OUT))
    (tmp_path / "traces.jsonl").write_text(lines(*TRACES))
    (tmp_path / "general.jsonl").write_text(lines({"id": "hi", "prompt": "Hello", "completion": "Hello!"}))
    return tmp_path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def words_of(tiny: Path, *more: str) -> list[str]:
    return [
        "distill",
        "--student",
        str(tiny),
        "--engine",
        "transformers",
        "--dtype",
        "float32",
        "--epochs",
        "2",
        "--batch-rows",
        "8",
        "--max-completion-length",
        "48",
        "--rewards",
        "language",
        *more,
    ]


def run_until(words: list[str], cwd: Path, there: Callable[[], bool]) -> None:
    """Start a command and kill it with -9 as soon as something is there."""
    process = subprocess.Popen([*command_line(), *words], cwd=cwd, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 200
    while not there():
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_killed_at_every_stage_it_ends_as_if_it_never_was(r1: Run, tiny: Path, files: Path) -> None:
    words = words_of(
        tiny,
        "--teacher",
        str(tiny),
        "-k",
        "4",
        "--batch-size",
        "4",
        "--save-every",
        "1",
        "--eval",
        "test.jsonl",
        "--eval-samples",
        "2",
        "--general",
        "general.jsonl",
    )
    straight = r1(*words, "-o", "straight", "prompts.jsonl")
    assert straight.returncode == 0, straight.stderr
    killed = files / "killed"
    stages: list[Callable[[], bool]] = [
        lambda: (killed / "traces.jsonl").exists() and len((killed / "traces.jsonl").read_bytes().splitlines()) > 5,
        lambda: (killed / "kept.jsonl").exists(),
        lambda: (killed / "checkpoints/step_000002/manifest.json").exists(),
        lambda: (killed / "final/manifest.json").exists(),
    ]
    for there in stages:
        run_until([*words, "-o", "killed", "--resume", "prompts.jsonl"], files, there)
    assert not (killed / "scores.json").exists()
    done = r1(*words, "-o", "killed", "--resume", "prompts.jsonl")
    assert done.returncode == 0, done.stderr
    for name in ("traces.jsonl", "kept.jsonl"):
        ours, theirs = (sorted((files / run / name).read_text().splitlines()) for run in ("killed", "straight"))
        assert ours == theirs and len(ours) > 5
    assert (killed / "train.jsonl").read_bytes() == (files / "straight/train.jsonl").read_bytes()
    weights, expected = (load_file(files / run / "final/model.safetensors") for run in ("killed", "straight"))
    assert all((weights[name] == expected[name]).all() for name in expected)
    scores, wanted = (json.loads((files / run / "scores.json").read_text()) for run in ("killed", "straight"))
    assert {**scores, "seconds": 0, "model": ""} == {**wanted, "seconds": 0, "model": ""} and scores["samples"] == 4
    stamps = {path: path.stat().st_mtime_ns for name in MADE for path in killed.glob(name)}
    assert len(stamps) > 8
    again = r1(*words, "-o", "killed", "--resume", "prompts.jsonl")
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert "the prompt is held out for --eval" in straight.stderr
    assert "1+1" not in {row["id"] for row in read(killed / "train.jsonl")}


def test_what_follows_from_other_settings_is_made_again_or_refused(r1: Run, tiny: Path, files: Path) -> None:
    words = [*words_of(tiny), "--traces", "traces.jsonl", "-o", "run"]
    kept = files / "run/kept.jsonl"
    run_until(words, files, (files / "run/kept.jsonl.manifest.json").exists)
    before = {row["id"] for row in read(kept)}
    words[words.index("--rewards") + 1] = "accuracy,format:style=r1-zero"
    (files / "traces.jsonl").write_text(lines(*TRACES).replace("<answer>3</answer>", "<answer>4</answer>"))
    done = r1(*words, "--resume")
    assert done.returncode == 0, done.stderr
    assert "warning: `kept.jsonl` is made again: traces differs, rewards was language, now accuracy,format:style=r1-zero" in done.stderr
    assert before - {row["id"] for row in read(kept)} == {"1+2", "2+1"}
    refused = r1(*words, "--resume", "--per-prompt", "1")
    assert refused.returncode == 2
    assert "holds a model trained on another `kept.jsonl`: per_prompt was 0, now 1" in refused.stderr


def test_a_teacher_is_not_changed_half_way(r1: Run, tiny: Path, files: Path) -> None:
    words = words_of(tiny, "--teacher", str(tiny), "-k", "2", "-o", "run")
    run_until([*words, "prompts.jsonl"], files, lambda: (files / "run/traces.jsonl.manifest.json").exists())
    done = r1(*words, "--resume", "--temperature", "1", "prompts.jsonl")
    assert done.returncode == 2
    assert "was drawn otherwise: --temperature was 0.6, is 1.0" in done.stderr


def test_prompts_of_a_pipe_are_read_once(r1: Run, tiny: Path, files: Path) -> None:
    words = words_of(tiny, "--teacher", str(tiny), "-o", "run", "--epochs", "1")
    process = subprocess.Popen([*command_line(), *words], cwd=files, env=environment(), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    process.stdin.write(lines(*PROMPTS).encode())
    process.stdin.close()
    while not (files / "run/traces.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = r1(*words, "--resume")  # nothing on stdin
    assert done.returncode == 0, done.stderr
    assert len(read(files / "run/traces.jsonl")) == len(PROMPTS)


def test_simple_queries_are_taught_without_reasoning_and_general_rows_as_they_are(r1: Run, tiny: Path, files: Path) -> None:
    done = r1(*words_of(tiny, "--traces", "traces.jsonl", "--general", "general.jsonl", "--plain", "domain == 'chat'", "-o", "run"))
    assert done.returncode == 0, done.stderr
    taught = read(files / "run/train.jsonl")
    says = {row["domain"]: row["messages"][-1]["content"][:7] for row in taught if "messages" in row}
    assert says == {"math": "<think>", "chat": "<answer"}
    assert taught[-1] == {"id": "hi", "prompt": "Hello", "completion": "Hello!"}
    assert len(taught) == len(TRACES) + 1


def test_general_rows_are_read_before_anything_is_sampled(r1: Run, tiny: Path, files: Path) -> None:
    words = words_of(tiny, "--teacher", str(tiny), "-o", "run", "prompts.jsonl")
    assert_error(
        r1(*words, "--general", "prompts.jsonl"), 2, "prompts.jsonl:1: row `1+1` has neither `messages` nor `prompt` and `completion`"
    )
    assert_error(r1(*words, "--general", "general.jsonl:2"), 2, "`general.jsonl` has 1 rows to give, 2 are asked for")
    assert_error(r1(*words, "--general", "general.jsonl=2"), 2, "--general takes FILE or FILE:N")
    assert not (files / "run").exists()
    (files / "many.jsonl").write_text(lines(*({"id": n, "prompt": "Hello", "completion": f"Hello {n}!"} for n in range(50))))
    for seed in ("0", "1"):
        done = r1(*words_of(tiny, "--traces", "traces.jsonl", "--general", "many.jsonl:7", "--seed", seed, "--epochs", "1", "-o", seed))
        assert done.returncode == 0, done.stderr
    drawn = [[row["id"] for row in read(files / seed / "train.jsonl")[-7:]] for seed in ("0", "1")]
    assert drawn[0] == sorted(drawn[0]) and len(set(drawn[0])) == 7 and drawn[0] != drawn[1]


def test_on_policy_the_student_approaches_the_teacher(r1: Run, tiny: Path, files: Path) -> None:
    from tests.tiny import tiny_model

    student = tiny_model(files / "student", seed=1)
    words = [
        "distill",
        "--student",
        str(student),
        "--teacher",
        str(tiny),
        "--on-policy",
        "--engine",
        "transformers",
        "--dtype",
        "float32",
        "-k",
        "8",
        "--prompts-per-step",
        "8",
        "--max-completion-length",
        "12",
        "--lr",
        "1e-2",
        "--eval",
        "test.jsonl",
    ]
    done = r1(*words, "--steps", "20", "-o", "run", "prompts.jsonl")
    assert done.returncode == 0, done.stderr
    assert "warning: 1 prompts left out: held out for --eval" in done.stderr
    kl = [record["reverse_kl"] for record in read(files / "run/metrics.jsonl")]
    assert len(kl) == 20 and min(kl) > 0
    assert sum(kl[-5:]) < 0.8 * sum(kl[:5])
    assert json.loads((files / "run/scores.json").read_text())["problems"] == 2
    assert (files / "run/final/model.safetensors").is_file()


def test_on_policy_killed_and_resumed_is_the_run_that_was_not(r1: Run, tiny: Path, files: Path) -> None:
    from tests.tiny import tiny_model

    student = tiny_model(files / "student", seed=1)
    words = [
        "distill",
        "--student",
        str(student),
        "--teacher",
        str(tiny),
        "--on-policy",
        "--engine",
        "transformers",
        "--dtype",
        "float32",
        "-k",
        "2",
        "--prompts-per-step",
        "4",
        "--max-completion-length",
        "12",
        "--lr",
        "1e-2",
        "--steps",
        "4",
        "--save-every",
        "1",
    ]
    straight = r1(*words, "-o", "straight", "prompts.jsonl")
    assert straight.returncode == 0, straight.stderr
    killed = files / "killed"
    run_until([*words, "-o", "killed", "prompts.jsonl"], files, (killed / "checkpoints/step_000002/manifest.json").exists)
    done = r1(*words, "-o", "killed", "--resume", "prompts.jsonl")
    assert done.returncode == 0, done.stderr
    ours, theirs = (read(files / run / "metrics.jsonl") for run in ("killed", "straight"))
    assert [record["step"] for record in ours] == [1, 2, 3, 4]
    for mine, wanted in zip(ours, theirs, strict=True):  # the sampler's batches depend on timing, so the last digits do
        for name in ("reverse_kl", "entropy", "grad_norm"):
            assert mine[name] == pytest.approx(wanted[name], rel=1e-3)
    weights, expected = (load_file(files / run / "final/model.safetensors") for run in ("killed", "straight"))
    assert max(float((weights[name] - expected[name]).abs().max()) for name in expected) < 2e-3  # one step alone moves them by 1e-2
    again = r1(*words, "-o", "killed", "--resume", "prompts.jsonl")
    assert again.returncode == 0 and "`killed/final` is there, after 4 steps" in again.stderr


def test_a_teacher_behind_an_address(r1: Run, tiny: Path, files: Path) -> None:
    """The server has no tokenizer here and no log-probabilities of given tokens; the student is evaluated in this process."""
    words = ["distill", "--student", str(tiny), "--dtype", "float32", "--epochs", "1", "--batch-rows", "8", "--max-completion-length", "32"]
    with FakeServer() as server:
        teacher = ["--teacher", server.url, "--rewards", "language", "-k", "2"]
        done = r1(*words, *teacher, "--eval", "test.jsonl", "--eval-samples", "1", "-o", "run", "prompts.jsonl")
        assert done.returncode == 0, done.stderr
        assert len(server.requests) == 2 * len(PROMPTS)
        again = r1(*words, *teacher, "--eval", "test.jsonl", "--eval-samples", "1", "-o", "run", "--resume", "prompts.jsonl")
        assert again.returncode == 0, again.stderr
        assert len(server.requests) == 2 * len(PROMPTS)
        refused = r1(*words, "--teacher", server.url, "--on-policy", "-o", "other", "prompts.jsonl")
        assert_error(refused, 2, "--on-policy needs the teacher's weights here", "--teacher FOLDER")
    traces = read(files / "run/traces.jsonl")
    assert {row["model"] for row in traces} == {"teacher"} and len(traces) == 2 * len(PROMPTS)
    assert json.loads((files / "run/scores.json").read_text())["samples"] == 2


def test_flags_of_one_way_are_refused_in_the_other(r1: Run, tiny: Path, files: Path) -> None:
    base = ["distill", "--student", str(tiny), "-o", "run", "prompts.jsonl", "--teacher", str(tiny)]
    for words, message in (
        (["--steps", "3"], "--steps does nothing without --on-policy"),
        (["--on-policy", "--general", "general.jsonl"], "--general does nothing with --on-policy"),
        (["--on-policy", "--top-p", "0.9"], "--top-p and --top-k bias --on-policy"),
        (["--on-policy", "--temperature", "0"], "--on-policy needs a temperature above 0"),
        (["--plain", "domain ="], "condition, column 8"),
        (["--filters", "all"], "unknown filter `all`"),
    ):
        assert_error(r1(*base, *words), 2, message)
    assert not (files / "run").exists()


def test_on_policy_wants_the_same_tokens(r1: Run, tiny: Path, files: Path) -> None:
    from tests.tiny import tiny_model

    other = tiny_model(files / "other", vocab=300)
    done = r1("distill", "--student", str(tiny), "--teacher", str(other), "--on-policy", "--dry-run", "-o", "run", "prompts.jsonl")
    assert_error(done, 2, "needs a teacher with the student's tokens", "same family")
