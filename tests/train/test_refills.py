"""What dynamic sampling draws for groups that are missing: as many prompts as it took so far, no more than a rollout; by other seeds."""

from types import SimpleNamespace
from typing import Any

import pytest

from r1cli.commands.grpo_run import Wiring
from r1cli.commands.stopping import Stopper
from r1cli.engines.protocol import SamplingParams
from r1cli.row import Row
from r1cli.settings import GrpoSettings
from r1cli.train.clock import Clock
from r1cli.train.grpo_config import Prompts
from r1cli.train.progress import Progress, Rollout
from r1cli.train.rollout import Draw, Hooks, draw_batch
from tests.train.toy import grpo_config

ROWS = [Row({"id": f"p{i}", "prompt": f"prompt {i}"}) for i in range(40)]


@pytest.mark.parametrize(
    ("mixed", "drawn"),
    [
        ([4, 4], [8, 8]),  # half of them: twice the missing four
        ([6, 2], [8, 3]),  # 8 drawn for 6: 2.7 for 2
        ([7, 1], [8, 2]),
        ([6, 1, 1], [8, 3, 2]),  # 11 drawn for 7: 1.6 for one
        ([1, 7], [8, 8]),  # 56 would be
        ([0, 8], [8, 8]),  # nothing is known
    ],
)
def test_missing_prompts_are_drawn_at_the_rate_so_far(accelerator: Any, mixed: list[int], drawn: list[int]) -> None:
    """mixed: how many groups of each draw are."""
    sizes: list[int] = []

    def sample(rows: list[Row], draw: Draw) -> list[Rollout]:
        sizes.append(len(rows))
        made = [row.with_fields(sample=n, completion="", finish_reason="stop") for row in rows for n in range(2)]
        return [Rollout(row, [5], [7], [-1.0]) for row in made]

    def score(rows: list[Row], step: int) -> list[Row]:
        scores = [float(place < 2 * mixed[len(sizes) - 1] and row["sample"]) for place, row in enumerate(rows)]
        return [row.with_fields(rewards={"accuracy": value}, reward=value) for row, value in zip(rows, scores, strict=True)]

    hooks = Hooks(sample, score, lambda: None, lambda *_: None, lambda progress: None)
    config = grpo_config(prompts_per_step=8, group_size=2, dynamic_sampling="accuracy")
    batch = draw_batch(accelerator, Prompts([(0, ROWS)]), hooks, config, Progress(), Clock())
    assert sizes == drawn and len(batch.rows) == 16


def test_every_draw_of_a_run_has_a_seed_of_its_own() -> None:
    """A refill may meet a prompt of the draw before it: by the same seed its completions would be the same, and as little mixed. The same
    draw again, of a run that goes on, is drawn by the same seed."""
    seeds: list[int] = []

    def draw(rows: list[Row], samples: int, seed: int) -> Any:
        seeds.append(seed)
        one = [
            SimpleNamespace(number=n, row=row.with_fields(sample=0), prompt_ids=[5], token_ids=[7], logprobs=[-1.0])
            for n, row in enumerate(rows)
        ]
        return (each for each in one)

    wired: Any = object.__new__(Wiring)
    wired.settings, wired.stopper = GrpoSettings(inputs=[], model="m", out="o", group_size=1), Stopper()
    wired.sampler = SimpleNamespace(params=SamplingParams(max_tokens=8), draw=draw)
    draws = [Draw(step, refill, 8) for step in (0, 1) for refill in (0, 1, 2)]
    for each in [*draws, *draws]:
        assert len(wired.sample(ROWS[:2], each)) == 2
    assert seeds[:6] == seeds[6:] and len(set(seeds)) == len(draws)
