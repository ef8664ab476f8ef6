"""Run directories: what is in them, what resuming drops, what --force removes."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from r1cli.errors import R1Error
from r1cli.io import manifest, run_dir
from r1cli.io.checkpoint_folders import checkpoints
from r1cli.io.run_dir import RunDir


@dataclass(frozen=True)
class Settings:
    lr: float = 0.1
    inputs: tuple[str, ...] = ("a.jsonl",)
    keep: int = 2


def open_run(path: Path, settings: Any = Settings(), **options: bool) -> RunDir:
    return RunDir.open(path, settings=settings, sources={"lr": "flag"}, command="grpo", **options)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def save(run: RunDir, step: int) -> None:
    with run.checkpoint(step, loss=0.5) as folder:
        (folder / "model.safetensors").write_text(f"weights {step}")


def test_what_a_new_run_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_token")
    monkeypatch.setenv("VLLM_API_KEY", "hf_secret_token")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with open_run(tmp_path / "run") as run:
        run.metrics({"step": 1, "reward": 0.5})
        run.samples([{"id": "a", "completion": "é"}], step=1)
    config = json.loads((run.path / "config.json").read_text())
    assert config["command"] == "grpo"
    assert config["settings"] == {"lr": 0.1, "inputs": ["a.jsonl"], "keep": 2}
    assert config["sources"] == {"lr": "flag"}
    assert config["versions"]["torch"]
    record = lines(run.path / "metrics.jsonl")[0]
    assert (record["step"], record["reward"], list(record)[:2]) == (1, 0.5, ["step", "time"])
    assert lines(run.path / "samples.jsonl") == [{"step": 1, "id": "a", "completion": "é"}]
    assert json.loads((run.path / "env.json").read_text())["variables"]["OMP_NUM_THREADS"] == "1"
    assert (run.path / "logs" / "latest").resolve() == run.path / "logs" / "attempt_1" == run.logs
    assert run_dir.is_run_dir(run.path)
    for file in run.path.rglob("*"):
        assert file.is_dir() or "hf_secret_token" not in file.read_text()


def test_metrics_are_on_disk_at_once_and_finite(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run")
    run.metrics({"step": 1, "time": 12.0, "loss": 1})
    assert lines(run.path / "metrics.jsonl") == [{"step": 1, "time": 12.0, "loss": 1}]
    with pytest.raises(R1Error, match=r"step 2: metrics\.jsonl would hold a number that is not finite"):
        run.metrics({"step": 2, "loss": float("nan")})
    with pytest.raises(ValueError, match="integer step"):
        run.metrics({"loss": 1.0})
    assert len(lines(run.path / "metrics.jsonl")) == 1


def test_a_used_directory_is_refused_with_three_ways_out(tmp_path: Path) -> None:
    with open_run(tmp_path / "run") as run:
        run.metrics({"step": 1})
    with pytest.raises(R1Error, match="is in use") as caught:
        open_run(tmp_path / "run")
    assert caught.value.code == 2
    assert all(way in (caught.value.hint or "") for way in ("--resume", "--force", "another name"))
    with pytest.raises(R1Error, match="exclude each other"):
        open_run(tmp_path / "run", resume=True, force=True)


STEPS = ["metrics.jsonl", "samples.jsonl", "checkpoints/step_000001/part", "final/part", "manifest.json"]
ROWS = ["traces.jsonl", "kept.jsonl", "train.jsonl"]


@pytest.mark.parametrize("left", [*STEPS, *ROWS])
def test_a_start_that_failed_before_its_first_step_is_in_nobodys_way(tmp_path: Path, left: str) -> None:
    open_run(tmp_path / "run").close()
    (tmp_path / "run/prompts.jsonl").write_text("a copy of the input")
    (tmp_path / "run/traces.jsonl").touch()
    assert not run_dir.check_unused(tmp_path / "run")
    with open_run(tmp_path / "run", Settings(lr=2e-6)) as run:
        assert (run.attempt, run.resumed_step, run.changed) == (1, None, {})
        assert json.loads((run.path / "config.json").read_text())["settings"]["lr"] == 2e-6
        (run.path / left).parent.mkdir(exist_ok=True)
        (run.path / left).write_text("what took work")
    with pytest.raises(R1Error, match="is in use"):
        open_run(tmp_path / "run")


def test_force_removes_a_run_and_never_anything_else(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run")
    run.metrics({"step": 1})
    save(run, 1)
    (run.path / "notes.txt").write_text("mine")
    again = open_run(tmp_path / "run", force=True)
    assert (again.attempt, again.resumed_step, checkpoints(again.path)) == (1, None, [])
    assert (again.path / "metrics.jsonl").read_text() == ""
    assert (again.path / "notes.txt").read_text() == "mine"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "final").write_text("not a run's")
    for options in ({}, {"force": True}, {"resume": True}):
        with pytest.raises(R1Error, match="files that are not a run's"):
            open_run(tmp_path / "home", **options)
    assert (tmp_path / "home" / "final").exists()


def test_a_checkpoint_is_whole_when_its_block_ended(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run")
    assert run.latest_checkpoint() is None
    save(run, 5)
    with pytest.raises(KeyboardInterrupt), run.checkpoint(10) as folder:
        (folder / "model.safetensors").write_text("half")
        raise KeyboardInterrupt
    assert run.latest_checkpoint() == run.path / "checkpoints" / "step_000005"
    found = manifest.read(run.path / "checkpoints" / "step_000005")
    assert found is not None
    assert (found["step"], found["loss"]) == (5, 0.5)
    save(run, 10)
    assert (run.path / "checkpoints" / "step_000010" / "model.safetensors").read_text() == "weights 10"


def test_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run")
    for step in (5, 10, 999_999, 1_000_000):
        save(run, step)
    assert [folder.name for folder in sorted((run.path / "checkpoints").iterdir())] == ["step_1000000", "step_999999"]
    assert run.latest_checkpoint() == run.path / "checkpoints" / "step_1000000"


def test_resume_drops_torn_and_later_lines(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run")
    for step in range(1, 8):
        run.metrics({"step": step, "x": step})
        run.samples([{"id": step}], step=step)
        if step == 5:
            save(run, step)
    run.close()
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "ti')
    with open_run(tmp_path / "run", Settings(lr=0.2), resume=True) as again:
        assert (again.attempt, again.resumed_step) == (2, 5)
        assert again.changed == {"lr": (0.1, 0.2)}
        again.metrics({"step": 6, "x": "new"})
    assert [(record["step"], record["x"]) for record in lines(run.path / "metrics.jsonl")] == [*((n, n) for n in range(1, 6)), (6, "new")]
    assert [record["id"] for record in lines(run.path / "samples.jsonl")] == [1, 2, 3, 4, 5]
    assert (run.path / "logs" / "latest").readlink() == Path("attempt_2")
    assert json.loads((run.path / "logs" / "attempt_1" / "config.json").read_text())["settings"]["lr"] == 0.1


def test_a_run_that_was_copied_with_links_followed_goes_on(tmp_path: Path) -> None:
    with open_run(tmp_path / "run") as run:
        save(run, 4)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert (tmp_path / "copy/logs/latest").is_dir() and not (tmp_path / "copy/logs/latest").is_symlink()
    with open_run(tmp_path / "copy", resume=True) as copied:
        assert copied.resumed_step == 4
    assert (tmp_path / "copy/logs/latest").readlink() == Path("attempt_2")


def test_resume_without_a_checkpoint_or_a_run_starts_at_zero(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", resume=True) as run:
        assert (run.attempt, run.resumed_step, run.changed) == (1, None, {})
        run.metrics({"step": 1})
    with open_run(tmp_path / "run", resume=True) as run:
        assert (run.attempt, run.resumed_step) == (2, None)
    assert (run.path / "metrics.jsonl").read_text() == ""


def test_finish_makes_the_final_model_the_one_to_take(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run")
    save(run, 5)
    run.final.mkdir()
    assert run_dir.final_or_latest(run.path) == run.latest_checkpoint()
    run.finish({"command": "grpo", "counts": {"rows": 7}})
    assert run_dir.final_or_latest(run.path) == run.final
    found = manifest.read(run.path)
    assert found is not None
    assert (found["command"], found["counts"], found["attempts"]) == ("grpo", {"rows": 7}, 1)


def test_code_diff_holds_what_git_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(tmp_path)]
    (tmp_path / "reward.py").write_text("one\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "reward.py").write_text("two\n")
    monkeypatch.chdir(tmp_path)
    run = open_run(tmp_path / "runs" / "run")
    diff = (run.path / "code.diff").read_text()
    assert "-one\n+two\n" in diff
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert {"tree": str(tmp_path), "commit": commit} in json.loads((run.path / "env.json").read_text())["git"]


def test_manifests_of_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"id": 1}\n')
    path = manifest.write(
        tmp_path / "a.jsonl",
        command="mix",
        settings=Settings(),
        inputs=[manifest.describe("-", 3)],
        outputs=[tmp_path / "a.jsonl"],
        counts={"out": 1},
        started=0.0,
    )
    assert path == tmp_path / "a.jsonl.manifest.json"
    found = manifest.read(tmp_path / "a.jsonl")
    assert found is not None
    assert found["inputs"] == [{"name": "-", "rows": 3}]
    assert found["outputs"][0]["sha256"] == "82b0cf5da91b6a7e02f031e2da2fa5ed1261dce4c85ae20d63db9d1e84a4c384"
    assert found["outputs"][0]["bytes"] == 10
    assert found["settings"]["lr"] == 0.1
    assert found["seconds"] > 1e9
    assert manifest.read(tmp_path) is None
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(R1Error, match="cannot be read"):
        manifest.read(tmp_path)
