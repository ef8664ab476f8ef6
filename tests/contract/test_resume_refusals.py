"""`--resume` in the directory of another run: another command, model, data or adapter. Nothing may be written there."""

import json
import shutil
from pathlib import Path

import pytest

from tests.contract.conftest import Run, assert_error
from tests.contract.test_launch import TWO, rewind
from tests.contract.test_rm import pairs
from tests.contract.test_training import GRPO, LESSONS, PROMPTS
from tests.contract.test_training_survives import RM, SFT, contents, prepared
from tests.tiny import tiny_model

SAVING = ["--save-every", "1", "--keep", "9"]
WORDS = {
    "sft": [*SFT, *SAVING, "lessons.jsonl"],
    "rm": [*RM[:-2], *SAVING, "pairs.jsonl"],
    "grpo": [*GRPO, "problems.jsonl", "--add", "more.jsonl@2"],
}


def files(folder: Path) -> None:
    (folder / "lessons.jsonl").write_text(LESSONS)
    (folder / "problems.jsonl").write_text(PROMPTS)
    (folder / "more.jsonl").write_text(PROMPTS.replace("What is", "Tell me"))
    (folder / "pairs.jsonl").write_text(pairs(0, 16))
    (folder / "mine.py").write_text("def brief(row):\n    return -len(row['completion']) / 100\n")


@pytest.fixture(scope="module")
def runs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of each command: sft, rm, grpo; and one of adapters."""
    folder = tmp_path_factory.mktemp("runs")
    files(folder)
    for command, words in WORDS.items():
        done = prepared("", [command, "--model", str(tiny), *words, "-o", command], folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def at(runs: Path, tmp_path: Path) -> Path:
    """A folder of this test's own with the same files and runs."""
    shutil.copytree(runs, tmp_path, symlinks=True, dirs_exist_ok=True)
    for command in WORDS:
        config = tmp_path / command / "config.json"
        config.write_text(config.read_text().replace(str(runs), str(tmp_path)))
    return tmp_path


@pytest.mark.parametrize(("command", "other", "finished"), [("sft", "grpo", False), ("grpo", "sft", True), ("rm", "sft", False)])
def test_a_run_of_another_command_is_left_alone(r1: Run, tiny: Path, at: Path, command: str, other: str, finished: bool) -> None:
    if not finished:
        rewind(at / other, 2)
    before = contents(at / other)
    done = r1(command, "--model", str(tiny), *WORDS[command], "-o", other, "--resume")
    assert done.returncode == 2, done.stderr
    assert f"error: `{other}` holds a run of `r1 {other}`, not of `r1 {command}`" in done.stderr and "-o another name" in done.stderr
    assert contents(at / other) == before


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
def test_another_model_and_other_files_are_refused(r1: Run, tiny: Path, at: Path, finished: bool) -> None:
    if not finished:
        rewind(at / "sft", 2)
    before = contents(at / "sft")
    other = tiny_model(at / "other", seed=3)
    (at / "again.jsonl").write_text((at / "lessons.jsonl").read_text().replace("What is", "What was"))
    words = ["sft", *WORDS["sft"], "-o", "sft", "--resume"]
    assert_error(r1(*words, "--model", str(other)), 2, f"`sft` is a run with --model `{tiny}`, not `{other}`", "-o another name; --force")
    words[words.index("lessons.jsonl")] = "again.jsonl"
    assert_error(r1(*words, "--model", str(tiny)), 2, "the rows are not those that `sft/", "give those rows again")
    assert contents(at / "sft") == before
    shutil.copy(at / "lessons.jsonl", at / "again.jsonl")
    done = r1(*words, "--model", str(tiny))
    assert done.returncode == 0 and "--inputs was ['lessons.jsonl'] when the run started, now ['again.jsonl']" in done.stderr, done.stderr


def test_the_same_files_by_other_names_are_the_same(r1: Run, tiny: Path, at: Path) -> None:
    """Named from elsewhere, through a link, in a renamed directory; the model as a run, and as its `final/`."""
    words = ["sft", "--model", "sft", *WORDS["sft"], "-o", "second"]
    done = r1(*words)
    assert done.returncode == 0, done.stderr
    (at / "linked.jsonl").symlink_to("lessons.jsonl")
    (at / "second").rename(at / "renamed")
    (at / "elsewhere").mkdir()
    again = r1("sft", "--model", "./sft/final", *WORDS["sft"][:-1], "linked.jsonl", "-o", str(at / "renamed"), "--resume")
    assert again.returncode == 0 and "already done, 6 steps" in again.stderr and "warning" not in again.stderr, again.stderr
    there = prepared(
        "", ["sft", "--model", "../sft", *WORDS["sft"][:-1], "../lessons.jsonl", "-o", "../renamed", "--resume"], at / "elsewhere"
    )
    assert there.returncode == 0 and "warning" not in there.stderr, there.stderr


def test_other_settings_of_a_finished_run_are_said(r1: Run, tiny: Path, at: Path) -> None:
    before = contents(at / "sft")
    done = r1("sft", "--model", str(tiny), *WORDS["sft"], "--seed", "7", "-o", "sft", "--resume")
    assert done.returncode == 0 and "warning: --seed was 0 when the run started, now 7" in done.stderr, done.stderr
    assert "already done, 6 steps" in done.stderr and contents(at / "sft") == before


@pytest.mark.parametrize(
    ("command", "name", "finished"),
    [("sft", "lessons.jsonl", False), ("sft", "lessons.jsonl", True), ("rm", "pairs.jsonl", False), ("grpo", "more.jsonl", False)],
)
def test_rows_that_were_changed_in_place_are_refused(r1: Run, tiny: Path, at: Path, command: str, name: str, finished: bool) -> None:
    if not finished:
        rewind(at / command, 2)
    before = contents(at / command)
    words = [command, "--model", str(tiny), *WORDS[command], "-o", command, "--resume"]
    (at / name).write_text((at / name).read_text().replace("1", "7", 4))
    done = r1(*words)
    assert done.returncode == 2, done.stderr
    assert f"error: the rows are not those that `{command}/" in done.stderr and "hint: give those rows again" in done.stderr
    assert contents(at / command) == before


def test_other_rows_on_stdin_are_refused_and_an_older_checkpoint_is_accepted(r1: Run, tiny: Path, tmp_path: Path) -> None:
    words = ["sft", "--model", str(tiny), *SFT, *SAVING, "-o", "run"]
    assert r1(*words, stdin=LESSONS).returncode == 0
    rewind(tmp_path / "run", 4)
    fewer = "".join(LESSONS.splitlines(keepends=True)[:4])
    assert_error(
        r1(*words, "--resume", stdin=fewer), 2, "the rows are not those that `run/checkpoints/step_000004` was trained on", "--limit"
    )
    for manifest in (tmp_path / "run/checkpoints").glob("*/manifest.json"):
        manifest.write_text(json.dumps({name: value for name, value in json.loads(manifest.read_text()).items() if name != "data"}))
    done = r1(*words, "--resume", stdin=fewer)  # 2 steps in all, and 4 are behind it
    assert done.returncode == 0 and "sft: 4 rows, 4 steps" in done.stderr, done.stderr
    for name in ("run/manifest.json", "run/final/manifest.json"):
        assert json.loads((tmp_path / name).read_text())["counts"]["steps"] == 4
    assert json.loads((tmp_path / "run/final/manifest.json").read_text())["step"] == 4


@pytest.mark.parametrize(
    ("command", "name"),
    [("grpo", "grpo_progress_0.pt"), ("grpo", "random_state_0.pt"), ("sft", "random_state_0.pt"), ("sft", "alarms.json")],
)
def test_a_checkpoint_that_lost_a_state_is_not_another_run(r1: Run, tiny: Path, at: Path, command: str, name: str) -> None:
    """It went on with exit 0: other prompts, no rollout, alarms without a memory. Of a run of another command there is no such file."""
    rewind(at / command, 2)
    lost = at / command / "checkpoints/step_000002" / name
    lost.unlink()
    before = contents(at / command)
    words = [command, "--model", str(tiny), *WORDS[command], "-o", command, "--resume"]
    folder = f"{command}/checkpoints/step_000002"
    assert_error(
        r1(*words), 2, f"`{folder}` has no `{name}` to resume from", f"remove `{folder}`: --resume then takes the checkpoint before"
    )
    assert contents(at / command) == before
    shutil.rmtree(lost.parent)
    done = r1(*words)
    assert done.returncode == 0 and f"resuming `{command}/checkpoints/step_000001`" in done.stderr, done.stderr


def test_two_processes_end_together(r1: Run, tiny: Path, at: Path) -> None:
    rewind(at / "sft", 2)
    (at / "lessons.jsonl").write_text(LESSONS.replace("1", "7"))
    before = contents(at / "sft")
    done = r1("sft", "--model", str(tiny), *WORDS["sft"], *TWO, "-o", "sft", "--resume", timeout=120)
    assert done.returncode == 2 and "error: the rows are not those that `sft/checkpoints/step_000002`" in done.stderr, done.stderr
    assert contents(at / "sft") == before


@pytest.mark.parametrize(
    ("then", "now", "said", "hint"),
    [
        (
            "--lora 4",
            "",
            "`run` trains adapters (--lora 4 --lora-alpha 32 --lora-targets all-linear), and",
            "give --lora 4 --lora-alpha 32",
        ),
        ("", "--lora 4", "`run` trains all weights, and this would go on with --lora 4", "leave out --lora"),
        ("--lora 4", "--lora 4 --lora-alpha 16", "go on with --lora 4 --lora-alpha 16", "give --lora 4"),
        (
            "--lora 4 --lora-targets q_proj,v_proj",
            "--lora 4 --lora-targets q_proj",
            "--lora-targets q_proj",
            "--lora-targets q_proj,v_proj",
        ),
    ],
)
def test_another_adapter_is_refused(r1: Run, tiny: Path, tmp_path: Path, then: str, now: str, said: str, hint: str) -> None:
    pytest.importorskip("peft")
    (tmp_path / "lessons.jsonl").write_text(LESSONS)
    words = ["sft", "--model", str(tiny), *SFT, *SAVING, "lessons.jsonl", "-o", "run"]
    assert r1(*words, *then.split()).returncode == 0
    rewind(tmp_path / "run", 4)
    before = contents(tmp_path / "run")
    assert_error(r1(*words, *now.split(), "--resume"), 2, said, hint)
    assert contents(tmp_path / "run") == before
