"""Each alarm is raised by its sign, after enough steps, once; and a healthy run raises none."""

from typing import Any

import pytest

from r1cli.grpo_settings import ALARMS
from r1cli.settings import SFT_ALARMS
from r1cli.train.alarms import SFT_SIGNS, SIGNS, Memory, look

HEALTHY = {
    "reward": 0.4, "reward_min": 0.0, "reward_max": 1.0, "grad_norm": 0.3, "clip_fraction": 0.01, "entropy": 1.2, "truncated": 0.1,
    "reward/language": 0.95,
}  # fmt: skip


def raised(records: list[dict[str, Any]], memory: Memory | None = None, steps: int = 3) -> list[tuple[int, str]]:
    """(place of the record, name) of each alarm."""
    memory = {} if memory is None else memory
    return [(place, alarm.name) for place, record in enumerate(records) for alarm in look(record, memory, steps)]


def test_a_healthy_run_raises_nothing() -> None:
    assert raised([HEALTHY] * 50) == []


@pytest.mark.parametrize(
    ("name", "sign"),
    [
        ("constant-reward", {"reward_min": 0.0, "reward_max": 0.0}),
        ("zero-gradient", {"grad_norm": 0.0}),
        ("clipped", {"clip_fraction": 0.9}),
        ("entropy", {"entropy": 0.05}),
        ("language", {"reward/language": 0.5}),
        ("truncated", {"truncated": 0.8}),
    ],
)
def test_a_sign_that_lasts_is_said_once(name: str, sign: dict[str, float]) -> None:
    found = raised([HEALTHY] * 5 + [{**HEALTHY, **sign}] * 20)
    assert [alarm for _, alarm in found] == [name]
    assert found[0][0] in (5, 6, 7)  # at the latest with the third record
    assert raised(([HEALTHY] * 5 + [{**HEALTHY, **sign}] * 2 + [HEALTHY] * 3) * 1, steps=10) == []


def test_a_gradient_of_nothing_but_cut_completions_has_another_way_out() -> None:
    still = {**HEALTHY, "grad_norm": 0.0}
    [alarm, _] = look({**still, "truncated": 1.0}, {}, 1)
    assert alarm.text.endswith("every completion was cut") and "--max-completion-length" in alarm.fix
    [alarm, _] = look({**still, "truncated": 0.9}, {}, 1)
    assert "--dynamic-sampling accuracy" in alarm.fix


PREFERENCE = {**HEALTHY, "reward/accuracy": 0.6, "reward/helpful": 0.4, "length/helpful": 80.0, "length_correlation/helpful": 0.1}
HIGHER = {**PREFERENCE, "reward/helpful": 0.7}


def names(records: list[dict[str, Any]], memory: Memory | None = None) -> list[str]:
    return [name for _, name in raised(records, memory)]


def test_a_preference_that_rises_with_accuracy_is_what_stage_four_is_for() -> None:
    assert names([PREFERENCE] * 5 + [{**HIGHER, "reward/accuracy": 0.65}] * 20) == []
    assert names([PREFERENCE] * 5 + [{**PREFERENCE, "reward/accuracy": 0.3}] * 20) == [], "accuracy alone falls: not the model's doing"


def test_a_preference_that_rises_while_accuracy_falls_is_reward_hacking() -> None:
    assert names([PREFERENCE] * 5 + [{**HIGHER, "reward/accuracy": 0.4}] * 20) == ["reward-hacking"]
    assert names([PREFERENCE] * 5 + [{**HIGHER, "reward/accuracy": 0.55}] * 20) == []


def test_held_out_problems_decide_where_they_are_measured() -> None:
    def measured(accuracy: float, problems: float = 400.0) -> dict[str, float]:
        return {"held_out/accuracy": accuracy, "held_out/problems": problems}

    start = [{**HEALTHY, **measured(0.2)}] * 3 + [{**HEALTHY, **measured(0.6)}]  # before reward models count, it may rise
    before = start + [PREFERENCE] * 4
    assert names([*before, *[{**HIGHER, "reward/accuracy": 0.2}] * 20]) == [], "rollouts do not decide then"
    assert names([*before, *[HIGHER] * 5, {**HIGHER, **measured(0.45)}, *[HIGHER] * 3]) == ["reward-hacking"]
    assert names([*before, *[HIGHER] * 5, {**HIGHER, **measured(0.56)}, *[HIGHER] * 3]) == []
    assert names([*before, *[HIGHER] * 5, {**HIGHER, **measured(0.45, problems=20)}, *[HIGHER] * 3]) == [], "chance"
    assert names([*before, *[PREFERENCE] * 5, {**PREFERENCE, **measured(0.45)}, *[PREFERENCE] * 3]) == [], "no rise"


@pytest.mark.parametrize(
    ("tie", "length", "alarm"), [(0.8, 160, True), (0.8, 85, False), (0.2, 160, False), (-0.8, 40, True), (-0.8, 160, False)]
)
def test_a_model_that_pays_for_length_is_said_once_lengths_follow(tie: float, length: float, alarm: bool) -> None:
    later = {**PREFERENCE, "length/helpful": length, "length_correlation/helpful": tie}
    assert names([PREFERENCE] * 5 + [later] * 20) == (["reward-length"] if alarm else [])


MEASURED = {**PREFERENCE, "held_out/accuracy": 0.6, "held_out/problems": 1e6}
FEW = {**MEASURED, "held_out/problems": 100.0}
LONGER = {"length/helpful": 160.0, "length_correlation/helpful": 0.8}


@pytest.mark.parametrize(
    ("alarm", "first", "later", "figure", "quiet", "loud"),
    [
        ("clipped", HEALTHY, {}, "clip_fraction", 0.299, 0.301),
        ("truncated", HEALTHY, {}, "truncated", 0.499, 0.501),
        ("entropy", HEALTHY, {}, "entropy", 0.121, 0.119),  # of 1.2
        ("language", HEALTHY, {}, "reward/language", 0.801, 0.799),  # of 0.95
        ("reward-length", PREFERENCE, LONGER, "length_correlation/helpful", 0.499, 0.501),
        ("reward-length", PREFERENCE, LONGER, "length/helpful", 99.0, 101.0),  # of 80
        ("reward-length", PREFERENCE, {"length_correlation/helpful": -0.8}, "length/helpful", 64.5, 63.5),
        ("reward-hacking", PREFERENCE, {"reward/accuracy": 0.4}, "reward/helpful", 0.419, 0.421),  # of 0.4
        ("reward-hacking", PREFERENCE, {"reward/helpful": 0.7}, "reward/accuracy", 0.501, 0.499),  # of 0.6
        ("reward-hacking", MEASURED, {"reward/helpful": 0.7}, "held_out/accuracy", 0.551, 0.549),
        ("reward-hacking", FEW, {"reward/helpful": 0.7}, "held_out/accuracy", 0.461, 0.459),  # 2 sqrt((0.24 + 0.2484) / 100) = 0.1398
    ],
)
def test_where_a_sign_begins(alarm: str, first: dict[str, float], later: dict[str, float], figure: str, quiet: float, loud: float) -> None:
    assert names([first] * 5 + [{**first, **later, figure: quiet}] * 20) == []
    assert names([first] * 5 + [{**first, **later, figure: loud}] * 20) == [alarm]


def test_a_language_that_was_learnt_and_is_lost_again_is_said() -> None:
    learnt = [{**HEALTHY, "reward/language": share} for share in (0.6, 0.7, 0.8, 0.9, 0.9, 0.9)]
    assert names([*learnt, *[{**HEALTHY, "reward/language": 0.76}] * 5]) == []
    assert names([*learnt, *[{**HEALTHY, "reward/language": 0.74}] * 5]) == ["language"]


@pytest.mark.parametrize("sign", [{"entropy": 0.0}, {"clip_fraction": 1.0}, {"truncated": 1.0}, {"reward/language": 0.0}])
def test_one_odd_rollout_among_ten_is_no_sign(sign: dict[str, float]) -> None:
    assert raised([HEALTHY] * 20 + [{**HEALTHY, **sign}] + [HEALTHY] * 20, steps=10) == []


def test_a_step_without_an_update_has_no_gradient() -> None:
    assert raised([{"reward": 1.0, "reward_min": 0.0, "reward_max": 1.0, "updates": 0.0}] * 3) == [(2, "zero-gradient")]


def test_what_is_remembered_survives_a_checkpoint() -> None:
    sign = {**HEALTHY, "grad_norm": 0.0}
    memory: Memory = {}
    assert raised([sign] * 2, memory) == []
    copied = {name: list(values) for name, values in memory.items()}
    assert raised([sign], copied) == [(0, "zero-gradient")]


def test_an_alarm_that_was_only_said_ends_a_run_that_is_asked_to_stop_on_it() -> None:
    sign, memory = {**HEALTHY, "grad_norm": 0.0}, {}  # type: dict[str, Any], Memory
    assert [alarm.name for alarm in look(sign, memory, 1)] == ["zero-gradient"]
    assert look(sign, memory, 1) == look(sign, memory, 1, stop_on="entropy") == []
    assert [alarm.name for alarm in look(sign, memory, 1, stop_on="entropy,zero-gradient")] == ["zero-gradient"]
    assert look(sign, memory, 1, stop_on="entropy,zero-gradient") == []  # it was stopped for once, and went on knowing


def test_every_alarm_has_a_name_that_stop_on_takes_and_a_fix() -> None:
    assert tuple(SIGNS) == ALARMS
    alarms = look({**HEALTHY, "grad_norm": 0.0}, {}, 1)
    assert alarms and all(alarm.fix and alarm.text for alarm in alarms)


def of_losses(losses: list[float], name: str, steps: int = 3) -> list[int]:
    """Places of the losses at which the alarms of SFT are raised."""
    memory: Memory = {}
    records: list[dict[str, float]] = [{"loss": 1.0, name: loss} for loss in losses]
    return [place for place, record in enumerate(records) if look(record, memory, steps, SFT_SIGNS)]


def test_a_loss_that_rises_above_its_beginning_diverges() -> None:
    assert tuple(SFT_SIGNS) == SFT_ALARMS
    assert of_losses([3.0, 2.0, 1.0, 0.5, 0.4, 0.6, 0.3, 0.2], "loss") == []
    assert of_losses([2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 4.5, 9.0, 9.0], "loss") == [7]


def test_a_held_out_loss_that_stays_above_its_best_is_overfitting() -> None:
    assert of_losses([2.0, 1.5, 1.6, 1.7, 1.4, 1.5, 1.3], "held_out_loss") == []
    assert of_losses([2.0, 1.5, 1.6, 1.55, 1.7, 1.8, 1.9], "held_out_loss") == [4]
