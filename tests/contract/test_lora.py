"""`--lora` as a shell runs it, on the tiny model."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.contract.conftest import Run, assert_error, command_line, environment
from tests.contract.test_training import GRPO, LESSONS, PROMPTS, figures, records

pytest.importorskip("peft")
BRIEF = "def brief(row):\n    return -len(row['completion']) / 100\n"
SFT = "--batch-rows 4 --lr 1e-2 --save-every 1 --dtype bfloat16 --lora-dropout 0.1"
REFERENCE = ["--beta", "0.1", "--reference-every", "2"]


def kill_after(words: list[str], folder: Path, run: str, step: int) -> None:
    """Start a command, and kill it once its run directory has a whole checkpoint of this step."""
    process = subprocess.Popen([*command_line(), *words, "-o", run], cwd=folder, env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not (folder / run / f"checkpoints/step_{step:06}/manifest.json").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("command", ["sft", "grpo"])
def test_killed_and_resumed_is_the_run_that_was_not(r1: Run, tiny: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "mine.py").write_text(BRIEF)
    (tmp_path / "rows.jsonl").write_text(LESSONS if command == "sft" else PROMPTS)
    own = {"grpo": [*GRPO, *REFERENCE], "sft": SFT.split()}[command]
    words = [command, "--model", str(tiny), *own, "--lora", "4", "--lora-alpha", "16", "rows.jsonl"]
    straight = r1(*words, "-o", "straight")
    assert straight.returncode == 0, straight.stderr
    kill_after(words, tmp_path, "killed", 2)
    resumed = r1(*words, "-o", "killed", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert figures(tmp_path / "killed") == figures(tmp_path / "straight")
    ours, theirs = (load_file(tmp_path / name / "final/model.safetensors") for name in ("killed", "straight"))
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    base = load_file(tiny / "model.safetensors")
    assert ours.keys() == base.keys()
    moved = {name for name in base if not torch.equal(ours[name], base[name].to(ours[name].dtype))}
    assert moved and all("_proj" in name for name in moved)
    if command == "grpo":
        assert records(tmp_path / "straight")[0]["kl"] == 0.0 < records(tmp_path / "straight")[1]["kl"]


def test_the_sampler_draws_from_the_merged_weights(r1: Run, tiny: Path, tmp_path: Path) -> None:
    """Its log-probabilities stay those of the trainer after updates: in float32 the mismatch is that of rounding."""
    (tmp_path / "mine.py").write_text(BRIEF)
    done = r1("grpo", "--model", str(tiny), *GRPO, "--lora", "4", "--lr", "3e-2", "-o", "run", "-", stdin=PROMPTS)
    assert done.returncode == 0, done.stderr
    assert all(abs(record["sampler_mismatch"]) < 1e-6 and record["grad_norm"] > 0 for record in records(tmp_path / "run"))
    assert records(tmp_path / "run")[-1]["kl"] > 1e-4


def test_sft_learns_and_exports_the_adapter_alone_on_request(r1: Run, tiny: Path, tmp_path: Path) -> None:
    words = ["sft", "--model", str(tiny), "--lora", "8", "--lr", "2e-2", "--epochs", "6", "--batch-rows", "4", "-o", "run", "-"]
    done = r1(*words, "--lora-export", "adapter", stdin=LESSONS)
    assert done.returncode == 0, done.stderr
    losses = [record["loss"] for record in records(tmp_path / "run")]
    assert losses[-1] < losses[0] / 2
    files = {path.name for path in (tmp_path / "run/final").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "manifest.json"} <= files and "config.json" not in files
    assert json.loads((tmp_path / "run/final/adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny)
    assert "next: merge `run/final` into its base" in done.stderr
    assert_error(r1("eval", "--model", "run", "-", stdin=PROMPTS), 2, "holds an adapter, not a model", "merge_and_unload")


def test_the_usual_learning_rate_is_said_to_be_low(r1: Run, tiny: Path) -> None:
    done = r1("sft", "--model", str(tiny), "--lora", "8", "--dry-run", "-o", "run", "-", stdin=LESSONS)
    assert done.returncode == 0, done.stderr
    assert "warning: --lr 1e-05 is the default for training all weights; --lr 1e-4" in done.stderr


@pytest.mark.parametrize(
    ("flags", "message", "hint"),
    [
        (["sft", "--lora-alpha", "8"], "--lora-alpha does nothing without --lora", "--lora 16"),
        (["grpo", "--lora", "8", "--lora-dropout", "0.1"], "another policy than the one that samples", "without dropout"),
        (["grpo", "--lora", "8", "--reference-mix", "0.5"], "the average of two adapters", "leave it out"),
        (["sft", "--offload", "optimiser"], "`--offload` knows no part `optimiser`", "did you mean `optimizer`?"),
        (["sft", "--offload", "optimizer,reference"], "--offload reference does nothing: there is no reference", "--offload optimizer"),
        (["grpo", "--offload", "reference", "--beta", "0"], "does nothing: there is no reference", "--offload optimizer"),
        (["grpo", "--offload", "reference", "--lora", "8"], "the reference is the policy without its adapter", "--offload optimizer"),
        (["sft", "--lora", "0"], "`--lora` must be a whole number of at least 1", "--help"),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_is_loaded(r1: Run, flags: list[str], message: str, hint: str) -> None:
    assert_error(r1(*flags, "--model", "none", "-o", "run", "-", stdin=PROMPTS), 2, message, hint)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to move things from")
def test_offload_is_refused_where_there_is_nowhere_to_move_to(r1: Run, tiny: Path, tmp_path: Path) -> None:
    done = r1("sft", "--model", str(tiny), "--offload", "optimizer", "-o", "run", "-", stdin=LESSONS)
    assert_error(done, 2, "--offload does nothing here: the model is trained on a CPU", "leave it out")
    assert not (tmp_path / "run").exists()


def test_a_missing_peft_is_named(r1: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['peft'] = None\n")
    done = r1(
        "sft",
        "--model",
        str(tiny),
        "--lora",
        "8",
        "-o",
        "run",
        "-",
        stdin=LESSONS,
        env={"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
    )
    assert_error(done, 3, "--lora needs the package `peft`", "r1cli[lora]")


def test_two_processes_train_the_same_adapter(r1: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(LESSONS)
    words = [
        "sft",
        "--model",
        str(tiny),
        "--lora",
        "4",
        "--lr",
        "1e-2",
        "--batch-rows",
        "4",
        "--epochs",
        "1",
        "--dtype",
        "float32",
        "rows.jsonl",
    ]
    alone = r1(*words, "-o", "alone")
    assert alone.returncode == 0, alone.stderr
    launch = "--cpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0 -m r1cli"
    both = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *launch.split(), *words, "-o", "both"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert both.returncode == 0, both.stderr
    one, two = records(tmp_path / "alone"), records(tmp_path / "both")
    assert [record["loss"] for record in two] == pytest.approx([record["loss"] for record in one], rel=1e-4) and len(two) == 3
    ours, theirs, base = (load_file(place / "model.safetensors") for place in (tmp_path / "both/final", tmp_path / "alone/final", tiny))
    moved = max(float((ours[name] - base[name]).abs().max()) for name in base)
    assert ours.keys() == base.keys() and moved > 1e-2
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in base) < 2e-4
