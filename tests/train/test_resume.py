"""A run that stops and goes on ends where the straight run ends, to the last digit."""

import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from r1cli.errors import R1Error
from r1cli.row import Row
from r1cli.train import grpo
from r1cli.train.batches import Sample
from r1cli.train.checkpoints import load_state, save_model
from r1cli.train.model import load_policy
from r1cli.train.optimiser import OptimiserConfig
from r1cli.train.progress import Ahead, Progress, Rollout, RolloutBatch
from r1cli.train.rollout import Draw, Interrupted, TooFewPrompts
from r1cli.train.update import NotFinite
from tests.train.runs import grpo_run, sft_run, toy_sample
from tests.train.toy import largest_difference, weights

RATE = OptimiserConfig(lr=1e-2, lr_schedule="cosine", warmup_steps=1)
RUNS: dict[str, tuple[Any, dict[str, Any]]] = {
    "grpo": (grpo_run, {"steps": 8, "save_every": 1, "updates_per_rollout": 2, "optimiser": RATE, "reference_every": 2}),
    "sft": (sft_run, {"epochs": 1.0, "batch_rows": 4, "save_every": 1, "optimiser": RATE}),
}


@pytest.mark.parametrize("kind", RUNS)
def test_stopping_half_way_changes_nothing(accelerator: Any, tiny: Path, tmp_path: Path, kind: str) -> None:
    run, settings = RUNS[kind]
    half, rest = {"grpo": (4, [6, 8]), "sft": (2, [3, 4])}[kind]
    straight, records = run(accelerator, str(tiny), checkpoint=tmp_path, checkpoint_at=half, **settings)
    resumed, later = run(accelerator, str(tiny), resume=tmp_path, **settings)
    assert len(records) == 4 and [record["step"] for record in later] == rest
    assert largest_difference(straight, resumed) == 0.0
    for one, other in zip(records[2:], later, strict=True):
        assert one.keys() == other.keys()
        assert [one[name] for name in one if "second" not in name] == [other[name] for name in one if "second" not in name]
    assert largest_difference(straight, weights(load_policy(str(tiny)))) > 1e-3


def same_figures(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    """Whether two runs measured the same, but for what a clock says."""
    return [untimed(record) for record in one] == [untimed(record) for record in other]


def untimed(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if "second" not in name}


SEVERAL: dict[str, Any] = {
    "steps": 8, "updates_per_rollout": 2, "epochs_per_rollout": 2, "optimiser": RATE, "reference_every": 4, "reference_mix": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("calls", range(2, 14))
def test_a_run_that_is_asked_to_end_goes_on_as_if_it_had_not(accelerator: Any, tiny: Path, tmp_path: Path, calls: int) -> None:
    """Asked at every place where it looks: before and after sampling, after scoring, between updates (the rollout is saved then)."""
    straight, records = grpo_run(accelerator, str(tiny), **SEVERAL)
    seen: list[float] = []

    def stopping(seconds: float) -> bool:
        seen.append(seconds)
        return len(seen) == calls

    _, before = grpo_run(accelerator, str(tiny), stopping=stopping, checkpoint=tmp_path, checkpoint_at=None, **SEVERAL)
    assert len(seen) == calls  # it ended there
    made = (tmp_path / "weights.pt").exists()
    assert made is (calls > 3)  # before the first rollout is there and scored there is nothing to save
    resumed, after = grpo_run(accelerator, str(tiny), resume=tmp_path if made else None, **SEVERAL)
    assert same_figures([*(before if made else []), *after], records)
    assert largest_difference(straight, resumed) == 0.0


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_checkpoint_may_be_due_in_the_middle_of_a_rollout(accelerator: Any, tiny: Path, tmp_path: Path, lag: int, step: int) -> None:
    """What is drawn ahead then goes along: it is of the weights of before the rollout, which a resumed run has not."""
    settings = {**SEVERAL, "save_every": 1, "rollout_lag": lag}
    straight, records = grpo_run(accelerator, str(tiny), checkpoint=tmp_path, checkpoint_at=step, **settings)
    progress = Progress.load(tmp_path, 0, 1)
    assert progress is not None and progress.step == step and progress.batch is not None and progress.batch.done == step % 4
    assert (progress.ahead is not None) is (lag == 1 and step < 4)
    resumed, later = grpo_run(accelerator, str(tiny), resume=tmp_path, **settings)
    assert same_figures(records[step // 4 :], later) and largest_difference(straight, resumed) == 0.0


def test_the_seconds_of_a_rollout_are_those_of_all_starts(accelerator: Any, tiny: Path, tmp_path: Path) -> None:
    """Else a run that goes on in the middle of a rollout would have drawn all its tokens in no time."""
    grpo_run(accelerator, str(tiny), checkpoint=tmp_path, checkpoint_at=2, **{**SEVERAL, "save_every": 1})
    batch = Progress.load(tmp_path, 0, 1).batch
    assert batch is not None and set(batch.seconds) >= {"seconds/sample", "seconds/score", "seconds/train"}
    path = tmp_path / "grpo_progress_0.pt"
    state = torch.load(path)
    state["batch"]["seconds"] |= {"seconds/sample": 4000.0}
    torch.save(state, path)
    _, [line, other] = grpo_run(accelerator, str(tiny), resume=tmp_path, **{**SEVERAL, "save_every": 1})
    assert 4000 <= line["seconds/sample"] < line["seconds"] < 4100 and line["seconds/train"] > batch.seconds["seconds/train"]
    assert line["tokens_per_second"] == pytest.approx(line["tokens"] / line["seconds"])
    assert other["seconds"] < 100


def test_saves_in_the_middle_of_a_rollout_are_as_many_as_are_due(accelerator: Any, tiny: Path) -> None:
    saved: list[int] = []
    more = {"save": lambda progress: saved.append(progress.step)}
    grpo_run(accelerator, str(tiny), **{**SEVERAL, "save_every": 3}, more=more)
    assert saved == [3, 6, 8]


def test_another_number_of_processes_drops_the_rest_of_a_rollout_and_says_so(accelerator: Any, tiny: Path, tmp_path: Path) -> None:
    """The reference follows as it would have at the end of the rollout: here at step 2, with steps 1 and 2 made by two processes."""
    settings = {**SEVERAL, "save_every": 1, "reference_every": 2, "reference_mix": 1.0}
    grpo_run(accelerator, str(tiny), checkpoint=tmp_path, checkpoint_at=3, **settings)
    path = tmp_path / "grpo_progress_0.pt"
    torch.save({**torch.load(path), "processes": 2}, path)
    progress = Progress.load(tmp_path, 0, 1)
    assert progress is not None and (progress.step, progress.batch, progress.followed) == (3, None, 0)
    said: list[str] = []
    followed: list[tuple[int, int]] = []
    with patch.object(grpo, "_follow", lambda *given: followed.append(given[-2:])):
        _, later = grpo_run(accelerator, str(tiny), resume=tmp_path, more={"warn": said.append}, **settings)
    assert [record["step"] for record in later] == [7, 8] and followed == [(0, 3), (3, 7), (7, 8)]
    assert len(said) == 1 and "another number of processes: what was not trained on yet after step 3 is dropped" in said[0]


def test_what_was_drawn_ahead_by_another_number_of_processes_is_drawn_again_and_that_is_said(tmp_path: Path) -> None:
    Progress(4, {0: 8}, ahead=Ahead(step=5, prompts=4, group_size=2, limit=8, taken={0: 4}, sources=[])).save(tmp_path, 0, 2)
    found = Progress.load(tmp_path, 0, 1)
    assert (found.step, found.taken, found.ahead) == (4, {0: 4}, None)
    assert found.dropped.startswith("what was drawn ahead behind step 4 was shared out among another number of processes")


def test_a_rollout_drawn_ahead_is_in_the_checkpoint(accelerator: Any, tiny: Path, tmp_path: Path) -> None:
    lagging: dict[str, Any] = {"steps": 5, "rollout_lag": 1, "save_every": 1, "optimiser": RATE}
    straight, records = grpo_run(accelerator, str(tiny), checkpoint=tmp_path, checkpoint_at=2, **lagging)
    progress = Progress.load(tmp_path, 0, 1)
    assert progress is not None and progress.step == 2 and progress.ahead is not None and len(progress.ahead.completions) == 12
    resumed, later = grpo_run(accelerator, str(tiny), resume=tmp_path, **lagging)
    assert same_figures(records[2:], later) and largest_difference(straight, resumed) == 0.0


def test_a_rollout_drawn_ahead_waits_for_a_run_that_ends_before_its_turn(accelerator: Any, tiny: Path, tmp_path: Path) -> None:
    lagging: dict[str, Any] = {"steps": 3, "rollout_lag": 1, "optimiser": RATE}
    straight, records = grpo_run(accelerator, str(tiny), **lagging)
    calls: list[float] = []

    def stopping(seconds: float) -> bool:
        calls.append(seconds)
        return len(calls) == 6  # the second rollout is there, and not looked at yet

    grpo_run(accelerator, str(tiny), stopping=stopping, checkpoint=tmp_path, checkpoint_at=None, **lagging)
    resumed, later = grpo_run(accelerator, str(tiny), resume=tmp_path, **lagging)
    assert same_figures(records[1:], later) and largest_difference(straight, resumed) == 0.0


def test_a_rollout_that_was_being_drawn_ahead_is_drawn_again(accelerator: Any, tiny: Path, tmp_path: Path) -> None:
    lagging: dict[str, Any] = {"steps": 3, "rollout_lag": 1, "optimiser": RATE, "updates_per_rollout": 1}
    calls: list[float] = []
    abandoned: list[bool] = []
    ended = threading.Event()

    def sample(rows: list[Row], draw: Draw) -> list[Rollout]:
        if draw.step == 2:
            ended.wait(60)  # it is still at it when the run ends
        return toy_sample(rows, draw)

    def abandon() -> None:
        abandoned.append(True)
        ended.set()

    def stopping(seconds: float) -> bool:
        calls.append(seconds)
        return len(calls) == 8  # after the second rollout was taken over, before its update

    more = {"abandon": abandon, "sample": sample}
    grpo_run(accelerator, str(tiny), stopping=stopping, checkpoint=tmp_path, checkpoint_at=None, more=more, **lagging)
    progress = Progress.load(tmp_path, 0, 1)
    assert abandoned == [True] and progress is not None
    assert progress.step == 1 and progress.ahead is None and progress.taken == {0: 6}
    _, later = grpo_run(accelerator, str(tiny), resume=tmp_path, **lagging)
    assert [record["step"] for record in later] == [2, 3]


def interrupted_with_a_rollout_ahead(accelerator: Any, tiny: Path, folder: Path, **settings: Any) -> list[dict[str, Any]]:
    """A run that is asked to end between two updates of its first rollout, when the second one is there."""
    there = threading.Event()

    def sample(rows: list[Row], draw: Draw) -> list[Rollout]:
        drawn = toy_sample(rows, draw)
        if draw.step > 0:
            threading.Timer(0.3, there.set).start()
        return drawn

    def stopping(seconds: float) -> bool:
        return there.wait(60) if asked.append(seconds) is None and len(asked) == 5 else False  # type: ignore[func-returns-value]

    asked: list[float] = []
    _, records = grpo_run(
        accelerator, str(tiny), stopping=stopping, checkpoint=folder, checkpoint_at=None, more={"sample": sample}, rollout_lag=1, **settings
    )
    progress = Progress.load(folder, 0, 1)
    assert progress is not None and progress.batch is not None and progress.batch.done == 1
    assert progress.ahead is not None and len(progress.ahead.completions) == progress.ahead.prompts * 4
    return records


def test_a_rollout_ahead_that_is_whole_when_the_run_ends_is_kept(accelerator: Any, tiny: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 8, "updates_per_rollout": 4, "optimiser": RATE}
    straight, records = grpo_run(accelerator, str(tiny), rollout_lag=1, **settings)
    before = interrupted_with_a_rollout_ahead(accelerator, tiny, tmp_path, **settings)
    resumed, later = grpo_run(accelerator, str(tiny), resume=tmp_path, rollout_lag=1, **settings)
    assert same_figures(records, [*before, *later]) and largest_difference(straight, resumed) == 0.0


@pytest.mark.parametrize("changed", [{"steps": 12}, {"group_size": 3}, {"prompts_per_step": 2}])
def test_a_rollout_ahead_of_another_shape_is_drawn_again(accelerator: Any, tiny: Path, tmp_path: Path, changed: dict[str, int]) -> None:
    """The last rollout of 5 steps is one of a single step; with more steps it would be one of four."""
    settings: dict[str, Any] = {"steps": 5, "updates_per_rollout": 4, "optimiser": RATE}
    interrupted_with_a_rollout_ahead(accelerator, tiny, tmp_path, **settings)
    sizes: list[tuple[int, int, int]] = []
    said: list[str] = []
    size = changed.get("group_size", 4)

    def sample(rows: list[Row], draw: Draw) -> list[Rollout]:
        sizes.append((draw.step, len(rows), size))
        return [rollout for rollout in toy_sample(rows, draw) if rollout.row["sample"] < size]

    more = {"sample": sample, "warn": said.append}
    _, records = grpo_run(accelerator, str(tiny), resume=tmp_path, rollout_lag=1, more=more, **{**settings, **changed})
    assert said == ["the 12 completions drawn ahead for step 5 do not fit the rollout it begins now: drawn again"]
    parts = 4 if "steps" in changed else 1
    assert sizes[0] == (4, parts * changed.get("prompts_per_step", 3), size)
    assert [record["updates"] for record in records] == ([4.0, 4.0, 4.0] if "steps" in changed else [4.0, 1.0])


def half_trained(accelerator: Any, tiny: Path, folder: Path, done: int, **settings: Any) -> None:
    """A checkpoint from between the updates of the first rollout."""
    asked: list[float] = []

    def stopping(seconds: float) -> bool:
        asked.append(seconds)
        return len(asked) == 4 + done

    grpo_run(accelerator, str(tiny), stopping=stopping, checkpoint=folder, checkpoint_at=None, **settings)
    progress = Progress.load(folder, 0, 1)
    assert progress is not None and progress.batch is not None and progress.batch.done == done


@pytest.mark.parametrize("changed", [{"beta": 0.05}, {"entropy_coef": 0.01}, {"mask_truncated": False}])
def test_an_objective_that_changes_within_a_rollout_is_refused(
    accelerator: Any, tiny: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    """What the policy said before its first update was asked for what counted then; more would count now."""
    settings: dict[str, Any] = {"steps": 4, "updates_per_rollout": 4, "optimiser": RATE, "beta": 0.0}
    half_trained(accelerator, tiny, tmp_path, 1, **settings)
    with pytest.raises(R1Error, match="the rollout of step 1 was begun with settings under which other completions count") as caught:
        grpo_run(accelerator, str(tiny), resume=tmp_path, **{**settings, **changed})
    assert caught.value.code == 2


TAKEN = {
    "prompts_per_step": 2, "group_size": 3, "updates_per_rollout": 2, "steps": 12, "loss": "gspo", "advantage": "mean", "beta": 0.0,
    "importance": "sequence", "importance_cap": 0.0, "clip_low": 0.1, "reference_every": 1, "reference_mix": 0.5, "rollout_lag": 1,
    "max_completion_length": ((0, 3),), "microbatch_tokens": 90, "dynamic_sampling": "even", "epochs_per_rollout": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_a_setting_that_may_change_within_a_rollout_leaves_its_minibatches_alone(
    accelerator: Any, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Every completion of the rollout is trained on once an epoch; `commands.grpo_resume` drops it for the settings that are not here."""
    taken: list[tuple[int, int]] = []
    one_update = grpo.one_update

    def listening(*given: Any) -> Any:
        if given[3].start == 0:
            taken.extend(sample.key for sample in given[4])
        return one_update(*given)

    monkeypatch.setattr(grpo, "one_update", listening)
    settings: dict[str, Any] = {"steps": 8, "updates_per_rollout": 4, "optimiser": RATE, "beta": 0.1, "mask_truncated": False}
    half_trained(accelerator, tiny, tmp_path, 2, **settings)

    def sample(rows: list[Row], draw: Draw) -> list[Rollout]:
        size = TAKEN[name] if name == "group_size" else 4
        return [rollout for rollout in toy_sample(rows, draw) if rollout.row["sample"] < size]

    grpo_run(accelerator, str(tiny), resume=tmp_path, more={"sample": sample}, **{**settings, name: TAKEN[name]})
    epochs = 2 if name == "epochs_per_rollout" else 1
    assert len(set(taken)) == 48 and sorted(taken) == sorted([*set(taken)] * epochs)


def test_a_kl_that_begins_within_a_rollout_of_which_all_counts_is_measured(accelerator: Any, tiny: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 4, "updates_per_rollout": 4, "optimiser": RATE, "beta": 0.0, "entropy_coef": 0.01}
    half_trained(accelerator, tiny, tmp_path, 1, **settings)
    ends = [grpo_run(accelerator, str(tiny), resume=tmp_path, **{**settings, "beta": beta})[0] for beta in (0.0, 0.5)]
    assert largest_difference(*ends) > 1e-3


def test_a_rollout_ahead_that_the_end_cut_short_is_drawn_again(accelerator: Any, tiny: Path, tmp_path: Path) -> None:
    """The sampler gives up as soon as the run is asked to end; what it has then is no rollout."""
    lagging: dict[str, Any] = {"steps": 4, "rollout_lag": 1, "optimiser": RATE}
    straight, records = grpo_run(accelerator, str(tiny), **lagging)
    asked: list[int] = []

    def sample(rows: list[Row], draw: Draw) -> list[Rollout]:
        drawn = toy_sample(rows, draw)
        if draw.step == 2:
            asked.append(draw.step)
            return drawn[:5]  # a group and a half
        return drawn

    more = {"sample": sample, "stopping": lambda seconds: bool(asked)}
    grpo_run(accelerator, str(tiny), checkpoint=tmp_path, checkpoint_at=None, **lagging, more=more)
    progress = Progress.load(tmp_path, 0, 1)
    assert asked == [2] and progress is not None
    assert progress.ahead is None and progress.taken[0] == 3 * (progress.step + (progress.batch is not None))
    resumed, later = grpo_run(accelerator, str(tiny), resume=tmp_path, **lagging)
    assert same_figures(records[progress.step :], later) and largest_difference(straight, resumed) == 0.0


@pytest.mark.parametrize("steps", [6, 4])
def test_a_record_that_was_not_written_is_written_by_the_run_that_goes_on(accelerator: Any, tiny: Path, tmp_path: Path, steps: int) -> None:
    """The run is asked to end while it measures what it is about to log: after step 4, which may be its last."""
    several: dict[str, Any] = {**SEVERAL, "steps": steps, "epochs_per_rollout": 1, "reference_every": 2}
    straight, records = grpo_run(accelerator, str(tiny), **several)
    logged: list[dict[str, Any]] = []

    def log(record: dict[str, Any], rows: list[Row], memory: Any) -> None:
        if record["step"] == 4:
            raise Interrupted
        logged.append(record)

    grpo_run(accelerator, str(tiny), checkpoint=tmp_path, checkpoint_at=None, **several, more={"log": log})
    progress = Progress.load(tmp_path, 0, 1)
    assert progress is not None and progress.step == 4 and progress.batch is not None and progress.batch.done == 2
    resumed, later = grpo_run(accelerator, str(tiny), resume=tmp_path, **several)
    assert same_figures([*logged, *later], records)
    assert largest_difference(straight, resumed) == 0.0


@pytest.mark.parametrize(
    "error", [R1Error("the server went away"), TooFewPrompts("nothing is mixed"), NotFinite("broken"), ValueError("a bug")], ids=repr
)
@pytest.mark.parametrize("lag", [0, 1])
def test_an_error_between_two_updates_saves_what_was_learnt(
    accelerator: Any, tiny: Path, tmp_path: Path, error: Exception, lag: int
) -> None:
    """Also one in the thread that draws ahead: the prompts of the draw that failed are drawn again."""

    def sample(rows: list[Row], draw: Draw) -> list[Rollout]:
        if draw.step == 2:
            raise error
        return toy_sample(rows, draw)

    lone: dict[str, Any] = {"steps": 4, "optimiser": RATE, "rollout_lag": lag}
    with pytest.raises(type(error), match=str(error)):
        grpo_run(accelerator, str(tiny), checkpoint=tmp_path, checkpoint_at=None, **lone, more={"sample": sample})
    if isinstance(error, (NotFinite, ValueError)):  # the weights may be what is broken
        assert not (tmp_path / "weights.pt").exists()
        return
    progress = Progress.load(tmp_path, 0, 1)
    assert progress is not None and progress.step == 2 and progress.taken == {0: 6}
    straight, records = grpo_run(accelerator, str(tiny), **lone)
    resumed, later = grpo_run(accelerator, str(tiny), resume=tmp_path, **lone)
    assert same_figures(records[2 - lag :], later)  # ahead, it failed before the line of step 2 was written: that comes now
    assert largest_difference(straight, resumed) == 0.0


def test_it_asks_for_the_longest_rollout_and_update_so_far(accelerator: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollout takes 5 seconds, its updates 1 each; the second rollout takes 20, its first update 3."""
    now, asked = [0.0], []

    def passing(seconds: float) -> None:
        now[0] += seconds

    def stopping(seconds: float) -> bool:
        asked.append(seconds)
        return False

    def sample(rows: list[Row], draw: Draw) -> list[Rollout]:
        passing(20.0 if draw.step == 2 else 5.0)
        return toy_sample(rows, draw)

    def slow(*given: Any) -> dict[str, float] | None:
        passing(3.0 if given[3].start == 2 and given[3].done == 0 else 1.0)
        return one_update(*given)

    one_update = grpo.one_update
    monkeypatch.setattr(grpo, "one_update", slow)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    grpo_run(accelerator, str(tiny), steps=8, updates_per_rollout=2, optimiser=RATE, stopping=stopping, more={"sample": sample})
    looks = [asked[start : start + 5] for start in range(0, 20, 5)]  # the loop, after sampling, after scoring, before each update
    assert looks == [[0, 0, 0, 0, 1], [6, 0, 0, 1, 3], [23, 0, 0, 3, 3], [23, 0, 0, 3, 3]]


def test_another_number_of_processes_starts_a_new_rollout(tmp_path: Path) -> None:
    batch = RolloutBatch(4, 2, 16, [Sample(0, [5], [6], sampler_logprobs=[-0.1], key=(3, 1))], [Row({"id": "é", "reward": 0.1 + 0.2})])
    batch.old = {0: torch.tensor([0.5])}
    Progress(5, {0: 12}, batch, None, {"clipped": [0.1]}).save(tmp_path, 0, 1)
    same, other = Progress.load(tmp_path, 0, 1), Progress.load(tmp_path, 1, 2)
    assert same is not None and same.batch is not None and other is not None
    assert same.batch.samples == batch.samples and same.batch.rows == batch.rows and torch.equal(same.batch.old[0], batch.old[0])  # type: ignore[index]
    assert (other.step, other.taken, other.batch, other.memory) == (5, {0: 12}, None, {"clipped": [0.1]})
    Progress(5, {0: 12}, batch, Ahead(6, 3, 4, 16, {0: 9}, [0, 0, 0])).save(tmp_path, 0, 1)
    other = Progress.load(tmp_path, 0, 2)
    assert other is not None and other.ahead is None and other.taken == {0: 9}, "what was drawn ahead is drawn again"


@pytest.mark.parametrize("process", [0, 1])
def test_a_checkpoint_that_lost_what_all_write_is_refused(tmp_path: Path, process: int) -> None:
    """Without it the run would go on as another one: other prompts, no rollout, and alarms that know of nothing."""
    Progress(5, {0: 12}).save(tmp_path, 0, process + 1)
    (tmp_path / "grpo_progress_0.pt").unlink()
    with pytest.raises(R1Error, match=rf"`{tmp_path}` has no `grpo_progress_0\.pt` to resume from") as caught:
        Progress.load(tmp_path, process, process + 1)
    assert caught.value.code == 2 and caught.value.hint == f"remove `{tmp_path}`: --resume then takes the checkpoint before it"


def test_a_file_that_only_one_process_lacks_is_missed(tmp_path: Path) -> None:
    """Its part of the rollout would be lost, and the processes would go on from different places."""
    Progress(5, {0: 12}).save(tmp_path, 0, 2)
    with pytest.raises(R1Error, match=r"grpo_progress_1\.pt` is missing: each of the 2 processes") as caught:
        Progress.load(tmp_path, 1, 2)
    assert caught.value.code == 2 and "share" in (caught.value.hint or "")


def test_a_checkpoint_is_a_plain_folder_that_loads_again(accelerator: Any, tiny: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    policy = load_policy(str(tiny))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.25)
    save_model(accelerator, policy, AutoTokenizer.from_pretrained(tiny), tmp_path)
    assert largest_difference(weights(policy), weights(load_policy(str(tmp_path)))) == 0.0
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == AutoTokenizer.from_pretrained(tiny).get_vocab()


def test_a_folder_without_a_state_is_named(tiny: Path, tmp_path: Path) -> None:
    optimizer = torch.optim.SGD(load_policy(str(tiny)).parameters(), lr=1.0)
    with pytest.raises(R1Error, match="has no `training_state"):
        load_state(optimizer, tmp_path)
