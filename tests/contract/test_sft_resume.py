"""What `r1 sft --resume` refuses because it would be another run, and what it goes on with although the day is another."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.contract.conftest import Run, assert_error
from tests.contract.test_training import LESSONS, records
from tests.tiny import CHAT_TEMPLATE, tiny_model

SFT = ["--lr", "1e-2", "--dtype", "float32", "--save-every", "1", "--keep", "99"]


def cut_short(run: Path, step: int) -> None:
    """As if it had ended after a step."""
    shutil.rmtree(run / "final")
    (run / "manifest.json").unlink()
    for folder in (run / "checkpoints").iterdir():
        if int(folder.name.removeprefix("step_")) > step:
            shutil.rmtree(folder)


def test_rows_are_taken_in_the_order_in_which_they_were(r1: Run, tiny: Path, tmp_path: Path) -> None:
    """Steps are counted, and a step of another size, or of another seed, is at another place in the rows."""
    (tmp_path / "rows.jsonl").write_text(LESSONS)
    words = ["sft", "--model", str(tiny), *SFT, "rows.jsonl", "-o", "run"]
    assert r1(*words, "--batch-rows", "2").returncode == 0
    assert_error(r1(*words, "--batch-rows", "4", "--resume", "--epochs", "4"), 2, "took its rows by --batch-rows 2", "give --batch-rows 2")
    longer = r1(*words, "--batch-rows", "2", "--resume", "--epochs", "4", "--seed", "1")
    assert_error(longer, 2, "took its rows by --seed 0, and --seed 1 would", "give --seed 0")
    cut_short(tmp_path / "run", 2)
    assert_error(
        r1(*words, "--batch-rows", "4", "--resume"), 2, "`run` took its rows by --batch-rows 2, and --batch-rows 4 would leave some"
    )
    assert_error(r1(*words, "--batch-rows", "2", "--seed", "1", "--resume"), 2, "took its rows by --seed 0, and --seed 1 would")
    done = r1(*words, "--batch-rows", "2", "--resume")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "run/final")
    shutil.rmtree(tmp_path / "run/checkpoints")
    assert r1(*words, "--batch-rows", "4", "--resume").returncode == 0, "nothing is there that had an order"


def test_a_template_that_prints_the_date_prints_that_of_the_first_start(r1: Run, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "m", chat_template="{{ strftime_now('%d %b %Y %H:%M:%S %f') }}\n" + CHAT_TEMPLATE)
    (tmp_path / "rows.jsonl").write_text(LESSONS)
    words = ["sft", "--model", str(model), *SFT, "--batch-rows", "4", "rows.jsonl", "-o", "run"]
    assert r1(*words).returncode == 0
    done = r1(*words, "--epochs", "6", "--resume")
    assert done.returncode == 0, done.stderr
    assert len(records(tmp_path / "run")) == 6 * len(LESSONS.splitlines()) // 4


def test_an_adapter_goes_on_over_the_weights_that_it_was_trained_on(r1: Run, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model = tiny_model(tmp_path / "m")
    (tmp_path / "rows.jsonl").write_text(LESSONS)
    words = ["sft", "--model", str(model), *SFT, "--batch-rows", "4", "--lora", "4", "rows.jsonl", "-o", "run"]
    assert r1(*words).returncode == 0
    cut_short(tmp_path / "run", 1)
    kept = (model / "model.safetensors").read_bytes()
    tiny_model(model, seed=1)
    said = "the adapter in `run/checkpoints/step_000001` belongs to other weights"
    assert_error(r1(*words, "--resume"), 2, said, "name the model that the run was started with")
    (model / "model.safetensors").write_bytes(kept)
    assert r1(*words, "--resume").returncode == 0


def test_a_held_out_loss_that_is_no_number_costs_nothing_but_itself(r1: Run, tmp_path: Path) -> None:
    """A token whose embedding is broken is in a held-out row only."""
    model = tiny_model(tmp_path / "m", tied=False)
    from transformers import AutoTokenizer

    [token] = AutoTokenizer.from_pretrained(model)("~")["input_ids"]
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"][token] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    assert "~" not in LESSONS
    (tmp_path / "held.jsonl").write_text(LESSONS.replace("What is", "~ And what is"))
    words = ["sft", "--model", str(model), "--lr", "1e-2", "--dtype", "float32", "--batch-rows", "4", "--epochs", "1"]
    done = r1(*words, "--held-out", "held.jsonl", "-o", "run", "-", stdin=LESSONS)
    assert done.returncode == 0, done.stderr
    assert "held_out_loss nan, left out of the metrics" in done.stderr and (tmp_path / "run/final/manifest.json").exists()
    assert all("held_out_loss" not in record for record in records(tmp_path / "run"))
