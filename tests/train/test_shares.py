"""Prompts of several files at given shares."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1cli.row import Row
from r1cli.train.clock import Clock
from r1cli.train.grpo_config import Prompts
from r1cli.train.order import split
from r1cli.train.progress import Progress, Rollout
from r1cli.train.rollout import Draw, Hooks, draw_batch, take_prompts
from r1cli.train.shares import Sequencer, shared_rows
from tests.train.runs import grpo_config

FILES = [[Row({"id": f"{name}{i}", "prompt": "?"}) for i in range(count)] for name, count in (("r", 40), ("g", 7), ("s", 3))]
SHARES = [0.5, 0.3, 0.2]


def kinds(rows: list[Row]) -> Counter[str]:
    return Counter(row["id"][0] for row in rows)


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6), st.integers(0, 200), st.integers(1, 100))
def test_every_stretch_holds_the_shares(shares: list[float], start: int, count: int) -> None:
    found = Counter(Sequencer(shares).stretch(start, count))
    for source, share in enumerate(shares):
        assert abs(found[source] - count * share / sum(shares)) < len(shares)


def test_what_one_step_leaves_over_the_next_ones_make_up_for() -> None:
    steps = [Counter(Sequencer(SHARES).stretch(32 * step, 32)) for step in range(10)]
    assert all((s[0], s[1] in (9, 10), s[2] in (6, 7)) == (16, True, True) for s in steps)
    assert sum(steps, Counter()) == {0: 160, 1: 96, 2: 64}


def test_a_small_file_comes_again_before_any_row_of_it_came_twice() -> None:
    taken = [place for step in range(5) for place in shared_rows([40, 7, 3], SHARES, step * 10, 10, "0")]
    for source, rows in enumerate((40, 7, 3)):
        times = Counter(row for where, row in taken if where == source)
        assert max(times.values()) - min(times.get(row, 0) for row in range(rows)) <= 1
    assert taken == shared_rows([40, 7, 3], SHARES, 0, 10, "0") + taken[10:], "a resumed run draws the same"
    assert taken[:10] != sorted(taken[:10]), "sources are shuffled in a draw"


@pytest.mark.parametrize("processes", [1, 3])
def test_a_rollout_holds_the_shares_and_a_joining_file_takes_its_own(processes: int) -> None:
    prompts = Prompts([(0, FILES[0]), (0, FILES[1]), (4, FILES[2])], SHARES)

    def taken(step: int) -> Counter[str]:
        rows: list[Row] = []
        for process in range(processes):
            place: Any = type("Accelerator", (), {"process_index": process, "num_processes": processes})
            mine, sources = take_prompts(place, prompts, Progress(taken={1: 8, 2: 20}), step, 16, grpo_config())
            assert ["rgs"[source] for source in sources] == [str(row["id"])[0] for row in mine]
            rows += mine
        assert len({row["id"] for row in rows}) == 16, "a prompt that comes twice has an id of its own"
        return kinds(rows)

    assert taken(3) == {"r": 10, "g": 6}
    assert taken(4) == {"r": 8, "g": 5, "s": 3}


def test_files_that_use_the_same_ids_keep_their_shares(accelerator: Any) -> None:
    """Also in the split of a rollout into steps, which goes by the source of each completion."""
    math, chat = ([Row({"id": str(number), "prompt": f"{name} {number}"}) for number in range(40)] for name in ("math", "chat"))

    def sample(rows: list[Row], draw: Draw) -> list[Rollout]:
        return [Rollout(row.with_fields(sample=n, completion="", finish_reason="stop"), [5], [7], [-1.0]) for row in rows for n in range(2)]

    def score(rows: list[Row], step: int) -> list[Row]:
        return [row.with_fields(rewards={"own": 1.0}, reward=1.0) for row in rows]

    config = grpo_config(steps=8, updates_per_rollout=8, prompts_per_step=4, group_size=2)
    hooks = Hooks(sample, score, lambda: None, lambda *_: None, lambda progress: None)
    batch = draw_batch(accelerator, Prompts([(0, math), (0, chat)], (0.5, 0.5)), hooks, config, Progress(), Clock())
    assert batch.sources == [int(row["prompt"].startswith("chat")) for row in batch.rows] and sum(batch.sources) == 32
    parts = split(accelerator, [sample.key for sample in batch.samples], 8, "seed", batch.sources)
    assert [sum(batch.sources[index] for index in part) for part in parts] == [4] * 8
    assert len({row["id"] for row in batch.rows}) == 32, "completions are seeded by id"


def test_a_prompt_that_is_there_twice_is_sampled_with_two_seeds(accelerator: Any) -> None:
    rows, _ = take_prompts(accelerator, Prompts([(0, [Row({"id": "a"}), Row({"id": "a"})])]), Progress(), 0, 2, grpo_config())
    assert [row["id"] for row in rows] == ["a", "a#2"]
