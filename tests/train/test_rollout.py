"""What a rollout draws: prompts in order, refills until enough groups are mixed, limits and stages by step."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1cli.errors import R1Error
from r1cli.rewards.registry import parse_specs
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row
from r1cli.train.clock import Clock
from r1cli.train.grpo_config import Prompts, value_at
from r1cli.train.progress import Progress, Rollout
from r1cli.train.rollout import Draw, Hooks, Interrupted, draw_batch, groups_of, is_mixed, take_prompts, with_advantages
from tests.train.toy import grpo_config

ROWS = [Row({"id": f"p{i}", "prompt": f"prompt {i}"}) for i in range(10)]


class Sampler:
    """Two completions a prompt; prompt p3 is mixed, p5 all right, every other all wrong, unless `mixed` says so. Remembers its draws."""

    def __init__(self, mixed: set[str]) -> None:
        self.mixed, self.draws = mixed, []  # type: ignore[var-annotated]

    def __call__(self, rows: list[Row], draw: Draw) -> list[Rollout]:
        self.draws.append(([row["id"] for row in rows], draw))
        return [
            Rollout(row.with_fields(sample=n, completion=str(n), finish_reason="stop"), [5], [7, 8], [-1.0, -1.0])
            for row in rows
            for n in range(2)
        ]

    def score(self, rows: list[Row], step: int) -> list[Row]:
        scores = [1.0 if row["id"].partition("#")[0] in self.mixed and row["sample"] == 0 else 0.0 for row in rows]
        shaped = [score - 0.1 * row["sample"] for score, row in zip(scores, rows, strict=True)]  # rewards differ in every group
        return [
            row.with_fields(rewards={"accuracy": score, "length": extra - score}, reward=extra)
            for row, score, extra in zip(rows, scores, shaped, strict=True)
        ]

    def hooks(self, **more: Any) -> Hooks:
        return Hooks(self, self.score, lambda: None, lambda *_: None, lambda progress: None, **more)


def drawn(accelerator: Any, sampler: Sampler, progress: Progress | None = None, **changes: Any) -> Any:
    config = grpo_config(**{"group_size": 2, "prompts_per_step": 3, "steps": 9, **changes})
    return draw_batch(accelerator, Prompts([(0, ROWS)]), sampler.hooks(), config, progress or Progress(), Clock())


def test_without_dynamic_sampling_there_is_one_draw(accelerator: Any) -> None:
    sampler = Sampler(set())
    batch = drawn(accelerator, sampler)
    assert [(len(ids), draw) for ids, draw in sampler.draws] == [(3, Draw(0, 0, 16))]
    assert len(batch.samples) == 6 and "wasted" not in batch.figures and batch.figures["tokens"] == 12
    assert [row["advantage"] for row in batch.rows] == [sample.advantage for sample in batch.samples]


def test_groups_are_kept_by_accuracy_and_the_rollout_is_filled(accelerator: Any) -> None:
    sampler = Sampler({row["id"] for row in ROWS[::2]})  # half of the prompts
    progress = Progress()
    batch = drawn(accelerator, sampler, progress, dynamic_sampling="accuracy")
    ids = list(dict.fromkeys(row["id"] for row in batch.rows))
    assert len(batch.samples) == 6 and len(ids) == 3 and set(ids) <= sampler.mixed
    assert len(sampler.draws) > 1 and [draw.refill for _, draw in sampler.draws] == list(range(len(sampler.draws)))
    asked = [name for draw, _ in sampler.draws for name in draw]
    assert progress.taken == {0: len(asked)} and len(set(asked)) == len(asked)  # no prompt is drawn twice before all were
    assert ids == [name for name in asked if name in sampler.mixed][:3]  # in the order in which they were drawn
    assert batch.figures["refills"] == len(sampler.draws) - 1 and batch.figures["wasted"] == pytest.approx(1 - 3 / len(asked))


def test_what_is_measured_is_what_was_drawn_and_not_what_was_kept(accelerator: Any) -> None:
    """Kept are groups that are half right by construction: their accuracy, and how many were cut, says nothing of the policy."""
    sampler = Sampler({"p3"})
    scored: list[Row] = []

    def score(rows: list[Row], step: int) -> list[Row]:
        scored.extend(sampler.score([row.with_fields(finish_reason="stop" if row["id"] == "p3" else "length") for row in rows], step))
        return scored[-len(rows) :]

    config = grpo_config(group_size=2, prompts_per_step=1, steps=9, dynamic_sampling="accuracy")
    hooks = Hooks(sampler, score, lambda: None, lambda *_: None, lambda progress: None)
    batch = draw_batch(accelerator, Prompts([(0, ROWS)]), hooks, config, Progress(), Clock())
    assert [row["id"] for row in batch.rows] == ["p3", "p3"] and len(scored) > 2
    figures = batch.figures
    assert figures["reward/accuracy"] == pytest.approx(1 / len(scored)) and figures["tokens"] == 2 * len(scored)
    assert figures["truncated"] == pytest.approx(1 - 2 / len(scored))


def test_when_nothing_is_mixed_it_gives_up_and_says_why(accelerator: Any) -> None:
    sampler = Sampler(set())
    with pytest.raises(R1Error, match="after 4 refills only 0 of 3 prompts have right and wrong completions by `accuracy`") as error:
        drawn(accelerator, sampler, dynamic_sampling="accuracy", max_refills=4)
    assert len(sampler.draws) == 5 and all(len(ids) == 3 for ids, _ in sampler.draws)
    assert error.value.code == 1 and "--max-refills" in (error.value.hint or "")


@given(st.sets(st.integers(0, 9)), st.integers(1, 5), st.integers(0, 4))
def test_a_rollout_is_whole_or_refused_and_never_larger(mixed: set[int], wanted: int, refills: int) -> None:
    from accelerate import Accelerator

    sampler = Sampler({f"p{i}" for i in mixed})
    changes: dict[str, Any] = {"dynamic_sampling": "accuracy", "prompts_per_step": wanted, "max_refills": refills}
    try:
        batch = drawn(Accelerator(cpu=True, mixed_precision="no"), sampler, **changes)
    except R1Error:
        kept = sum(name.partition("#")[0] in sampler.mixed for ids, _ in sampler.draws for name in ids)
        assert kept < wanted and len(sampler.draws) == refills + 1
    else:
        assert len(batch.rows) == 2 * wanted and {row["id"].partition("#")[0] for row in batch.rows} <= sampler.mixed
        assert 0 <= batch.figures["wasted"] < 1 and len(sampler.draws) == batch.figures["refills"] + 1 <= refills + 1
    assert all(len(ids) <= wanted for ids, _ in sampler.draws)


@pytest.mark.parametrize(
    ("scores", "mixed"),
    [([1, 0], True), ([1, 1], False), ([0, 0], False), ([0.5, 0], False), ([1, 0.5], True), ([None, 1, 0], True), ([1, None], False)],
)
def test_a_group_is_mixed_when_some_are_right_and_some_are_wrong(scores: list[float | None], mixed: bool) -> None:
    rows = [Row({"rewards": {"accuracy": score, "format": place}, "reward": float(place)}) for place, score in enumerate(scores)]
    assert is_mixed(rows, "accuracy") is mixed


def test_a_group_without_a_verdict_is_judged_by_its_rewards() -> None:
    rows = [Row({"rewards": {"accuracy": None, "helpful": h}, "reward": h}) for h in (0.2, 0.7)]
    assert is_mixed(rows, "accuracy") and not is_mixed([rows[0], rows[0]], "accuracy")


def test_the_rollout_of_several_steps_draws_their_prompts_and_the_last_one_fewer(accelerator: Any) -> None:
    sampler = Sampler(set())
    progress = Progress()
    for step in (0, 4, 8):
        progress.step = step
        batch = drawn(accelerator, sampler, progress, updates_per_rollout=4, steps=10)
        assert (batch.start, batch.parts) == (step, 4 if step < 8 else 2)
    assert [len(ids) for ids, _ in sampler.draws] == [12, 12, 6]


def test_epochs_count_as_steps() -> None:
    config = grpo_config(steps=10, updates_per_rollout=3, epochs_per_rollout=2)
    assert [config.parts(step) for step in (0, 6)] == [3, 2]


def test_limits_change_at_a_step(accelerator: Any) -> None:
    limits = ((0, 32768), (8200, 65536))
    assert [value_at(limits, step) for step in (0, 8199, 8200, 10_000)] == [32768, 32768, 65536, 65536]
    sampler = Sampler(set())
    for step in (0, 16):
        batch = drawn(accelerator, sampler, Progress(step), max_completion_length=((0, 8), (10, 12)), steps=20)
        assert batch.limit == sampler.draws[-1][1].limit == {0: 8, 16: 12}[step]


def test_prompts_join_at_a_step_and_every_stage_takes_each_once(accelerator: Any) -> None:
    prompts = Prompts([(0, ROWS[:4]), (5, ROWS[4:])])
    progress, config = Progress(), grpo_config()
    first, sources = take_prompts(accelerator, prompts, progress, 0, 4, config)
    later = [row for step in (5, 6) for row in take_prompts(accelerator, prompts, progress, step, 5, config)[0]]
    assert sources == [0] * 4
    assert sorted(row["id"] for row in first) == ["p0", "p1", "p2", "p3"]
    assert sorted(row["id"] for row in later) == sorted(row["id"] for row in ROWS)
    assert progress.taken == {0: 4, 1: 10}


def test_a_prompt_that_comes_twice_in_a_draw_has_an_id_of_its_own(accelerator: Any) -> None:
    rows, _ = take_prompts(accelerator, Prompts([(0, ROWS[:2])]), Progress(), 0, 5, grpo_config())
    assert len({row["id"] for row in rows}) == 5 and {row["id"].partition("#")[0] for row in rows} == {"p0", "p1"}


def test_processes_share_the_prompts_of_one_order() -> None:
    def of(process: int) -> list[str]:
        accelerator = SimpleNamespace(process_index=process, num_processes=2)
        return [row["id"] for row in take_prompts(accelerator, Prompts([(0, ROWS)]), Progress(), 0, 10, grpo_config())[0]]

    alone = SimpleNamespace(process_index=0, num_processes=1)
    together = [row["id"] for row in take_prompts(alone, Prompts([(0, ROWS)]), Progress(), 0, 10, grpo_config())[0]]
    assert together[::2] == of(0) and together[1::2] == of(1)


def test_a_run_that_is_asked_to_end_scores_nothing_more(accelerator: Any) -> None:
    sampler = Sampler(set())
    hooks = sampler.hooks(stopping=lambda seconds: True)
    hooks.score = lambda rows, step: pytest.fail("scored")
    with pytest.raises(Interrupted):
        draw_batch(accelerator, Prompts([(0, ROWS)]), hooks, grpo_config(group_size=2), Progress(), Clock())


def test_an_advantage_of_several_rewards_by_hand(accelerator: Any, tmp_path: Path) -> None:
    """Rewards a (weight 2) and b (weight 0.5) of four completions: 2 a + 0.5 b = 2.5, 0.5, 2, 0, with mean 1.25.

    The deviations 1.25, -0.75, 0.75, -1.25 have the squares 1.5625, 0.5625, 0.5625, 1.5625: sum 4.25, and std sqrt(4.25 / 3) = 1.190238.
    A row that b has nothing to say about gets a's share alone.
    """
    file = tmp_path / "mine.py"
    file.write_text("def a(row):\n    return row['given'][0]\n\n\ndef b(row):\n    return row['given'][1]\n")
    given = [(1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (1.0, None), (0.0, None), (0.0, 1.0), (0.0, 1.0)]
    rows = [
        Row({"id": n // 4, "prompt": "?", "completion": "!", "finish_reason": "stop", "given": list(pair)}) for n, pair in enumerate(given)
    ]
    with Scorer(parse_specs(f"{file}:a=2,{file}:b=0.5"), workers=1) as scorer:
        scored = list(scorer.score(rows))
    assert [row["reward"] for row in scored] == [2.5, 0.5, 2.0, 0.0, 2.0, 0.0, 0.5, 0.5]
    rollouts = [Rollout(row, [5], [7], [-1.0]) for row in scored]
    samples, said = with_advantages(accelerator, groups_of(rollouts, scored, 4), grpo_config())
    expected = [value / (1.190238 + 1e-4) for value in (1.25, -0.75, 0.75, -1.25)]
    expected += [value / (0.866025 + 1e-4) for value in (1.25, -0.75, -0.25, -0.25)]  # 2, 0, 0.5, 0.5: mean 0.75, std sqrt(2.25 / 3)
    assert [sample.advantage for sample in samples] == pytest.approx(expected, rel=1e-5)
    assert [row["advantage"] for row in said] == [sample.advantage for sample in samples]
