"""What `r1 grpo --resume` keeps of rollouts in a checkpoint when settings have changed, and says of an alarm that ended the run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r1cli.commands.grpo_resume import resumed
from r1cli.commands.resuming import going_past
from r1cli.errors import R1Error
from r1cli.settings import GrpoSettings
from r1cli.train.batches import Sample
from r1cli.train.progress import Ahead, Progress, Rollout, RolloutBatch
from tests.train.toy import grpo_config

WITH: dict[str, Any] = {"temperature": 1.0, "seed": 3, "rollout_lag": 1}
CONFIG: dict[str, Any] = {"steps": 12, "updates_per_rollout": 4}


def going_on(folder: Path | None, said: list[str], dtype: str = "float32", **changes: Any) -> Progress:
    settings = GrpoSettings(inputs=[], model="m", out="o", **{**WITH, **changes})
    context = SimpleNamespace(console=SimpleNamespace(warn=said.append))
    accelerator = SimpleNamespace(process_index=0, num_processes=1)
    training: Any = SimpleNamespace(settings=settings, context=context, accelerator=accelerator, checkpoint=folder, dtype=dtype)
    return resumed(training, grpo_config(**CONFIG))


def left(folder: Path, done: int | None, ahead: bool) -> None:
    """A checkpoint of a run with `WITH`: of its rollout of 4 updates `done` are made (None: there is none), and another is drawn ahead."""
    progress = going_on(None, [])
    progress.step, progress.taken, progress.memory = 4 + (done or 0), {0: 24 if ahead else 16}, {"clipped": [0.1]}
    if done is not None:
        progress.batch = RolloutBatch(4, 4, 16, [Sample(number, [5], [6], sampler_logprobs=[-0.1]) for number in range(48)], done=done)
    if ahead:
        drawn = [Rollout({"id": number}, [5], [6], [-0.1]) for number in range(32)]  # type: ignore[arg-type]
        progress.ahead = Ahead(8, 8, 4, 16, {0: 16}, [0] * 8, drawn)
    progress.save(folder, 0, 1)


@pytest.mark.parametrize(
    ("changed", "flag", "old", "new"),
    [
        ({"temperature": 0.7}, "--temperature", "1.0", "0.7"),
        ({"seed": 7}, "--seed", "3", "7"),
        ({"dtype": "bfloat16"}, "--dtype", "float32", "bfloat16"),
        ({"rollout_lag": 0}, "--rollout-lag", "1", "0"),
    ],
)
def test_rollouts_of_other_settings_are_dropped_with_what_they_cost(
    tmp_path: Path, changed: dict[str, Any], flag: str, old: str, new: str
) -> None:
    left(tmp_path, 2, ahead=True)
    said: list[str] = []
    progress = going_on(tmp_path, said, **changed)
    assert (progress.step, progress.batch, progress.ahead, progress.followed) == (6, None, None, 4)
    assert progress.taken == {0: 16} and progress.memory == {"clipped": [0.1]}, "what was drawn ahead is drawn again, what was begun is not"
    assert progress.dropped == (
        f"{flag} was {old} and is {new}: what was drawn before is dropped, the rest of the rollout behind step 4 (48 completions, 2 of 4 "
        f"updates made; its prompts count as taken) and the 32 completions drawn ahead; --resume with {flag} {old} trains on it"
    )
    assert said == [], "the loop says it"
    progress.save(tmp_path, 0, 1)
    assert going_on(tmp_path, said, **changed).dropped == "", "what is drawn from here on is of the new settings"


def test_what_there_is_of_two_is_dropped_and_a_rollout_that_only_lacks_its_line_stays(tmp_path: Path) -> None:
    for done, ahead, begins in [(None, True, "the 32"), (0, False, "the rest of the rollout behind step 4 (48 completions, 0 of 4")]:
        left(tmp_path, done, ahead)
        assert f": what was drawn before is dropped, {begins} " in going_on(tmp_path, [], temperature=0.5, seed=4).dropped
    left(tmp_path, 4, ahead=True)
    progress = going_on(tmp_path, [], temperature=0.5, seed=4)
    assert progress.batch is not None and progress.ahead is None and progress.followed is None
    assert progress.dropped.startswith(
        "--temperature was 1.0 and is 0.5, --seed was 3 and is 4: what was drawn before is dropped, the 32 c"
    )
    assert progress.dropped.endswith("; --resume with --temperature 1.0 --seed 3 trains on it")
    for done in (None, 4):
        left(tmp_path, done, ahead=False)
        progress = going_on(tmp_path, [], temperature=0.5)
        assert progress.dropped == "" and (progress.batch is None) is (done is None)


@pytest.mark.parametrize("changed", [{}, {"group_size": 6, "updates_per_rollout": 2, "beta": 0.5, "loss": "gspo"}])
def test_other_settings_keep_the_rollouts(tmp_path: Path, changed: dict[str, Any]) -> None:
    left(tmp_path, 2, ahead=True)
    progress = going_on(tmp_path, [], **changed)
    assert progress.batch is not None and progress.ahead is not None and progress.dropped == "" and progress.followed is None


def test_a_lag_that_begins_and_a_checkpoint_that_does_not_say_keep_them_too(tmp_path: Path) -> None:
    for said in ({**WITH, "rollout_lag": 0, "dtype": "float32"}, {}):
        left(tmp_path, 2, ahead=False)
        progress = Progress.load(tmp_path, 0, 1)
        progress.drawn_with = said
        progress.save(tmp_path, 0, 1)
        assert going_on(tmp_path, [], temperature=1.0 if said else 0.5).batch is not None


def test_an_alarm_that_ended_the_run_is_named_when_it_goes_on(tmp_path: Path) -> None:
    memory = {"said entropy": [1.0], "said clipped": [1.0], "stopped clipped": [1.0]}
    Progress(4, {0: 16}, memory=memory).save(tmp_path, 0, 1)
    for stop_on, named in [("entropy,clipped", True), ("entropy", False), (None, False)]:
        said: list[str] = []
        going_on(tmp_path, said, stop_on=stop_on)
        assert said == ["--stop-on clipped has ended this run before: it goes on past that, and is not ended by it again"] * named
    assert going_past(None) is None
    ended = going_past(R1Error("stopped at step 4 by --stop-on clipped: much", hint="lower --lr"))
    assert ended is not None and ended.hint == "lower --lr; --resume goes on past it" and ended.code == 1
