"""What `r1 grpo` leaves behind, how it ends early (signals, time limit, alarms), and what it refuses before it begins."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.contract.conftest import Run, assert_error, command_line, environment
from tests.contract.test_launch import rewind
from tests.contract.test_sft_stops import late_clock

PROMPTS = "".join(json.dumps({"id": n, "prompt": f"What is {n} + 1?", "answer": str(n + 1)}) + "\n" for n in range(6))
FLAGS = "--engine transformers --rewards mine.py:brief --prompts-per-step 2 --group-size 4 --max-completion-length 12,16@4 --lr 1e-3 "
FLAGS += "--dtype float32 --updates-per-rollout 2 --rollout-lag 0 --reference-mix 0.5 --reference-every 2 --steps 8 "
FLAGS += "--no-mask-truncated --alarm-steps 2"  # the tiny model never ends its turn: else there were no gradient
SHOWN = ["--samples-every", "4", "--verbose"]
BRIEF = "def brief(row):\n    return -len(row['completion']) / 100\n"


def words(tiny: Path, folder: Path, *more: str) -> list[str]:
    (folder / "problems.jsonl").write_text(PROMPTS)
    (folder / "mine.py").write_text(BRIEF)
    return ["grpo", "--model", str(tiny), *FLAGS.split(), *more, "problems.jsonl"]


def figures(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    clock = ("time", "seconds", "tokens_per_second")
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(clock)} for line in lines]


def shown(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def straight(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped; what it said is in `said`."""
    folder = tmp_path_factory.mktemp("straight")
    command = [*command_line(), *words(tiny, folder, *SHOWN), "-o", "run"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "run/said").write_text(done.stderr)
    return folder / "run"


def assert_same(run: Path, straight: Path) -> None:
    assert figures(run) == figures(straight)
    ours, theirs = (load_file(place / "final/model.safetensors") for place in (run, straight))
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_every_step_moves_the_weights(tiny: Path, straight: Path) -> None:
    assert all(record["updates"] == 2 and record["grad_norm"] > 0 for record in figures(straight))
    before, after = load_file(tiny / "model.safetensors"), load_file(straight / "final/model.safetensors")
    assert max(float((after[name] - before[name]).abs().max()) for name in before) > 1e-3
    said = (straight / "said").read_text()
    assert "zero-gradient" not in said and "constant-reward" not in said


def test_a_length_limit_changes_at_its_step(straight: Path) -> None:
    """The limit rises with the rollout that begins after 4 steps; those are what the records of steps 6 and 8 are about."""
    lengths = {record["step"]: record["completion_length"] for record in figures(straight)}
    assert list(lengths) == [2, 4, 6, 8]
    assert all(lengths[step] <= 12 < lengths[later] <= 16 for step in (2, 4) for later in (6, 8))
    longest = {step: max(row["num_tokens"] for row in shown(straight) if row["step"] == step) for step in (2, 4, 8)}
    assert longest == {2: 12, 4: 12, 8: 16}


def test_samples_are_kept_at_the_first_rollout_and_every_so_many_steps(straight: Path) -> None:
    assert [row["step"] for row in shown(straight)] == [2] * 4 + [4] * 4 + [8] * 4
    said = (straight / "said").read_text()
    for step in (2, 4, 8):
        first, second = [row for row in shown(straight) if row["step"] == step][:2]
        for row in (first, second):
            assert f"step {step}, `{row['id']}`\n  prompt: {row['prompt']}\n  completion (length): {row['completion']}\n" in said
            assert f"  reward {row['reward']:g} (brief {row['reward']:g}), advantage {row['advantage']:+.3f}\n" in said
    assert "step 6, `" not in said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_run_goes_on_as_if_nothing_was(
    r1: Run, tiny: Path, straight: Path, tmp_path: Path, number: int, code: int
) -> None:
    command = words(tiny, tmp_path)
    process = subprocess.Popen(
        [*command_line(), *command, "-o", "run"], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200
    metrics = tmp_path / "run/metrics.jsonl"
    while not (metrics.exists() and metrics.read_text()):  # the first rollout is done
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "saving what is done, then ending" in said and ("--resume" in said) is (number == signal.SIGINT)
    assert list((tmp_path / "run/checkpoints").glob("step_*/manifest.json"))
    if number == signal.SIGINT:
        return
    resumed = r1(*command, "-o", "run", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert_same(tmp_path / "run", straight)


@pytest.mark.parametrize("lag", ["0", "1"])
def test_a_time_limit_ends_the_run_in_time_and_it_goes_on(r1: Run, tiny: Path, straight: Path, tmp_path: Path, lag: str) -> None:
    """The first rollout takes forty minutes of an hour, so there is no second one."""
    command = words(tiny, tmp_path, "-o", "run", "--rollout-lag", lag)
    (tmp_path / "mine.py").write_text(BRIEF.replace("    return", "    open('scored', 'a').write('.')\n    return"))
    began = time.time()
    done = r1(*command, "--time-limit", "1h", env=late_clock(tmp_path, "scored"))
    assert done.returncode == 0, done.stderr
    assert "grpo: time limit reached after 2 of 8 steps, 2,4" in done.stderr and "--resume" in done.stderr
    [line] = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["time"] < began + 3600 and json.loads(line)["seconds"] > 2400
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step_000002"] and not (tmp_path / "run/final").exists()
    if lag == "1":  # what was being drawn ahead is drawn again, with newer weights
        return
    resumed = r1(*command, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert_same(tmp_path / "run", straight)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--temperature", "0.7"], "--temperature was 1.0 and is 0.7"),
        (["--seed", "5", "--rollout-lag", "0"], "--seed was 0 and is 5, --rollout-lag was 1 and is 0"),
        (["--group-size", "6", "--updates-per-rollout", "2", "--importance", "sequence"], ""),
    ],
)
def test_a_rollout_goes_on_with_what_it_was_drawn_with_or_not_at_all(
    r1: Run, tiny: Path, tmp_path: Path, changed: list[str], said: str
) -> None:
    """Resumed between two updates. It was trained on with log-probabilities of the old temperature, and in minibatches by the new seed."""
    command = words(tiny, tmp_path, "--updates-per-rollout", "4", "--rollout-lag", "1", "--save-every", "1", "--keep", "9", "-o", "run")
    assert r1(*command).returncode == 0
    straight = figures(tmp_path / "run")
    rewind(tmp_path / "run", 2)
    done = r1(*command, *changed, "--resume")
    assert done.returncode == 0, done.stderr
    [drop] = [line for line in done.stderr.splitlines() if "drawn" in line]
    later = figures(tmp_path / "run")
    if said:
        assert drop.startswith(
            f"warning: {said}: what was drawn before is dropped, the rest of the rollout behind step 0 (32 completions, 2 "
        )
        assert [record["step"] for record in later] == [6, 8]
    else:  # its record is about the same completions, and the same updates but for the weights between trainer and sampler
        assert drop == "warning: the 32 completions drawn ahead for step 5 do not fit the rollout it begins now: drawn again"
        assert [record["step"] for record in later] == [4, 6, 8]
        same = ("reward", "completion_length", "tokens", "updates", "trained_share")
        assert [later[0][name] for name in same] == [straight[0][name] for name in same]


@pytest.mark.parametrize("stop", [False, True])
def test_an_alarm_is_said_once_and_may_end_the_run(r1: Run, tiny: Path, tmp_path: Path, stop: bool) -> None:
    (tmp_path / "flat.py").write_text("def flat(row):\n    return 0.5\n")
    flat = ["--rewards", "flat.py:flat", "--beta", "0", *(["--stop-on", "zero-gradient,constant-reward"] if stop else [])]
    command = words(tiny, tmp_path, "-o", "run", *flat)
    for flag in ("--reference-mix", "--reference-every"):
        place = command.index(flag)
        del command[place : place + 2]
    done = r1(*command)
    assert done.returncode == (1 if stop else 0), done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    [constant] = [line for line in said if "constant-reward" in line]  # also no count of repetitions at the end
    assert "constant-reward: every completion of the last 2 rollouts had the reward 0.5" in constant
    assert len([line for line in said if "zero-gradient" in line]) == 1
    steps = [record["step"] for record in figures(tmp_path / "run")]
    if stop:
        assert steps == [2, 4]
        assert "\nerror: stopped at step 4 by --stop-on constant-reward: " in done.stderr
        assert "\nhint: " in done.stderr and done.stderr.endswith("; --resume goes on past it\n")
        assert (tmp_path / "run/checkpoints/step_000004/manifest.json").exists()
        again = r1(*command, "--resume")  # a script that starts runs again does not notice otherwise
        assert again.returncode == 0, again.stderr
        assert [line for line in again.stderr.splitlines() if "--stop-on" in line] == [
            "warning: --stop-on zero-gradient,constant-reward has ended this run before: it goes on past that, and is not ended by it again"
        ]
        assert [record["step"] for record in figures(tmp_path / "run")] == [2, 4, 6, 8]
        return
    assert steps == [2, 4, 6, 8]  # two more steps in which it would have been said
    before, after = load_file(tiny / "model.safetensors"), load_file(tmp_path / "run/final/model.safetensors")
    assert all((after[name] == before[name]).all() for name in before)  # it was true: nothing was learnt


def test_groups_are_drawn_until_enough_are_mixed_and_things_begin_at_their_step(r1: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text("def odd(row):\n    return float(len(row['completion']) % 2)\n")
    (tmp_path / "more.jsonl").write_text("".join(json.dumps({"id": f"late {n}", "prompt": f"Say {n}."}) + "\n" for n in range(60)))
    flags = ["--rewards", "odd.py:odd,format=0.5@4", "--dynamic-sampling", "odd", "--add", "more.jsonl@4", "--rollout-lag", "1"]
    done = r1(*words(tiny, tmp_path, "-o", "run", *flags))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    assert ["reward/format" in line for line in lines] == [False, False, True, True]
    for line in lines:  # of all groups that were drawn, those that were kept are mixed
        assert 1 - line["wasted"] <= line["signal_groups"] + 1e-9 and 0 <= line["wasted"] < 1 and line["refills"] >= 0
    for line in lines[1:]:  # drawn with the weights before the last update; all completions are short, so their bucket holds the whole
        buckets = {name for name in line if name.startswith(("sampler_mismatch/", "importance_weight/", "share/"))}
        assert buckets == {"sampler_mismatch/le_256", "importance_weight/le_256"}
        for name in ("sampler_mismatch", "importance_weight"):
            assert line[f"{name}/le_256"] == pytest.approx(line[name])
        assert line["sampler_mismatch"] > 1e-5 < abs(line["importance_weight"] - 1)
    samples = shown(tmp_path / "run")
    names = {step: {str(row["id"]) for row in samples if row["step"] == step} for step in (2, 4, 6, 8)}
    assert not any(name.startswith("late") for step in (2, 4) for name in names[step])
    assert any(name.startswith("late") for step in (6, 8) for name in names[step])


@pytest.mark.parametrize(
    ("flags", "message", "hint"),
    [
        (["--stop-on", "entropi"], "`--stop-on` knows no alarm `entropi`", "did you mean `entropy`?"),
        (["--time-limit", "soon"], "`--time-limit` must be a time, found `soon`", "3h30m"),
        (["--dynamic-sampling", "accuracy"], "--dynamic-sampling accuracy is none of the rewards", "--rewards accuracy,"),
        (["--clip-cap", "1.1"], "--clip-cap 1.1 is not above 1 + --clip-high 0.2", "--clip-cap 3"),
        (["--importance-floor", "2"], "--importance-floor 2 is not below --importance-cap 2", "lower"),
        (["--kl", "k1", "--beta", "0"], "--kl does nothing: --beta is 0", "leave one of them out"),
        (["--add", "general.jsonl"], "`--add` must be FILE@STEP", "general.jsonl@1300"),
        (["--rewards", "mine.py:brief@5"], "no reward counts before step 5", "@STEP"),
        (["--max-completion-length", "8,16"], "`--max-completion-length` must be a whole number", "--help"),
        (["--top-p", "0.9"], "`r1 grpo` has no flag `--top-p`", "--temperature"),
        (["--top-k", "5"], "`r1 grpo` has no flag `--top-k`", "--temperature"),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_is_loaded(
    r1: Run, tmp_path: Path, flags: list[str], message: str, hint: str
) -> None:
    (tmp_path / "mine.py").write_text(BRIEF)
    done = r1("grpo", "--model", "none", "--rewards", "mine.py:brief", *flags, "-o", "run", "-", stdin=PROMPTS)
    assert_error(done, 2, message, hint)
    assert not (tmp_path / "run").exists()


def test_a_start_step_is_for_grpo_only(r1: Run) -> None:
    row = json.dumps({"id": 1, "prompt": "x", "completion": "y", "finish_reason": "stop", "num_tokens": 1})
    done = r1("reject", "--rewards", "format@7", "-", stdin=row + "\n")
    assert_error(done, 2, "reward `format` starts at step 7", "r1 grpo")
