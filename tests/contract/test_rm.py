"""`r1 rm` as a shell runs it, on the tiny model: learning, files, resuming, what is left out and what is refused."""

import json
import math
import shutil
import signal
import subprocess
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.contract.conftest import Run, assert_error, command_line, environment
from tests.contract.test_sft_stops import assert_ended_by_the_clock
from tests.contract.test_training import figures, records
from tests.fake_server import FakeServer, send

FLAGS = ["--dtype", "float32", "--batch-rows", "8", "--lr", "5e-3"]
WORDS = ["red", "blue", "green", "white", "black", "brown"]


def pairs(first: int, count: int, **more: Any) -> str:
    """Pairs whose better reply says "yes"; the longer one is chosen in half of them."""
    rows = []
    for number in range(first, first + count):
        dots = "." * (number % 4)
        chosen, rejected = f"yes {WORDS[number % 6]}{dots}", f"no {WORDS[number % 6]}{'.' * (3 - number % 4)}"
        rows.append({"id": f"p{number}", "prompt": f"Is {number} a number?", "chosen": chosen, "rejected": rejected, **more})
    return "".join(json.dumps(row) + "\n" for row in rows)


def labelled(first: int, count: int) -> str:
    rows = [
        {"id": f"c{n}", "prompt": f"Is {n} a number?", "completion": f"{'yes' if n % 2 else 'no'} {WORDS[n % 6]}", "label": n % 2}
        for n in range(first, first + count)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_pairs_become_a_classifier_that_prefers_as_they_do(r1: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "held.jsonl").write_text(pairs(100, 12))
    words = ["rm", "--model", str(tiny), "-o", "run", *FLAGS, "--epochs", "4", "--held-out", "held.jsonl", "--held-out-every", "8", "-"]
    done = r1(*words, stdin=pairs(0, 32))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    lines = records(tmp_path / "run")
    assert len(lines) == 16 and lines[-1]["loss"] < lines[0]["loss"] / 2 and lines[-1]["accuracy"] == 1.0
    assert [line["step"] for line in lines if "held_out_accuracy" in line] == [8, 16]
    found = json.loads((tmp_path / "run/held_out.json").read_text())
    assert (found["kind"], found["rows"], found["accuracy"]) == ("pairs", 12, 1.0)
    assert found["accuracy_low"] < 1.0 and found["length_accuracy"] < 0.9
    assert found["loss"] == pytest.approx(lines[-1]["held_out_loss"], abs=1e-6)
    assert "held out: 12 pairs about 12 prompts" in done.stderr and "expected calibration error" in done.stderr
    assert_error(r1(*words, stdin=pairs(0, 32)), 2, "`run`", "--resume")
    assert_loads(tmp_path / "run/final", found)
    assert scored_by_reject(r1) == pytest.approx(found["margin_mean"], rel=1e-3)
    again = r1("rm", "-c", "run", "-o", "again", "--dry-run", stdin=pairs(0, 32))
    assert again.returncode == 0 and "on 32 pairs" in again.stderr and "16 steps of 8" in again.stderr, again.stderr
    report = r1("report", "run", "--json", "-o", "page.html")
    assert json.loads(report.stdout)["runs"][0]["held_out"] == found


def scored_by_reject(r1: Run) -> float:
    """The held-out rows' mean margin as `--reward-model` of other commands gives it: logits of the two scores, subtracted."""
    rows = [json.loads(line) for line in pairs(100, 12).splitlines()]
    text = "".join(
        json.dumps({"id": row["id"], "prompt": row["prompt"], "sample": n, "completion": row[side], "finish_reason": "stop"}) + "\n"
        for row in rows
        for n, side in enumerate(("chosen", "rejected"))
    )
    words = ["--rewards", "format", "--keep", "all", "--reward-model", "mine=run:view=full:dtype=float32"]
    done = r1("reject", *words, "-", stdin=text)
    assert done.returncode == 0, done.stderr
    scores = [json.loads(line)["rewards"]["mine"] for line in done.stdout.splitlines()]
    logits = [math.log(score / (1 - score)) for score in scores]
    return sum(a - b for a, b in zip(logits[::2], logits[1::2], strict=True)) / len(rows)


def assert_loads(folder: Path, found: dict[str, Any]) -> None:
    """transformers loads what was written and gives the scores that were measured, in a padded batch."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    config = json.loads((folder / "config.json").read_text())
    assert (config["architectures"], config["id2label"], config["pad_token_id"]) == (
        ["LlamaForSequenceClassification"],
        {"0": "LABEL_0"},
        0,
    )
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rows = [json.loads(line) for line in pairs(100, 12).splitlines()]
    texts = []
    for row in rows:
        for side in ("chosen", "rejected"):
            turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[side]}]
            texts.append(tokenizer.apply_chat_template(turns, tokenize=False))
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    batch.pop("token_type_ids", None)
    margins = model(**batch).logits.view(-1, 2).detach()
    assert float((margins[:, 0] - margins[:, 1]).mean()) == pytest.approx(found["margin_mean"], rel=1e-4)
    assert float(margins.mean()) == pytest.approx(found["score_mean"], abs=1e-4)


def test_labels_become_a_classifier_too(r1: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "held.jsonl").write_text(labelled(100, 10))
    done = r1("rm", "--model", str(tiny), "-o", "run", *FLAGS, "--epochs", "4", "--held-out", "held.jsonl", "-", stdin=labelled(0, 32))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run/held_out.json").read_text())
    assert (found["kind"], found["accuracy"], found["auc"], found["majority_accuracy"]) == ("labels", 1.0, 1.0, 0.5)
    assert "area under the ROC curve" in done.stderr


def test_killed_and_resumed_is_the_run_that_was_not(r1: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(pairs(0, 40))
    (tmp_path / "held.jsonl").write_text(pairs(100, 6))
    words = ["rm", "--model", str(tiny), *FLAGS, "--epochs", "4", "--save-every", "2", "--keep", "20", "--center", "0.01"]
    words += ["--held-out", "held.jsonl", "--held-out-every", "3", "pairs.jsonl"]
    straight = r1(*words, "-o", "straight")
    assert straight.returncode == 0, straight.stderr
    killed = subprocess.Popen([*command_line(), *words, "-o", "killed"], cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not (tmp_path / "killed/checkpoints/step_000004/manifest.json").exists():
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    resumed = r1(*words, "-o", "killed", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert figures(tmp_path / "killed") == figures(tmp_path / "straight")
    assert (tmp_path / "killed/held_out.json").read_text() == (tmp_path / "straight/held_out.json").read_text()
    ours, theirs = (load_file(tmp_path / name / "final/model.safetensors") for name in ("killed", "straight"))
    assert all((ours[name] == theirs[name]).all() for name in theirs)


@pytest.mark.parametrize(("command", "number"), [("rm", signal.SIGTERM), ("rm", signal.SIGINT), ("sft", signal.SIGTERM)])
def test_a_signal_saves_first(r1: Run, tiny: Path, tmp_path: Path, command: str, number: int) -> None:
    rows = pairs(0, 40) if command == "rm" else labelled(0, 40)
    (tmp_path / "rows.jsonl").write_text(rows)
    words = [command, "--model", str(tiny), *FLAGS, "--epochs", "400", "-o", "run", "rows.jsonl"]
    process = subprocess.Popen([*command_line(), *words], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
    metrics, deadline = tmp_path / "run/metrics.jsonl", time.monotonic() + 200
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert "saving what is done, then ending" in said
    kept = sorted((tmp_path / "run/checkpoints").glob("step_*/manifest.json"))
    assert int(kept[-1].parent.name.removeprefix("step_")) == records(tmp_path / "run")[-1]["step"]


def test_a_time_limit_ends_the_run_in_time_and_it_goes_on(r1: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(pairs(0, 40))
    assert_ended_by_the_clock(r1, ["rm", "--model", str(tiny), *FLAGS, "pairs.jsonl"], tmp_path, rows=40, batch_rows=8)


def test_what_is_left_out_is_counted_and_said(r1: Run, tiny: Path) -> None:
    long = {"id": "long", "prompt": "a", "chosen": "word " * 200, "rejected": "b"}
    same = {"id": "same", "prompt": "a", "chosen": "b", "rejected": "b"}
    open_ = {"id": "open", "prompt": "a", "chosen": "<think>never", "rejected": "b"}
    uneven = {"id": "uneven", "prompt": "a", "chosen": "b" + "!" * 60, "rejected": "b"}
    rows = pairs(0, 12) + "".join(json.dumps(row) + "\n" for row in (long, same, open_, uneven))
    words = ["rm", "--model", str(tiny), "-o", "run", "--max-length", "100", "--view", "summary", "--balance-lengths", "--dry-run", "-"]
    done = r1(*words, stdin=rows)
    assert done.returncode == 0, done.stderr
    assert "1 rows left out: longer than --max-length 100 tokens (the first: `long`)" in done.stderr
    assert "1 rows left out: both sides are equal (the first: `same`)" in done.stderr
    assert "1 rows left out: a reply has no summary" in done.stderr
    assert "rows left out: to balance the lengths of chosen and rejected (the first: `uneven`)" in done.stderr
    assert "on 12 pairs" in done.stderr


@pytest.mark.parametrize(
    ("rows", "flags", "message", "hint"),
    [
        ("", [], "no rows to train on", "prompt, chosen, rejected"),
        ('{"id": "x", "text": "no"}\n', [], "stdin:1: row `x` has neither `chosen` and `rejected`", "--map chosen=COLUMN"),
        ('{"id": "x", "chosen": "a", "rejected": "b"}\n', [], "stdin:1: row `x` has no `prompt`", "--template raw"),
        (pairs(0, 2) + labelled(0, 2), [], "kinds: 2 pairs and 2 labelled completions (the first: stdin:3 row `c0`)", "two models"),
        (labelled(0, 2).splitlines()[1], [], "labels: 1 completions, 100% labelled 1", "the other label"),
        (labelled(0, 4), ["--balance-lengths"], "--balance-lengths does nothing for labelled completions", "leave it out"),
        (labelled(0, 4), ["--center", "0.1"], "--center does nothing for labelled completions", "leave it out"),
        (pairs(0, 2), ["--margin", "gap"], "stdin:1: row `p0` has no field `gap`", "--map gap=COLUMN"),
        (pairs(0, 2), ["--held-out-every", "2"], "--held-out-every without --held-out measures nothing", "--held-out FILE"),
        (pairs(0, 2), ["--time-limit", "soon"], "`--time-limit` must be a time", "3h30m"),
        (pairs(0, 2), ["--max-length", "3"], "no rows to use: 2 read, 2 left out: longer than --max-length 3 tokens", "--max-length"),
        (pairs(0, 2, rejected="b", chosen="b"), [], "no rows to use: 2 read, 2 left out: both sides are equal", "two different replies"),
        (pairs(0, 2), ["--template", "boxed"], "`--template` must be one of `chat`, `raw`", ""),
    ],
)
def test_what_cannot_be_trained_on_is_refused(
    r1: Run, tiny: Path, tmp_path: Path, rows: str, flags: list[str], message: str, hint: str
) -> None:
    done = r1("rm", "--model", str(tiny), *flags, "-o", "run", "-", stdin=rows)
    assert done.returncode == 2, done.stderr
    said = done.stderr.splitlines()
    assert said[-3].startswith("error: ") and message in said[-3] and hint in said[-1], done.stderr
    assert not (tmp_path / "run").exists()


def test_held_out_rows_must_be_others_of_the_same_kind(r1: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "same.jsonl").write_text(pairs(0, 1))
    (tmp_path / "labels.jsonl").write_text(labelled(0, 1))
    words = ["rm", "--model", str(tiny), "-o", "run", "--held-out"]
    assert_error(r1(*words, "same.jsonl", "-", stdin=pairs(0, 4)), 2, "row `p0` of --held-out is also trained on", "--validation")
    assert_error(r1(*words, "labels.jsonl", "-", stdin=pairs(0, 4)), 2, "has another kind of rows than the training set", "both are")


def test_held_out_rows_that_cannot_be_used_are_called_so(r1: Run, tiny: Path, tmp_path: Path) -> None:
    """And a dry run looks at them, too."""
    (tmp_path / "long.jsonl").write_text(pairs(4, 2, chosen="word " * 200))
    words = ["rm", "--model", str(tiny), "-o", "run", "--max-length", "100", "--held-out", "long.jsonl"]
    for more in ([], ["--dry-run"]):
        done = r1(*words, *more, "-", stdin=pairs(0, 4))
        assert_error(done, 2, "no held-out rows to use: 2 read, 2 left out: longer than --max-length 100 tokens", "another --held-out")
        assert not (tmp_path / "run").exists()


def test_raw_texts_carry_their_template_into_the_checkpoint(r1: Run, tiny: Path, tmp_path: Path) -> None:
    rows = [{"id": n, "chosen": f"Q: {n}? A: yes", "rejected": f"Q: {n}? A: no"} for n in range(8)]
    done = r1(
        "rm", "--model", str(tiny), *FLAGS, "--template", "raw", "-o", "run", "-", stdin="".join(json.dumps(row) + "\n" for row in rows)
    )
    assert done.returncode == 0, done.stderr
    from transformers import AutoTokenizer

    turns = [{"role": "user", "content": "Q: 1? "}, {"role": "assistant", "content": "A: yes"}]
    assert AutoTokenizer.from_pretrained(tmp_path / "run/final").apply_chat_template(turns, tokenize=False) == "Q: 1? A: yes<|im_end|>"


def test_a_reward_model_is_a_start_for_another(r1: Run, tiny: Path, tmp_path: Path) -> None:
    first = r1("rm", "--model", str(tiny), *FLAGS, "-o", "first", "-", stdin=pairs(0, 32))
    assert first.returncode == 0, first.stderr
    second = r1("rm", "--model", "first", *FLAGS, "--lr", "0", "-o", "second", "-", stdin=pairs(0, 32))
    assert second.returncode == 0, second.stderr
    ours, theirs = (load_file(tmp_path / name / "final/model.safetensors") for name in ("first", "second"))
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    prompt = json.dumps({"prompt": "?", "completion": "!"}) + "\n"
    for words in (["sft", "-o", "sft"], ["sample", "--engine", "transformers"]):
        refused = r1(*words, "--model", "first", "-", stdin=prompt)
        assert_error(refused, 2, "is a reward model (or another classifier): it writes nothing", "--reward-model NAME=FOLDER")
    assert not (tmp_path / "sft").exists()


def test_pairs_of_a_judge_flow_into_a_reward_model(r1: Run, tiny: Path, tmp_path: Path) -> None:
    """DeepSeek-R1's helpful model: `r1 reject --pairs` with a judge, four comparisons with A and B swapped, balanced lengths, `r1 rm`."""
    rows = [json.loads(line) for line in pairs(0, 24).splitlines()]
    drawn = [
        {"id": row["id"], "prompt": row["prompt"], "sample": place, "completion": f"<think>hm</think>{row[side]}", "finish_reason": "stop"}
        for row in rows
        for place, side in enumerate(("rejected", "chosen"))
    ]

    def prefers_yes(handler: BaseHTTPRequestHandler) -> None:
        question = server.requests[-1][1]["messages"][0]["content"]
        first = question[question.index("<answer A") : question.index("</answer A")]
        choice = {"index": 0, "message": {"role": "assistant", "content": "[[A>>B]]" if "yes" in first else "[[B>>A]]"}}
        send(handler, 200, {"choices": [{**choice, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 5}})

    with FakeServer(always=prefers_yes) as server:
        words = ["reject", "--preset", "r1-helpful-rm", "--judge", server.url, "--batch-size", "1", "-o", "pairs.jsonl"]
        made = r1(*words, stdin="".join(json.dumps(row) + "\n" for row in drawn))
        assert made.returncode == 0, made.stderr
        assert len(server.requests) == 4 * 24
    kept = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert all("yes" in row["chosen"] and row["margin"] == 2.0 for row in kept)
    lengths = [sum(len(row[side]) for row in kept) for side in ("chosen", "rejected")]
    assert len(kept) > 12 and abs(lengths[0] - lengths[1]) <= 0.1 * max(lengths)
    flags = ["--preset", "r1-helpful-rm", *FLAGS, "--epochs", "4"]
    done = r1("rm", "--model", str(tiny), *flags, "-o", "run", "-", stdin=(tmp_path / "pairs.jsonl").read_text())
    assert done.returncode == 0, done.stderr
    assert records(tmp_path / "run")[-1]["accuracy"] == 1.0
    assert f"rm: {len(kept)} pairs" in done.stderr


def test_check_looks_at_preference_rows(r1: Run, tiny: Path) -> None:
    row = json.loads(pairs(0, 1))
    rows = [row, {**row, "chosen": row["rejected"], "rejected": row["chosen"]}, {**row, "id": "same", "rejected": row["chosen"]}]
    text = pairs(1, 9) + "".join(json.dumps(row) + "\n" for row in rows)
    done = r1("check", "--model", str(tiny), "--json", "-", stdin=text)
    assert done.returncode == 0, done.stderr
    found = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert {name: finding["level"] for name, finding in found.items()} == {
        "pairs": "ok", "equal sides": "warn", "contradictions": "warn", "lengths": "ok", "padding": "ok", "length": "ok",
    }  # fmt: skip
    assert found["contradictions"]["text"].startswith("2 pairs are there with the sides swapped too")
    long = "".join(json.dumps({"prompt": f"{n}?", "chosen": "a long reply", "rejected": "short"}) + "\n" for n in range(30))
    assert "warn lengths: the longer reply is the chosen one in 100% of the pairs" in r1("check", "-", stdin=long).stdout
    one_sided = r1("check", "-", stdin=labelled(0, 1))
    assert one_sided.returncode == 1 and "fail labels: 1 completions, 0% labelled 1 (safe)" in one_sided.stdout


def test_adapters_are_a_way_to_a_plain_classifier(r1: Run, tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    (tmp_path / "pairs.jsonl").write_text(pairs(0, 32))
    (tmp_path / "held.jsonl").write_text(pairs(100, 12))
    words = ["rm", "--model", str(tiny), "--dtype", "float32", "--batch-rows", "8", "--lr", "1e-2", "--lora", "8", "--epochs", "4"]
    words += ["--save-every", "4", "--held-out", "held.jsonl", "pairs.jsonl"]
    straight = r1(*words, "-o", "straight")
    assert straight.returncode == 0, straight.stderr
    found = json.loads((tmp_path / "straight/held_out.json").read_text())
    assert found["accuracy"] == 1.0
    assert_loads(tmp_path / "straight/final", found)
    shutil.copytree(tmp_path / "straight", tmp_path / "cut", symlinks=True)
    for name in ("final", "checkpoints/step_000012", "manifest.json"):
        path = tmp_path / "cut" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    resumed = r1(*words, "-o", "cut", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert figures(tmp_path / "cut") == figures(tmp_path / "straight")
    ours, theirs = (load_file(tmp_path / name / "final/model.safetensors") for name in ("cut", "straight"))
    assert all((ours[name] == theirs[name]).all() for name in theirs)
