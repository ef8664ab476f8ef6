"""Reward models in `r1 reject`, `r1 eval` and `r1 grpo`, as a shell runs them."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.contract.conftest import Run, assert_error
from tests.contract.test_training import figures, records
from tests.fake_server import FakeServer
from tests.tiny_reward import tiny_reward_model

ROWS: list[dict[str, Any]] = [
    {"id": "sum", "prompt": "What is 1 + 2?", "answer": "3", "set": "reasoning", "completion": "<think>1 + 2</think> 3", "sample": 0},
    {"id": "hello", "prompt": "Say hello.", "set": "helpful", "completion": "<think>politely</think> Hello there", "sample": 0},
    {"id": "endless", "prompt": "Say hello.", "set": "helpful", "completion": "<think>and so on", "sample": 0},
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
BOTH = ["--rewards", "accuracy:set=reasoning,format", "--reward-model", "helpful=helpful:view=summary:set=helpful"]
BOTH += ["--reward-model", "harmless=harmless:view=full:weight=0.5"]
GRPO = ["--engine", "transformers", "--steps", "4", "--prompts-per-step", "2", "--group-size", "4", "--max-completion-length", "24"]
GRPO += ["--lr", "1e-3", "--dtype", "float32", "--save-every", "1", "--keep", "9", "--no-mask-truncated"]


@pytest.fixture
def models(tmp_path: Path) -> None:
    tiny_reward_model(tmp_path / "helpful")
    tiny_reward_model(tmp_path / "harmless", head_seed=1)


def expected(folder: Path, prompt: str, reply: str) -> float:
    """transformers' own score of a conversation, as a probability."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]
    with torch.inference_mode():
        return float(model(**tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)).logits.sigmoid())


def test_reject_scores_views_and_sets_beside_the_rules(r1: Run, models: None, tmp_path: Path) -> None:
    done = r1("reject", *BOTH, "--keep", "all", "-", stdin=LINES)
    assert done.returncode == 0, done.stderr
    found = {row["id"]: row for row in map(json.loads, done.stdout.splitlines())}
    seen = {"sum": None, "hello": expected(tmp_path / "helpful", "Say hello.", "Hello there"), "endless": 0.0}
    for row in ROWS:
        rewards = found[row["id"]]["rewards"]
        harmless = expected(tmp_path / "harmless", row["prompt"], row["completion"])
        assert rewards["harmless"] == pytest.approx(harmless, abs=0.05)  # bfloat16 where the hardware has it
        assert rewards["helpful"] == (seen[row["id"]] if seen[row["id"]] in (None, 0.0) else pytest.approx(seen[row["id"]], abs=0.05))
        assert rewards["accuracy"] == (1 if row["id"] == "sum" else None)
        total = sum(v for k, v in rewards.items() if v is not None and k != "harmless") + 0.5 * rewards["harmless"]
        assert found[row["id"]]["reward"] == pytest.approx(total)
    assert "1 completions have no summary after </think>: `helpful` is 0 for them" in done.stderr
    kept = r1("reject", "--rewards", "", *BOTH[2:4], "--keep", "helpful > 0.0001", "-", stdin=LINES)
    assert [json.loads(line)["id"] for line in kept.stdout.splitlines()] == ["hello"]


def test_eval_gives_means_with_intervals_and_no_pass_rate_without_a_rule(r1: Run, models: None) -> None:
    scored = r1("eval", *BOTH, "--json", "-", stdin=LINES)
    assert scored.returncode == 0, scored.stderr
    scores = json.loads(scored.stdout)
    assert scores["pass@1"] == 1.0 and set(scores["preference"]) == {"helpful", "harmless"}
    low, high = scores["reward_intervals"]["harmless"]
    assert 0 <= low <= scores["rewards"]["harmless"] <= high <= 1
    only = json.loads(r1("eval", "--rewards", "", *BOTH[2:], "--json", "-", stdin=LINES).stdout)
    assert only["pass@1"] is only["low"] is None and only["problems"] == 3, "a row that the first model is not for counts too"
    assert only["rewards"] == {name: pytest.approx(scores["rewards"][name]) for name in ("helpful", "harmless")}
    table = r1("eval", "--rewards", "", *BOTH[2:], "-", stdin=LINES).stdout
    assert "pass@1" not in table and "reward helpful" in table


def prompts(path: Path) -> str:
    rows = [{k: v for k, v in row.items() if k not in ("completion", "sample")} for row in ROWS[:2]]
    path.write_text("".join(json.dumps({**row, "id": f"{row['id']}{n}"}) + "\n" for n in range(4) for row in rows))
    return str(path)


def test_grpo_counts_models_from_their_step_and_resumes_to_the_same_numbers(r1: Run, tiny: Path, models: None, tmp_path: Path) -> None:
    words = ["grpo", "--model", str(tiny), *GRPO, *BOTH[:2], "--reward-model-from", "2", prompts(tmp_path / "prompts.jsonl")]
    words += [
        "--reward-model",
        "helpful=helpful:view=summary:set=helpful:no_summary=whole",
        "--reward-model",
        "harmless=harmless@1:scale=running",
    ]
    done = r1(*words, "-o", "straight")
    assert done.returncode == 0, done.stderr
    found = records(tmp_path / "straight")
    assert ["reward/helpful" in record for record in found] == [False, False, True, True]
    assert ["reward/harmless" in record for record in found] == [False, True, True, True]
    assert all(0 < record["reward/harmless"] < 1 for record in found[1:])
    assert abs(found[1]["reward/harmless"] - 0.5) < 0.02, "the first rollout is its own average"
    half = tmp_path / "half"
    shutil.copytree(tmp_path / "straight", half, symlinks=True)
    for left in ("manifest.json", "final", "checkpoints/step_000003"):
        shutil.rmtree(half / left) if (half / left).is_dir() else (half / left).unlink()
    resumed = r1(*words, "-o", "half", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert figures(half)[-2:] == figures(tmp_path / "straight")[-2:]


def test_a_reward_model_that_is_wrong_is_refused_before_anything_is_trained(r1: Run, tiny: Path, models: None, tmp_path: Path) -> None:
    start = ["grpo", "--model", str(tiny), *GRPO, "-o", "run", prompts(tmp_path / "prompts.jsonl")]
    tiny_reward_model(tmp_path / "bare", chat_template=None)
    for words, code, message, hint in [
        (["--reward-model", "h=nowhere"], 2, "reward model `h`: no such model folder: `nowhere`", "name a model folder"),
        (["--reward-model", f"h={tiny}"], 2, "does not have exactly one label", "r1 rm"),
        (["--reward-model", "h=bare"], 2, "reward model `h` has no chat template", ":template=plain"),
        (["--reward-model", "h=helpful:set=safety"], 2, "whose `set` is `safety`, and there are none", "`helpful`, `reasoning`"),
        (["--rewards", "", "--reward-model", "h=helpful@2"], 2, "no reward counts before step 2", "@STEP"),
        (["--rewards", "", "--reward-model", "h=http://127.0.0.1:9:key=NO_KEY"], 3, "`NO_KEY`", "export"),
    ]:
        rules = [] if "--rewards" in words else ["--rewards", "accuracy:set=reasoning"]
        assert_error(r1(*start, *rules, *words), code, message, hint)
    assert_error(r1("reject", "--reward-model", "h=helpful@2", "-", stdin=LINES), 2, "reward `h` starts at step 2", "r1 grpo")
    assert_error(r1("eval", "--reward-model", "h=helpful:scale=running", "-", stdin=LINES), 2, "scale=running", "leave :scale")


def test_a_server_scores_and_one_that_breaks_is_named(r1: Run) -> None:
    with FakeServer(logits=lambda reply: [float(len(reply)) / 10]) as server:
        words = ["reject", "--rewards", "format", "--keep", "all", "--server-wait", "0.5"]
        done = r1(*words, "--reward-model", f"h={server.url}:view=summary:no_summary=0.5", "-", stdin=LINES)
        assert done.returncode == 0, done.stderr
        scores = [json.loads(line)["rewards"]["h"] for line in done.stdout.splitlines()]
        assert scores == [1 / (1 + math.exp(-0.1)), 1 / (1 + math.exp(-1.1)), 0.5]
    gone = r1(*words, "--reward-model", f"h={server.url}", "-", stdin=LINES)
    assert_error(gone, 3, f"reward model `h` ({server.url}) did not answer", "vllm serve")
    with FakeServer(logits=lambda reply: [None]) as server:
        broken = r1(*words, "--reward-model", f"h={server.url}", "-", stdin=LINES)
    assert_error(broken, 1, "reward model `h` gave nan for row `sum`", "float32")


def test_grpo_holds_shares_measures_held_out_problems_and_watches_the_models(r1: Run, tiny: Path, models: None, tmp_path: Path) -> None:
    def write(name: str, kind: str, count: int) -> None:
        rows = [{"id": f"{kind}{n}", "prompt": f"{kind} {n}?", "answer": str(n), "set": kind} for n in range(count)]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    for name, kind, count in (("sums.jsonl", "reasoning", 30), ("chat.jsonl", "helpful", 3), ("test.jsonl", "a longer test", 5)):
        write(name, kind, count)
    words = ["grpo", "--model", str(tiny), *GRPO, "-o", "run", *BOTH, "sums.jsonl=3", "--add", "chat.jsonl=1@2"]
    words += ["--prompts-per-step", "4", "--updates-per-rollout", "2", "--held-out", "test.jsonl", "--held-out-every", "2", "--stop", "e"]
    assert "shares 3 : 1" in r1(*words, "--dry-run").stderr
    done = r1(*words)
    assert done.returncode == 0, done.stderr
    inputs = json.loads((tmp_path / "run/manifest.json").read_text())["inputs"]
    assert [(source["name"], source["rows"]) for source in inputs if source.get("role") == "held-out"] == [("test.jsonl", 5)]
    assert "held out: accuracy" in done.stderr and "on 5 problems before step 1" in done.stderr
    before, after = records(tmp_path / "run")
    assert f"accuracy {before['held_out/accuracy_before']:.3f} on" in done.stderr and "held_out/accuracy_before" not in after
    for record in (before, after):
        assert 0 <= record["held_out/accuracy"] <= 1 and record["held_out/problems"] == 5
        assert -1 <= record["length_correlation/harmless"] <= 1 and record["length/harmless"] > 0
    assert "reward/helpful" not in before and "reward/helpful" in after, "the helpful set joined at step 2"
    assert before["tokens"] == pytest.approx(before["length/harmless"] * 32), "harmless is for every row"
    batch = torch.load(tmp_path / "run/checkpoints/step_000002/grpo_progress_0.pt", weights_only=True)
    assert batch["taken"] == {0: 8}


def test_shares_and_held_out_rows_that_make_no_sense_are_refused(r1: Run, tiny: Path, tmp_path: Path) -> None:
    start = ["grpo", "--model", str(tiny), *GRPO, "-o", "run", "--rewards", "accuracy:set=reasoning,format"]
    file = prompts(tmp_path / "prompts.jsonl")
    for words, message, hint in [
        ([f"{file}=1", "--add", f"{file}@2"], "has no share, and other files have one", "=0.5"),
        ([f"{file}=0"], "a share is above 0", "=0.5"),
        ([f"{file}:10"], "a number of rows is for `r1 mix`", "=0.5"),
        ([f"{file}=1", "-n", "3"], "--limit does not go with shares", ""),
        ([file, "--held-out", file], "of --held-out is also trained on", "r1 mix"),
        ([file, "--held-out-every", "2"], "--held-out-every without --held-out", "--held-out FILE"),
    ]:
        assert_error(r1(*start, *words), 2, message, hint)
